//! Dropped packets per CPU-second: a flood over a veth pair that the guard drops, or nftables at ingress, or iptables in `raw`.
//!
//! The receiver works on a kernel thread (threaded NAPI), so all that a packet costs from the wire to its end is the CPU time of that
//! thread, exact whatever else the machine does. What the guard's own process spends meanwhile is added to the guard's side. The sender is not
//! counted: live frames from 2²⁰ random sources, from another CPU.

use crate::{
    bed::{self, Bed, PORT, SENDER},
    peers::Peer,
    report::Report,
};
use anyhow::{Context, ensure};
use guard::kernel::sys;
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

const PAIRS: usize = 9;
/// How long one flood lasts.
const FLOOD: Duration = Duration::from_millis(400);
/// Frames a system call.
const FRAMES: u32 = 20_000;
/// Fewer drops than this in one flood are no flood.
const DROPS_MIN: u64 = 10_000;
/// `XDP_FLAGS_DRV_MODE`.
const NATIVE: u32 = 1 << 2;

/// Who drops.
#[derive(Clone, Copy, Debug)]
enum Filter {
    Guard,
    Nftables,
    Iptables,
}

/// The receiver's side.
struct Receiver<'a> {
    bed: &'a Bed,
    guard: &'a Path,
    napi: i32,
}

/// Drops of a flood, and what they cost.
#[derive(Clone, Copy)]
struct Cost {
    drops: u64,
    cpu_s: f64,
}

impl Cost {
    fn per_second(self) -> f64 {
        self.drops as f64 / self.cpu_s
    }
}

/// A veth sends frames of live test runs only while an XDP program is attached to its own end.
struct Sender {
    peer: Peer,
    interface: u32,
    _link: OwnedFd,
}

impl Sender {
    fn new(bed: &Bed) -> anyhow::Result<Sender> {
        let mut peer = Peer::bench()?;
        let pass = peer.program("pass")?;
        peer.program("flood")?;
        let (interface, link) = bed.outside.inside(|| {
            let interface = nix::net::if_::if_nametoindex(SENDER)?;
            Ok((interface, sys::link_xdp(pass.as_fd(), interface, NATIVE).context("attaching to the sender")?))
        })?;
        Ok(Sender { peer, interface, _link: link })
    }

    fn flood(&mut self, bed: &Bed, frame: &[u8]) -> anyhow::Result<()> {
        bed.outside.inside(|| {
            bed::pin(0, 0)?;
            let end = Instant::now() + FLOOD;
            while Instant::now() < end {
                self.peer.live("flood", frame, self.interface, FRAMES)?;
            }
            Ok(())
        })
    }
}

/// 64 bytes of UDP to the protected port; the sender's program gives it a source and a checksum.
fn frame(bed: &Bed) -> anyhow::Result<Vec<u8>> {
    let link = bed.inside.run("ip", &["-o", "link", "show", &bed.interface])?;
    let (_, rest) = link.split_once("link/ether ").context("no hardware address")?;
    let text = rest.split_whitespace().next().unwrap_or_default();
    let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let mut frame = octets.collect::<Result<Vec<u8>, _>>().context("reading the hardware address")?;
    ensure!(frame.len() == 6, "hardware address {text}");
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 50, 0, 1, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2]);
    frame.extend(4000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0, 30, 0, 0]);
    frame.resize(64, 0);
    Ok(frame)
}

/// CPU time of one task, s: the first number of schedstat is ns on a CPU.
fn task_s(path: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path.join("schedstat")).with_context(|| format!("reading {}", path.display()))?;
    let ns: f64 = text.split_whitespace().next().unwrap_or_default().parse().context("reading schedstat")?;
    Ok(ns / 1e9)
}

fn process_s(pid: u32) -> anyhow::Result<f64> {
    fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|task| task_s(&task.path())).sum()
}

