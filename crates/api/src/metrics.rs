//! The catalogue of metrics: one struct, whose fields the node updates and whose text `/metrics` serves.
//!
//! Names are a contract. Labels come from enums (their `as_str()`), never from peers' or users' text, so the number of
//! series is bounded. Counters that live elsewhere (in the kernel's maps) are *stored*, not added: a scrape is then as cheap
//! as a few loads, and a restarted node goes on from where the kernel is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use types::{Kind, Message, Offence};

use crate::peer_series::{PeerSample, PeerSeries};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets of the kernel's latency histogram: bucket `n` counts latencies in `[2^n, 2^(n+1))` ns.
pub const LATENCY_BUCKETS: usize = 64;
/// Lowest exponent shown: all below 2^10 ns (1 µs) is one bucket.
const LATENCY_SHOWN_FIRST: usize = 10;
/// Highest exponent shown: all above 2^31 ns (2.1 s) is `+Inf`.
const LATENCY_SHOWN_LAST: usize = 31;

/// A label whose value is known at compile time: `name="value"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    name: &'static str,
    value: &'static str,
}

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        (self.name, self.value).encode(encoder.encode_label())
    }
}

/// Counters by one label.
#[derive(Clone, Debug)]
pub struct CounterBy {
    name: &'static str,
    family: Family<Label, Counter>,
}

impl CounterBy {
    fn new(name: &'static str, values: impl IntoIterator<Item = &'static str>) -> CounterBy {
        let by = CounterBy { name, family: Family::default() };
        // Every series exists from the start: rate() of a series that appears with its first event misses that event.
        for value in values {
            by.with(value, |_| ());
        }
        by
    }

    fn with(&self, value: &'static str, act: impl FnOnce(&Counter)) {
        act(&self.family.get_or_create(&Label { name: self.name, value }));
    }

    /// Adds one. `value` is an enum's `as_str()`.
    pub fn inc(&self, value: &'static str) {
        self.with(value, |counter| _ = counter.inc());
    }

    /// Takes the value of a counter that lives elsewhere and never falls.
    pub fn store(&self, value: &'static str, total: u64) {
        self.with(value, |counter| store(counter, total));
    }
}

/// Takes the value of a counter that lives elsewhere and never falls.
pub fn store(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}

/// The kernel's log2 histogram of packet latency, copied in at a scrape.
#[derive(Debug)]
struct PacketLatency {
    buckets: [AtomicU64; LATENCY_BUCKETS],
}

impl Collector for PacketLatency {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        // The kernel keeps no sum: each packet is taken at the middle of its bucket, 1.5 × 2^n ns.
        let sum_ns: f64 = counts.iter().enumerate().map(|(n, count)| *count as f64 * 1.5 * 2f64.powi(n as i32)).sum();
        let mut shown: Vec<(f64, u64)> = Vec::with_capacity(LATENCY_BUCKETS);
        let below: u64 = counts[..LATENCY_SHOWN_FIRST].iter().sum();
        shown.push((upper_seconds(LATENCY_SHOWN_FIRST - 1), below));
        let inner = LATENCY_SHOWN_FIRST..=LATENCY_SHOWN_LAST;
        shown.extend(inner.map(|n| (upper_seconds(n), counts[n])));
        shown.push((f64::INFINITY, counts[LATENCY_SHOWN_LAST + 1..].iter().sum()));
        let help = "Arrival of a packet in XDP until its socket's owner reads it (sampled), taken at bucket middles for the sum";
        let mut metric = encoder.encode_descriptor("ebpf_node_packet_latency_seconds", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum_ns / 1e9, counts.iter().sum(), &shown, None)
    }
}

fn upper_seconds(n: usize) -> f64 {
    2f64.powi(n as i32 + 1) / 1e9
}

/// Message kinds as [`Message::as_str`] names them.
const MESSAGE_KINDS: [&str; 15] = [
    "proposal",
    "vote",
    "certificate",
    "certificates",
    "fetch_certificate",
    "fetch_proposal",
    "status",
    "announce",
    "batch",
    "fetch_batches",
    "fetch_block",
    "block",
    "sync",
    "sync_blocks",
    "transactions",
];

