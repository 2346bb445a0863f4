//! The guard's figures: `bench_guard FILE` runs them and writes rows `{name, value, unit, runs, spread}`. Needs root.
//!
//! Ratios are of pairs measured one right after the other, by the kernel's own timer (`BPF_PROG_TEST_RUN`); `value` is their median,
//! `spread` the distance of the greatest from the least.
#![allow(clippy::unwrap_used, missing_docs)]

use guard::kernel::{bpffs, budgets, clock::Clock, flows::Budget as Rate, load, sys, tables};
use kernel_shared::{
    abi::{BANS_MAX, BanValue, RANGES_MAX, ROWS_MAX, Range4, UDP},
    ban::bit4,
    control::{Config, Mode, WORD_CONFIG},
    strangers::Budget,
};
use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

const PAIRS: usize = 11;
const REPEATS: u32 = 300_000;
const PORT: u16 = 9000;
/// Peers of the scrape; the rows there are, are read as often as it takes.
const PEERS: u32 = 10_000;

struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    runs: usize,
    spread: f64,
}

fn row(name: &'static str, unit: &'static str, mut values: Vec<f64>) -> Row {
    values.sort_by(f64::total_cmp);
    let spread = values[values.len() - 1] - values[0];
    Row { name, value: values[values.len() / 2], unit, runs: values.len(), spread }
}

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

/// Pairs of (numerator, denominator), ns a packet.
fn pairs(numerator: BorrowedFd<'_>, denominator: BorrowedFd<'_>, frame: &[u8]) -> Vec<f64> {
    let time = |program| sys::test_run_repeated(program, frame, REPEATS).unwrap().1 as f64;
    (0..PAIRS).map(|_| time(numerator) / time(denominator)).collect()
}

/// As many bans as the tables hold, in the space that the spoofed sources come from.
fn load_bans(tables: &tables::Tables) {
    let mut number = 1u32;
    let mut draw = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 8 & 0x00ff_ffff | (16 + (number & 63)) << 24).to_be()
    };
    for _ in 0..BANS_MAX {
        let address = draw();
        tables.bans4.set(&address, &BanValue::new(1, u64::MAX, 0), BANS_MAX as usize).unwrap();
        let bit = bit4(address);
        tables.bits4.write(bit.word, bit.mask, true);
    }
    for _ in 0..RANGES_MAX {
        let address = draw() & u32::from_ne_bytes([255, 255, 255, 0]);
        let range = Range4 { length: 24, address };
        tables.ranges4.set(&range, &BanValue::new(1, u64::MAX, 0), RANGES_MAX as usize).unwrap();
        let bit = bit4(address);
        tables.bits4.write(bit.word, bit.mask, true);
    }
}

fn thread_ms() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6
}

/// CPU of reading 10,000 rows.
fn scrape(directory: &Path) -> Vec<f64> {
    let open = |name| tables::open_for_others(directory, name).unwrap();
    let maps = guard::Maps::from_descriptors(&open("COUNTERS"), &open("ROWS"), &open("LATENCY"), load::cpus().unwrap()).unwrap();
    let once = || {
        let start = thread_ms();
        let sum = (0..PEERS).map(|peer| maps.row(peer % ROWS_MAX, 0).packets).sum::<u64>();
        assert_eq!(std::hint::black_box(sum), 0);
        thread_ms() - start
    };
    (0..PAIRS).map(|_| once()).collect()
}

fn main() {
    let output = std::env::args().nth(1).expect("a file to write");
    use nix::{mount::MsFlags, sched::CloneFlags};
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let folder = tempfile::tempdir().unwrap();
    bpffs::ensure(folder.path()).unwrap();
    let mut loaded = load::load(folder.path()).unwrap();
    let tables = tables::Tables::open(folder.path()).unwrap();
    let clock = Clock::new(loaded.clock.try_clone().unwrap()).unwrap();
    tables.set_ports(&[(UDP, PORT)], &[]).unwrap();
    let config = Config::new(Mode::Enforce);
    tables.set_control(WORD_CONFIG, config.word()).unwrap();
    // Budgets are worked through, and never dry: a packet that passes goes the longest way.
    for budget in Budget::ALL {
        budgets::write(&tables, &clock, budget, Rate { rate: 100_000_000, burst: 4_000_000 }).unwrap();
    }
    let bare = load::load_bench(&mut loaded.object, "bench_bare").unwrap();
    let spoofed = load::load_bench(&mut loaded.object, "bench_spoofed").unwrap();
    let frame = datagram([10, 77, 0, 9]);
    let (filter, bare, spoofed) = (loaded.guard.as_fd(), bare.as_fd(), spoofed.as_fd());
    let mut rows = vec![row("pipeline_over_bare_drop", "ratio", pairs(filter, bare, &frame))];
    load_bans(&tables);
    rows.push(row("spoofed_million_over_constant", "ratio", pairs(spoofed, filter, &frame)));
    rows.push(row("scrape_10k_peers_cpu_ms", "ms", scrape(folder.path())));
    let times = |program| (0..PAIRS).map(|_| sys::test_run_repeated(program, &frame, REPEATS).unwrap().1 as f64).collect();
    rows.push(row("bare_drop_ns", "ns", times(bare)));
    rows.push(row("pipeline_ns", "ns", times(filter)));
    rows.push(row("spoofed_million_ns", "ns", times(spoofed)));
    let lines = rows.iter().map(|Row { name, value, unit, runs, spread }| {
        println!("{name:<32} {value:>8.3} {unit:<6} {runs} runs, spread {spread:.3}");
        serde_json::json!({"name": name, "value": value, "unit": unit, "runs": runs, "spread": spread})
    });
    let text = serde_json::to_string_pretty(&lines.collect::<Vec<_>>()).unwrap();
    if let Some(parent) = Path::new(&output).parent() {
        fs::create_dir_all(parent).unwrap();
    }
    fs::write(&output, text + "\n").unwrap();
}
