//! What answers are made of: one shape for each thing that the guard can tell about.

use super::{FlowKind, Protocol};
use crate::Prefix;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use types::Offence;

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// What is banned.
    pub address: Prefix,
    /// Why.
    pub offence: Offence,
    /// Since when, Unix ms.
    pub since_unix_ms: u64,
    /// Until when, Unix ms.
    pub until_unix_ms: u64,
    /// Packets that met it.
    pub hits: u64,
    /// Free text: the evidence.
    pub note: String,
}

/// One list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInfo {
    /// Its name.
    pub name: String,
    /// Prefixes, as they were read; those that overlap count each.
    pub prefixes: u64,
    /// Since when, Unix ms.
    pub since_unix_ms: u64,
    /// Until when, Unix ms.
    pub until_unix_ms: u64,
    /// Packets that met it, over all its readings.
    pub hits: u64,
    /// Lines left out, because they were no prefix.
    pub skipped: u64,
    /// Numbers of the first twenty of them.
    pub skipped_lines: Vec<u64>,
    /// Prefixes that touched the floor: what of them is floor is not banned.
    pub floor_cut: u64,
    /// Kernel memory, bytes.
    pub bytes: u64,
}

/// One budget of strangers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetInfo {
    /// Whose, and of what: `syn_source`, …
    pub name: String,
    /// Packets a second.
    pub rate: u32,
    /// Packets at once; 0 = no limit.
    pub burst: u32,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// Protocol.
    pub protocol: Protocol,
    /// Remote address.
    pub address: IpAddr,
    /// Remote port.
    pub port: u16,
    /// Class.
    pub class: FlowKind,
    /// The peer; empty if the guard was restarted and nobody announced it again.
    pub label: String,
    /// Row of its counters; null when all were taken.
    pub row: Option<u32>,
    /// The part of all stake that its validator has, in millionths; null: no validator, or it was not told.
    pub stake_ppm: Option<u32>,
    /// What its validator is guaranteed over all its flows, packets a second; null: no validator's flow, or no limit.
    pub share: Option<u32>,
    /// Its own part of that, or its class's limit, packets a second; null: the filter sees none of its packets, or there is no limit.
    pub rate: Option<u32>,
    /// The same, packets at once.
    pub burst: Option<u32>,
}

/// What validators' flows are guaranteed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesInfo {
    /// Validators with flows here.
    pub validators: u64,
    /// Their shares together, packets a second, at most the budget `validators`; null: without limit.
    pub rate: Option<u32>,
    /// The smallest of their shares, packets a second; null: without limit.
    pub least: Option<u32>,
}

/// A step of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Its number.
    pub step: u8,
    /// Its name.
    pub name: String,
    /// `next`, or for the last step the reason.
    pub outcome: String,
}

/// Counters of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowInfo {
    /// Index of the row.
    pub row: u32,
    /// Its generation: raised when the row gets a new owner.
    pub generation: u32,
    /// The peer; empty if the guard was restarted and nobody announced it again.
    pub label: String,
    /// Flows that count here now.
    pub flows: u32,
    /// Packets passed.
    pub packets: u64,
    /// Bytes passed.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that `enforce` would have dropped.
    pub would_drop: u64,
    /// Latencies of sampled packets, from arrival in XDP to their reader: bucket n counts [2^n, 2^(n+1)) ns, from n = 10 (and below) to 40 (and above);
    /// trailing zeros are left out.
    #[serde(default)]
    pub latency: Vec<u64>,
    /// What half of those stayed below, ns (the end of a bucket: at most twice what it was); null without a sample.
    #[serde(default)]
    pub latency_p50_ns: Option<u64>,
    /// The same of 99 %.
    #[serde(default)]
    pub latency_p99_ns: Option<u64>,
    /// The flows that count here now, the first [`ENDPOINTS_PER_ROW`] of them.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// What the kernel's TCP knows about its connection; null = not visible (QUIC, no `--cgroup`, nothing heard yet), never 0.
    #[serde(default)]
    pub tcp: Option<crate::TcpTruth>,
}

/// One flow of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Protocol.
    pub protocol: Protocol,
    /// Remote address.
    pub address: IpAddr,
    /// Remote port.
    pub port: u16,
    /// Class.
    pub class: FlowKind,
}

/// A latency histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyInfo {
    /// From where to where, and by which hooks; `none: …` says why there is none.
    pub source: String,
    /// Samples.
    pub count: u64,
    /// Bucket n: samples in [2^n, 2^(n+1)) ns; trailing zeros are left out.
    pub buckets: Vec<u64>,
}

