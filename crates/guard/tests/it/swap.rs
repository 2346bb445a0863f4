//! Programs swapped under load: by adoption after SIGKILL, while options are reloaded. Every packet of a known number is judged exactly once.

use crate::support::{Lab, MARKER4, Running, SUSPECT4, flow};
use guard::{FlowKind, Request, Response, kernel::sys, protocol::Stats};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};
use types::Offence;

/// Swaps in each mode.
const SWAPS: usize = 4;
/// Packets from the banned source between two from the peer: less than the queue of a veth pair.
const BURST: u32 = 60;

/// Packets of a peer and of a banned source, one line after the other, each acknowledged by the peer's packet at its reader: none is
/// lost on the way, so each is the filter's to count.
#[derive(Default)]
pub struct Load {
    stop: AtomicBool,
    /// Lines that arrived.
    pub lines: AtomicU64,
}

impl Load {
    /// Sends until told to stop. No packet of the banned source may arrive, and no packet of the peer may be missing.
    fn send(&self, lab: &Lab) {
        let mut line = lab.line4();
        while !self.stop.load(SeqCst) {
            assert_eq!(line.send(BURST), 0, "packets of a banned source arrived");
            self.lines.fetch_add(1, SeqCst);
        }
    }

    /// Waits for so many further lines: everything before them has been judged.
    pub fn further(&self, lines: u64) {
        let target = self.lines.load(SeqCst) + lines;
        crate::support::until("further lines", || (self.lines.load(SeqCst) >= target).then_some(()));
    }

    /// Runs something while packets flow. How many packets the peer and the banned source have sent in all.
    pub fn during(&self, lab: &Lab, work: impl FnOnce(&Load)) -> (u64, u64) {
        /// Ends the load also where the work fails, else the scope would wait for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(lab));
            let stop = Stop(&self.stop);
            work(self);
            drop(stop);
            sender.join().unwrap();
        });
        let lines = self.lines.load(SeqCst);
        (lines, lines * u64::from(BURST))
    }
}

/// Packets to protected ports that the kernel has counted, whatever became of them.
pub fn counted(stats: &Stats) -> u64 {
    [&stats.passed, &stats.dropped].into_iter().flat_map(|counts| counts.values()).sum::<u64>() + stats.off + stats.unreadable
}

/// A peer, a banned source, and so small a budget for strangers that the peer is heard only as long as its flow is known.
pub fn furnish(guard: &Running) {
    guard.ask(&flow(MARKER4, 4001, FlowKind::Known, "peer"));
    guard.ban(SUSPECT4, 600_000, Offence::Replay);
    guard.ask(&Request::Budget { name: "udp_source".into(), rate: 1, burst: 1, for_ms: None });
}

/// Ids of the programs that the filter's link has had.
fn program(lab: &Lab, pin: &std::path::Path) -> u32 {
    lab.inside.inside(|| sys::link_info(sys::open_pin(pin, 0).unwrap().as_fd()).unwrap().program_id)
}

fn swapped_under_load(test: &str, mode: &str) {
    let Some(lab) = Lab::new(test) else { return };
    let config = lab.folder.path().join("swap.toml");
    let write = |shift: usize| std::fs::write(&config, format!("event_shift = {shift}\n")).unwrap();
    write(6);
    let arguments = ["--mode", "enforce", "--xdp", mode, "--config", config.to_str().unwrap()];
    let mut guard = lab.start(&arguments);
    furnish(&guard);
    let pin = lab.bpffs().join(crate::support::pins(&lab.bpffs())[0].as_str()).join("link");
    let mut programs = BTreeSet::from([program(&lab, &pin)]);
    let before = guard.stats();
    let load = Load::default();
    let (peer, banned) = load.during(&lab, |load| {
        for swap in 0..SWAPS {
            load.further(3);
            guard.signal(Signal::SIGKILL);
            load.further(3);
            guard = lab.start(&arguments);
            assert!(guard.stats().adopted);
            programs.insert(program(&lab, &pin));
            write(7 + swap);
            assert!(matches!(guard.ask(&Request::Reload {}), Response::Reloaded { changes } if changes.len() == 1));
        }
        load.further(3);
    });
    let after = guard.stats();
    assert_eq!((after.xdp_mode.as_str(), programs.len()), (mode, SWAPS + 1));
    let of = |counts: fn(&Stats) -> u64| counts(&after) - counts(&before);
    assert_eq!(of(counted), peer + banned, "each packet is counted once");
    assert_eq!(of(|stats| stats.passed["known"]), peer);
    assert_eq!(of(|stats| stats.dropped["banned_replay"]), banned);
    assert_eq!(after.rows[0].packets, peer, "in the peer's row, too");
    eprintln!("{mode}: {} packets over {SWAPS} swaps, none lost, none counted twice", peer + banned);
}

#[test]
fn a_swap_in_native_mode_loses_no_packet() {
    swapped_under_load("a_swap_in_native_mode_loses_no_packet", "native");
}

#[test]
fn a_swap_in_generic_mode_loses_no_packet() {
    swapped_under_load("a_swap_in_generic_mode_loses_no_packet", "generic");
}

#[test]
fn a_swap_in_tcx_loses_no_packet() {
    swapped_under_load("a_swap_in_tcx_loses_no_packet", "tcx");
}