impl Receiver<'_> {
    /// One flood against one filter, which is there for that long.
    fn meet(&self, filter: Filter, sender: &mut Sender, frame: &[u8]) -> anyhow::Result<Cost> {
        let cost = match filter {
            Filter::Guard => {
                // Nearly every packet goes the longest way: through all of a stranger's buckets, and is refused by the last.
                let mut guard = self.bed.start(self.guard, &["--budget", "rest=1000/1000"])?;
                let before = process_s(guard.pid())?;
                let cost = self.flood(sender, frame, || Ok(guard.client()?.stats(false)?.dropped.values().sum()))?;
                Cost { cpu_s: cost.cpu_s + process_s(guard.pid())? - before, ..cost }
            }
            Filter::Nftables => {
                let rules = format!(
                    "add table netdev bench; add chain netdev bench c {{ type filter hook ingress device {} priority 0 ; }}; \
                     add rule netdev bench c udp dport {PORT} counter drop",
                    self.bed.interface
                );
                self.bed.inside.run("nft", &[&rules])?;
                let cost = self.flood(sender, frame, || {
                    let text = self.bed.inside.run("nft", &["list", "table", "netdev", "bench"])?;
                    number_after(&text, "counter packets ")
                });
                self.bed.inside.run("nft", &["delete table netdev bench"])?;
                cost?
            }
            Filter::Iptables => {
                let port = PORT.to_string();
                let rule = ["PREROUTING", "-p", "udp", "--dport", &port, "-j", "DROP"];
                let table = |action: &str| {
                    let arguments = [&["-t", "raw", action][..], &rule].concat();
                    self.bed.inside.run("iptables-legacy", &arguments)
                };
                table("-A")?;
                let cost = self.flood(sender, frame, || {
                    let text = self.bed.inside.run("iptables-legacy", &["-t", "raw", "-nvxL", "PREROUTING"])?;
                    let line = text.lines().find(|line| line.contains(" DROP ")).context("no rule")?;
                    number_after(line, "")
                });
                table("-D")?;
                cost?
            }
        };
        ensure!(cost.drops >= DROPS_MIN, "{filter:?} dropped only {} packets", cost.drops);
        Ok(cost)
    }

    fn flood(&self, sender: &mut Sender, frame: &[u8], mut drops: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<Cost> {
        bed::pin(self.napi, 1)?;
        let napi = format!("/proc/{}", self.napi);
        let (drops_before, cpu_before) = (drops()?, task_s(Path::new(&napi))?);
        sender.flood(self.bed, frame)?;
        let cpu_s = task_s(Path::new(&napi))? - cpu_before;
        Ok(Cost { drops: drops()? - drops_before, cpu_s })
    }
}

/// The number after a mark.
fn number_after(text: &str, mark: &str) -> anyhow::Result<u64> {
    let (_, rest) = text.split_once(mark).context("no counter")?;
    rest.split_whitespace().next().context("no counter")?.parse().context("reading a counter")
}

const NAME: &str = "drops_per_cpu_over_nft_ingress";

pub fn measure(report: &mut Report, guard: &Path) {
    if let Err(error) = rounds(report, guard) {
        report.missing(NAME, &error);
    }
}

fn rounds(report: &mut Report, guard: &Path) -> anyhow::Result<()> {
    let bed = Bed::new()?;
    let frame = frame(&bed)?;
    let receiver = Receiver { bed: &bed, guard, napi: bed.thread_napi()? };
    let mut sender = Sender::new(&bed)?;
    let mut ours = Vec::new();
    let mut nftables = Vec::new();
    let mut iptables = Vec::new();
    for _ in 0..PAIRS {
        ours.push(receiver.meet(Filter::Guard, &mut sender, &frame)?.per_second());
        nftables.push(receiver.meet(Filter::Nftables, &mut sender, &frame)?.per_second());
        iptables.push(receiver.meet(Filter::Iptables, &mut sender, &frame)?.per_second());
    }
    let over = |theirs: &[f64]| ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    report.add(NAME, "ratio", over(&nftables));
    report.add("drops_per_cpu_over_iptables_raw", "ratio", over(&iptables));
    for (name, runs) in
        [("guard_drops_per_cpu_s", ours), ("nft_ingress_drops_per_cpu_s", nftables), ("iptables_raw_drops_per_cpu_s", iptables)]
    {
        report.add(name, "packets/s", runs);
    }
    Ok(())
}
