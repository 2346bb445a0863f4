//! Programs to compare with: our own bench object, and Debian's xdp-filter. Nothing here is the guard's.

use anyhow::Context;
use aya::{
    Ebpf, EbpfLoader,
    maps::{LpmTrie, lpm_trie::Key},
    programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp},
};
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

static BENCH: &[u8] = aya::include_bytes_aligned!("../../objects/bench.o");

/// xdp-filter with all its features, allowing what no list names; in a folder of `/usr/lib`.
const XDP_FILTER: &str = "bpf/xdpfilt_alw_all.o";
const XDP_FILTER_PROGRAM: &str = "xdpfilt_alw_all";

/// Frames that the kernel sends at once.
const LIVE_BATCH: u32 = 64;

/// A loaded object that is not the guard's.
pub struct Peer(Ebpf);

impl Peer {
    /// `kernel/programs/src/bench.rs`.
    pub fn bench() -> anyhow::Result<Peer> {
        Ok(Peer(EbpfLoader::new().load(BENCH).context("loading bench.o")?))
    }

    /// xdp-filter's program, its maps (empty: nothing is filtered) pinned in this folder.
    pub fn xdp_filter(pins: &Path) -> anyhow::Result<OwnedFd> {
        let folders = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path().join(XDP_FILTER));
        let file = folders.into_iter().find(|file| file.exists()).context("xdp-filter is missing (package xdp-tools)")?;
        let object = EbpfLoader::new().default_map_pin_directory(pins).load_file(&file);
        Peer(object.with_context(|| format!("loading {}", file.display()))?).program(XDP_FILTER_PROGRAM)
    }

    /// Loads a program.
    pub fn program(&mut self, name: &str) -> anyhow::Result<OwnedFd> {
        let program: &mut Xdp = self.0.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
        Ok(program.fd()?.as_fd().try_clone_to_owned()?)
    }

    /// Puts prefixes into the deny list.
    pub fn deny(&mut self, prefixes: impl Iterator<Item = Prefix>) -> anyhow::Result<()> {
        let mut list: LpmTrie<_, u32, u64> = self.0.map_mut("DENY").context("no map DENY")?.try_into()?;
        for prefix in prefixes {
            list.insert(&Key::new(prefix.length, prefix.address), 1, 0)?;
        }
        Ok(())
    }

    /// Runs a loaded program over live frames that seem to come from this interface.
    pub fn live(&mut self, name: &str, frame: &[u8], interface: u32, repeat: u32) -> anyhow::Result<()> {
        let program: &mut Xdp = self.0.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, interface, 0, 0].map(u32::to_ne_bytes);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(context.as_flattened());
        options.repeat = repeat;
        options.attrs = TestRunAttrs::new().xdp_live_frames(LIVE_BATCH);
        program.test_run(options).with_context(|| format!("running {name} over live frames"))?;
        Ok(())
    }
}

/// A prefix of the deny lists, both of ours and of the others'.
#[derive(Clone, Copy)]
pub struct Prefix {
    pub address: u32,
    pub length: u32,
}

/// Prefixes of a large public list.
pub const LIST: usize = 100_000;
/// Prefixes of a feed, as the guard's lists are made for.
pub const FEED: usize = 1_000_000;

/// So many prefixes in the space that the spoofed sources come from: /24s to single addresses, as lists have them.
pub fn prefixes(count: usize) -> impl Iterator<Item = Prefix> {
    let mut number = 1u32;
    let mut draw = move || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number >> 8
    };
    std::iter::repeat_with(move || {
        let length = 24 + draw() % 9;
        let host = draw() | (16 + draw() % 64) << 24;
        Prefix { address: (host & (u32::MAX << (32 - length))).to_be(), length }
    })
    .take(count)
}
