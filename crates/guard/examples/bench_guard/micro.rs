//! Nanoseconds a packet, by the kernel's timer (`BPF_PROG_TEST_RUN`): it leaves out what others ran in between.

use crate::{
    peers::{self, Peer},
    report::Report,
    scrape,
};
use anyhow::Context;
use guard::kernel::{
    bans::Bans,
    bpffs, budgets,
    clock::Clock,
    flows::Budget as Rate,
    lists::{Lists, Ready, compile},
    load, sys, tables,
};
use kernel_shared::{
    abi::{BANS_MAX, BanValue, RANGES_MAX, Range4, UDP},
    ban::bit4,
    control::{Config, Mode, WORD_CONFIG},
    strangers::Budget,
};
use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

const PAIRS: usize = 11;
const REPEATS: u32 = 300_000;
const PORT: u16 = 9000;

/// 64 bytes of UDP to the protected port.
fn datagram(source: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 50, 0, 1, 0x40, 0, 64, 17, 0, 0];
    frame.extend(source);
    frame.extend([10, 77, 0, 2]);
    frame.extend(4000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}

/// ns of one run.
fn time(program: BorrowedFd<'_>, frame: &[u8]) -> f64 {
    sys::test_run_repeated(program, frame, REPEATS).unwrap().1 as f64
}

/// Pairs of (numerator, denominator).
fn pairs(numerator: BorrowedFd<'_>, denominator: BorrowedFd<'_>, frame: &[u8]) -> Vec<f64> {
    (0..PAIRS).map(|_| time(numerator, frame) / time(denominator, frame)).collect()
}

/// Runs something while a thread beside it sweeps more memory than the cache holds, as a node's database does.
fn beside_a_sweep<T>(run: impl FnOnce() -> T) -> T {
    /// Ends the sweep also where the run fails, else the scope would wait for ever.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    const LINE: usize = 64;
    const SWEPT: usize = 128 << 20;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut memory = vec![0u8; SWEPT];
            while !stop.load(Relaxed) {
                memory.iter_mut().step_by(LINE).for_each(|byte| *byte = byte.wrapping_add(1));
                std::hint::black_box(&mut memory);
            }
        });
        let _stop = Stop(&stop);
        run()
    })
}

/// As many bans as the tables hold, in the space that the spoofed sources come from.
fn load_bans(tables: &tables::Tables) {
    let list: Vec<_> = peers::prefixes(peers::LIST).collect();
    for prefix in &list[..BANS_MAX as usize] {
        tables.bans4.set(&prefix.address, &BanValue::new(1, u64::MAX, 0), BANS_MAX as usize).unwrap();
        let bit = bit4(prefix.address);
        tables.bits4.write(bit.word, bit.mask, true);
    }
    for prefix in &list[BANS_MAX as usize..(BANS_MAX + RANGES_MAX) as usize] {
        let range = Range4 { length: prefix.length, address: prefix.address };
        tables.ranges4.set(&range, &BanValue::new(1, u64::MAX, 0), RANGES_MAX as usize).unwrap();
        let bit = bit4(prefix.address);
        tables.bits4.write(bit.word, bit.mask, true);
    }
}

/// The list in force, which is this bench's only one.
struct Listed<'a> {
    tables: &'a tables::Tables,
    folder: &'a Path,
    lists: Lists,
    bans: Bans,
}

impl<'a> Listed<'a> {
    fn new(tables: &'a tables::Tables, folder: &'a Path) -> Listed<'a> {
        let bans = Bans::adopt(tables, compile::Bits::default()).unwrap();
        Listed { tables, folder, lists: Lists::default(), bans }
    }

    /// Puts a list of so many prefixes in force.
    fn swap(&mut self, count: usize) {
        let line = |prefix: peers::Prefix| format!("{}/{}\n", Ipv4Addr::from(prefix.address.to_ne_bytes()), prefix.length);
        let text: String = peers::prefixes(count).map(line).collect();
        let compiled = compile::read(text.as_bytes(), false, &[]).unwrap();
        let ready = Ready::new(&compiled, "bench", 0).unwrap();
        self.lists.install(self.tables, &mut self.bans, self.folder, ready, u64::MAX).unwrap();
    }
}