/// Everything the guard knows to count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// `off`, `shadow`, `enforce`.
    pub mode: String,
    /// How the filter is attached: `native`, `generic` (XDP), `tcx`, `none`.
    pub xdp_mode: String,
    /// Interface name.
    pub interface: String,
    /// Interface index in the guard's namespace.
    pub ifindex: u32,
    /// Instance name.
    pub instance: String,
    /// Hash of the map layouts.
    pub abi_hash: String,
    /// When this guard process started, Unix ms.
    pub started_unix_ms: u64,
    /// Whether it took over maps and link of an earlier one.
    pub adopted: bool,
    /// Age of the node's last heartbeat, ms; none yet = null.
    pub heartbeat_age_ms: Option<u64>,
    /// Protected ports, as `tcp/9000` or, for neighbours, `udp/8000-8020`.
    pub protect: Vec<String>,
    /// Packets passed on protected ports, by class: `floor`, `known`, `dialing`, `stranger`.
    pub passed: BTreeMap<String, u64>,
    /// Packets passed because they are none of our business.
    pub out_of_scope: u64,
    /// IPv6 packets passed whose port can't be read.
    pub unreadable: u64,
    /// Packets passed while switched off.
    pub off: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Bytes dropped, by reason.
    pub dropped_bytes: BTreeMap<String, u64>,
    /// Packets that shadow mode let pass, by reason.
    pub would_drop: BTreeMap<String, u64>,
    /// Events that found the ring full.
    pub events_lost: u64,
    /// Events that no subscriber had room for.
    pub events_unread: u64,
    /// SYN proxy: `off`, `on`, `all`. It works in `enforce`.
    pub syn_proxy: String,
    /// SYNs above their budget that were answered with a cookie; counted as dropped, too.
    pub syn_cookies_sent: u64,
    /// ACKs above their budget that named a valid cookie: passed as `stranger`.
    pub syn_cookies_valid: u64,
    /// ACKs above their budget without one: dropped.
    pub syn_cookies_invalid: u64,
    /// Bans in force.
    pub bans: u64,
    /// Flows announced.
    pub flows: u64,
    /// What of them validators are guaranteed.
    #[serde(default)]
    pub shares: SharesInfo,
    /// Packets stamped for their latency; the rest of `stamped - count - lapsed` is open.
    pub latency_stamped: u64,
    /// Stamps that nobody read in time.
    pub latency_lapsed: u64,
    /// TCP: arrival in XDP to copy into the reader's memory.
    pub latency_tcp: LatencyInfo,
    /// UDP: arrival in XDP to the return of a receiving call on that port.
    pub latency_udp: LatencyInfo,
    /// The egress guard; null where none was asked for.
    pub egress: Option<EgressInfo>,
    /// The probes, and the egress guard (`egress`) if one was asked for, by name: how each is attached, or `off: …`, or `none: …`
    /// with the reason.
    #[serde(default)]
    pub probes: BTreeMap<String, String>,
    /// Packets on protected ports that passed the guard and were dropped by the kernel's own stack, by its reason; zeros are left out.
    #[serde(default)]
    pub kernel_drops: BTreeMap<String, u64>,
    /// Rows with an owner, a page of them; empty in `status`.
    pub rows: Vec<RowInfo>,
}

/// Dials into one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressCount {
    /// Refused with EPERM.
    pub denied: u64,
    /// That `enforce` would have refused.
    pub would_deny: u64,
}

/// The egress guard's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressInfo {
    /// The control group that it guards.
    pub cgroup: String,
    /// Prefixes that may be dialed all the same.
    pub allowed: Vec<Prefix>,
    /// Whether the loopback ranges may be dialed.
    pub loopback: bool,
    /// By range, zeros included.
    pub ranges: BTreeMap<String, EgressCount>,
}

/// One map of the answer to `maps`, in the order of the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapInfo {
    /// Name: `COUNTERS`, `ROWS`, `LATENCY`, the probes' arrays (mapped for reading) and the rest (read-only look-ups).
    pub name: String,
    /// Whether it can be mapped.
    pub mappable: bool,
    /// Bytes of memory to map.
    pub bytes: u64,
}

/// A sampled drop, as a line of the event stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInfo {
    /// When, Unix ms.
    pub unix_ms: u64,
    /// Source address.
    pub address: IpAddr,
    /// Source port.
    pub port: u16,
    /// Our port.
    pub local_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Why.
    pub reason: String,
    /// False in shadow mode.
    pub dropped: bool,
    /// Bytes of the frame.
    pub length: u32,
    /// Drops that this sample stands for.
    pub stands_for: u32,
}