/// Reasons of refusals as the network names them.
const REFUSALS: [&str; 11] =
    ["chain", "version", "seats", "source", "duplicate", "proof", "timeout", "transport", "sybil", "eclipse", "limited"];

/// Reasons of drops as the kernel guard names them.
const DROP_REASONS: [&str; 15] = [
    "fragment",
    "rate_peer",
    "malformed",
    "rate_source",
    "rate_prefix",
    "rate_strangers",
    "banned_manual",
    "banned_list",
    "banned_bad_signature",
    "banned_malformed",
    "banned_replay",
    "banned_equivocation",
    "banned_invalid_block",
    "banned_oversize",
    "banned_rate",
];

/// All metrics of a node. Fields are handles: updating one is an atomic operation, no lock for plain ones.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    packet_latency: std::sync::Arc<PacketLatency>,
    peer_series: std::sync::Arc<PeerSeries>,
    /// Packets that the guard let through (stored from the kernel's counters).
    pub xdp_packets_passed: Counter,
    /// Packets that the guard dropped, by reason (stored from the kernel's counters).
    pub xdp_packets_dropped: CounterBy,
    /// Peers connected now.
    pub peers_connected: Gauge,
    /// Messages sent, by kind.
    messages_sent: CounterBy,
    /// Messages received, by kind.
    messages_received: CounterBy,
    /// Blocks that this node proposed.
    pub blocks_proposed: Counter,
    /// Blocks of others that this node judged valid.
    pub blocks_validated: Counter,
    quorum_reached: CounterBy,
    /// Transactions with a final receipt.
    pub transactions_confirmed: Counter,
    /// Transactions and batches refused because they were known already.
    pub replay_rejected: Counter,
    offences: CounterBy,
    /// Guilty peers that were limited instead of banned, because others share their address.
    pub peers_limited: Counter,
    /// Peers that got no seat because their prefix brought too many identities (stored from the network).
    pub sybil_attempts: Counter,
    /// Peers that got no seat because their prefix holds enough of them (stored from the network).
    pub eclipse_refusals: Counter,
    /// Floods of handshakes that began (stored from the network).
    pub handshake_floods: Counter,
    /// Times that strangers' budget of handshakes was made smaller for a while.
    pub handshake_budget_squeezes: Counter,
    refusals: CounterBy,
    /// Highest final height.
    pub height: Gauge,
    /// Highest executed height.
    pub executed_height: Gauge,
    /// Current epoch.
    pub epoch: Gauge,
    /// Current view.
    pub view: Gauge,
    /// Transactions waiting.
    pub mempool_transactions: Gauge,
    /// From a block's proposal (its arrival here) to its finality, in seconds.
    pub finality_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            packet_latency: std::sync::Arc::new(PacketLatency { buckets: [const { AtomicU64::new(0) }; LATENCY_BUCKETS] }),
            peer_series: std::sync::Arc::default(),
            xdp_packets_passed: Counter::default(),
            xdp_packets_dropped: CounterBy::new("reason", DROP_REASONS),
            peers_connected: Gauge::default(),
            messages_sent: CounterBy::new("kind", MESSAGE_KINDS),
            messages_received: CounterBy::new("kind", MESSAGE_KINDS),
            blocks_proposed: Counter::default(),
            blocks_validated: Counter::default(),
            quorum_reached: CounterBy::new("kind", [Kind::Notarize, Kind::Nullify, Kind::Finalize].map(Kind::as_str)),
            transactions_confirmed: Counter::default(),
            replay_rejected: Counter::default(),
            offences: CounterBy::new("offence", Offence::ALL.map(Offence::as_str)),
            peers_limited: Counter::default(),
            sybil_attempts: Counter::default(),
            eclipse_refusals: Counter::default(),
            handshake_floods: Counter::default(),
            handshake_budget_squeezes: Counter::default(),
            refusals: CounterBy::new("reason", REFUSALS),
            height: Gauge::default(),
            executed_height: Gauge::default(),
            epoch: Gauge::default(),
            view: Gauge::default(),
            mempool_transactions: Gauge::default(),
            finality_seconds: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        };
        metrics.register();
        metrics
    }

    /// The catalogue: name (a counter's `_total` is added by the text format), help.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register_collector(Box::new(self.packet_latency.clone()));
        r.register_collector(Box::new(self.peer_series.clone()));
        r.register("ebpf_node_xdp_packets_passed", "Packets that the kernel guard let through", self.xdp_packets_passed.clone());
        r.register(
            "ebpf_node_xdp_packets_dropped",
            "Packets that the kernel guard dropped, by reason",
            self.xdp_packets_dropped.family.clone(),
        );
        r.register("ebpf_node_peers_connected", "Peers connected now", self.peers_connected.clone());
        r.register("ebpf_node_messages_sent", "Messages sent to peers, by kind", self.messages_sent.family.clone());
        r.register("ebpf_node_messages_received", "Messages received from peers, by kind", self.messages_received.family.clone());
        r.register("ebpf_node_blocks_proposed", "Blocks that this node proposed", self.blocks_proposed.clone());
        r.register("ebpf_node_blocks_validated", "Blocks of others that this node judged valid", self.blocks_validated.clone());
        r.register("ebpf_node_quorum_reached", "Certificates that this node learned, by kind", self.quorum_reached.family.clone());
        r.register("ebpf_node_transactions_confirmed", "Transactions with a final receipt", self.transactions_confirmed.clone());
        r.register(
            "ebpf_node_replay_rejected",
            "Transactions and batches refused because they were known already",
            self.replay_rejected.clone(),
        );
        r.register("ebpf_node_offences", "Proven misbehaviour of peers, by offence", self.offences.family.clone());
        r.register(
            "ebpf_node_peers_limited",
            "Guilty peers that were limited, not banned, because others share their address",
            self.peers_limited.clone(),
        );
        r.register(
            "ebpf_node_sybil_attempts_detected",
            "Peers refused a seat because their prefix brought too many identities",
            self.sybil_attempts.clone(),
        );
        r.register(
            "ebpf_node_eclipse_refusals",
            "Peers refused a seat because their prefix holds enough of them",
            self.eclipse_refusals.clone(),
        );
        r.register("ebpf_node_handshake_floods", "Floods of handshakes that began", self.handshake_floods.clone());
        r.register(
            "ebpf_node_handshake_budget_squeezes",
            "Times that strangers' budget of handshakes in the kernel was made smaller for a while",
            self.handshake_budget_squeezes.clone(),
        );
        r.register("ebpf_node_refusals", "Connections closed without anybody's guilt, by reason", self.refusals.family.clone());
        r.register("ebpf_node_height", "Highest final height", self.height.clone());
        r.register("ebpf_node_executed_height", "Highest executed height", self.executed_height.clone());
        r.register("ebpf_node_epoch", "Current epoch", self.epoch.clone());
        r.register("ebpf_node_view", "Current view", self.view.clone());
        r.register("ebpf_node_mempool_transactions", "Transactions waiting", self.mempool_transactions.clone());
        r.register("ebpf_node_finality_seconds", "A block's proposal until its finality", self.finality_seconds.clone());
    }

    /// Counts a message sent.
    pub fn message_sent(&self, message: &Message) {
        self.messages_sent.inc(message.as_str());
    }

    /// Counts a message received.
    pub fn message_received(&self, message: &Message) {
        self.messages_received.inc(message.as_str());
    }

    /// Counts a certificate learned.
    pub fn quorum_reached(&self, kind: Kind) {
        self.quorum_reached.inc(kind.as_str());
    }

    /// Counts an offence.
    pub fn offence(&self, offence: Offence) {
        self.offences.inc(offence.as_str());
    }

    /// Takes the network's count of connections that it closed for a reason.
    pub fn store_refusals(&self, reason: &'static str, total: u64) {
        self.refusals.store(reason, total);
    }

    /// Takes the figures of single peers, in place of the last ones; at most [`crate::peer_series::PEERS_SHOWN_MAX`], the first come first.
    pub fn store_peers(&self, samples: Vec<PeerSample>) {
        self.peer_series.store(samples);
    }

    /// Takes the kernel's latency histogram: bucket `n` counts latencies in `[2^n, 2^(n+1))` ns since the filter was loaded.
    pub fn store_packet_latency(&self, buckets: &[u64; LATENCY_BUCKETS]) {
        for (own, total) in self.packet_latency.buckets.iter().zip(buckets) {
            own.store(*total, Ordering::Relaxed);
        }
    }

    /// OpenMetrics text of all metrics, with content type [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing into a String does not fail, and no metric of ours refuses: an empty scrape would be an alert.
            Err(fmt::Error) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{series} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Names that dashboards, alerts and users rely on; each exists from the first scrape.
    #[test]
    fn contract_names_are_served() {
        let text = Metrics::new().encode();
        for series in [
            "ebpf_node_xdp_packets_passed_total",
            "ebpf_node_xdp_packets_dropped_total{reason=\"banned_bad_signature\"}",
            "ebpf_node_packet_latency_seconds_count",
            "ebpf_node_peers_connected",
            "ebpf_node_messages_sent_total{kind=\"vote\"}",
            "ebpf_node_messages_received_total{kind=\"batch\"}",
            "ebpf_node_blocks_proposed_total",
            "ebpf_node_blocks_validated_total",
            "ebpf_node_quorum_reached_total{kind=\"finalize\"}",
            "ebpf_node_transactions_confirmed_total",
            "ebpf_node_replay_rejected_total",
            "ebpf_node_offences_total{offence=\"bad_signature\"}",
            "ebpf_node_peers_limited_total",
            "ebpf_node_sybil_attempts_detected_total",
            "ebpf_node_eclipse_refusals_total",
            "ebpf_node_handshake_floods_total",
            "ebpf_node_handshake_budget_squeezes_total",
            "ebpf_node_refusals_total{reason=\"limited\"}",
            "ebpf_node_height",
            "ebpf_node_executed_height",
            "ebpf_node_epoch",
            "ebpf_node_view",
            "ebpf_node_mempool_transactions",
            "ebpf_node_finality_seconds_count",
        ] {
            assert_eq!(value(&text, series), 0.0);
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn updates_reach_the_text() {
        let metrics = Metrics::new();
        metrics.message_sent(&Message::Sync(types::Height(1)));
        metrics.quorum_reached(Kind::Finalize);
        metrics.offence(Offence::Replay);
        metrics.xdp_packets_dropped.store("banned_rate", 7);
        metrics.xdp_packets_dropped.store("banned_rate", 9);
        store(&metrics.xdp_packets_passed, 11);
        metrics.height.set(5);
        let text = metrics.encode();
        assert_eq!(value(&text, "ebpf_node_messages_sent_total{kind=\"sync\"}"), 1.0);
        assert_eq!(value(&text, "ebpf_node_quorum_reached_total{kind=\"finalize\"}"), 1.0);
        assert_eq!(value(&text, "ebpf_node_offences_total{offence=\"replay\"}"), 1.0);
        assert_eq!(value(&text, "ebpf_node_xdp_packets_dropped_total{reason=\"banned_rate\"}"), 9.0);
        assert_eq!(value(&text, "ebpf_node_xdp_packets_passed_total"), 11.0);
        assert_eq!(value(&text, "ebpf_node_height"), 5.0);
    }

    #[test]
    fn latency_buckets_are_cumulative_seconds() {
        let metrics = Metrics::new();
        let mut buckets = [0u64; LATENCY_BUCKETS];
        (buckets[3], buckets[10], buckets[20], buckets[40]) = (1, 2, 4, 8);
        metrics.store_packet_latency(&buckets);
        let text = metrics.encode();
        assert_eq!(value(&text, "ebpf_node_packet_latency_seconds_bucket{le=\"0.000001024\"}"), 1.0);
        assert_eq!(value(&text, "ebpf_node_packet_latency_seconds_bucket{le=\"0.000002048\"}"), 3.0);
        assert_eq!(value(&text, "ebpf_node_packet_latency_seconds_bucket{le=\"0.002097152\"}"), 7.0);
        assert_eq!(value(&text, "ebpf_node_packet_latency_seconds_bucket{le=\"+Inf\"}"), 15.0);
        assert_eq!(value(&text, "ebpf_node_packet_latency_seconds_count"), 15.0);
    }
}