/// All rows that need no network.
pub fn measure(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    bpffs::ensure(folder.path()).unwrap();
    let mut loaded = load::load(folder.path()).unwrap();
    let tables = tables::Tables::open(folder.path()).unwrap();
    let clock = Clock::new(loaded.clock.try_clone().unwrap()).unwrap();
    tables.set_ports(&[(UDP, PORT)], &[]).unwrap();
    tables.set_control(WORD_CONFIG, Config::new(Mode::Enforce).word()).unwrap();
    // Budgets are worked through, and never dry: a packet that passes goes the longest way.
    for budget in Budget::ALL {
        budgets::write(&tables, &clock, budget, Rate { rate: 100_000_000, burst: 4_000_000 }).unwrap();
    }
    let bare = load::load_bench(&mut loaded.object, "bench_bare").unwrap();
    let spoofed = load::load_bench(&mut loaded.object, "bench_spoofed").unwrap();
    let frame = datagram([10, 77, 0, 9]);
    let (filter, bare, spoofed) = (loaded.guard.as_fd(), bare.as_fd(), spoofed.as_fd());
    report.add("pipeline_over_bare_drop", "ratio", pairs(filter, bare, &frame));
    match Peer::xdp_filter(folder.path()) {
        Ok(theirs) => {
            report.add("pipeline_over_xdp_filter", "ratio", pairs(filter, theirs.as_fd(), &frame));
            report.add("xdp_filter_ns", "ns", (0..PAIRS).map(|_| time(theirs.as_fd(), &frame)).collect());
        }
        Err(error) => report.missing("pipeline_over_xdp_filter", &error),
    }
    let mut listed = Listed::new(&tables, folder.path());
    listed.swap(peers::LIST);
    load_bans(&tables);
    report.add("spoofed_million_over_constant", "ratio", pairs(spoofed, filter, &frame));
    if let Err(error) = usual_pipelines(report, spoofed, &frame) {
        report.missing("lpm_first_over_pipeline_spoofed", &error);
    }
    report.add("bare_drop_ns", "ns", (0..PAIRS).map(|_| time(bare, &frame)).collect());
    report.add("pipeline_ns", "ns", (0..PAIRS).map(|_| time(filter, &frame)).collect());
    report.add("spoofed_million_ns", "ns", (0..PAIRS).map(|_| time(spoofed, &frame)).collect());
    listed.swap(peers::FEED);
    if let Err(error) = under_a_feed(report, spoofed, &frame) {
        report.missing("lpm_first_over_pipeline_feed", &error);
    }
    match scrape::runs(folder.path()) {
        Ok(runs) => report.add("scrape_10k_peers_cpu_ms", "ms", runs),
        Err(error) => report.missing("scrape_10k_peers_cpu_ms", &error),
    }
}

/// What a deny list in a trie and buckets in an LRU map cost under the same sources.
fn usual_pipelines(report: &mut Report, ours: BorrowedFd<'_>, frame: &[u8]) -> anyhow::Result<()> {
    let mut bench = Peer::bench()?;
    let (lpm, lru) = (bench.program("lpm_first")?, bench.program("lru_first")?);
    bench.deny(peers::prefixes(peers::LIST)).context("filling the deny list")?;
    report.add("lpm_first_over_pipeline_spoofed", "ratio", pairs(lpm.as_fd(), ours, frame));
    report.add("lru_first_over_pipeline_spoofed", "ratio", pairs(lru.as_fd(), ours, frame));
    report.add("lpm_first_over_pipeline_swept", "ratio", beside_a_sweep(|| pairs(lpm.as_fd(), ours, frame)));
    let (theirs, own) = beside_a_sweep(|| (0..PAIRS).map(|_| (time(lpm.as_fd(), frame), time(ours, frame))).unzip());
    report.add("lpm_first_swept_ns", "ns", theirs);
    report.add("spoofed_million_swept_ns", "ns", own);
    report.add("lpm_first_spoofed_ns", "ns", (0..PAIRS).map(|_| time(lpm.as_fd(), frame)).collect());
    report.add("lru_first_spoofed_ns", "ns", (0..PAIRS).map(|_| time(lru.as_fd(), frame)).collect());
    Ok(())
}

/// The trie and the guard with a million prefixes each, which is more than the cache holds of the trie.
fn under_a_feed(report: &mut Report, ours: BorrowedFd<'_>, frame: &[u8]) -> anyhow::Result<()> {
    let mut bench = Peer::bench()?;
    let lpm = bench.program("lpm_first")?;
    bench.deny(peers::prefixes(peers::FEED)).context("filling the deny list")?;
    report.add("lpm_first_over_pipeline_feed", "ratio", pairs(lpm.as_fd(), ours, frame));
    report.add("lpm_first_feed_ns", "ns", (0..PAIRS).map(|_| time(lpm.as_fd(), frame)).collect());
    report.add("pipeline_feed_ns", "ns", (0..PAIRS).map(|_| time(ours, frame)).collect());
    Ok(())
}
