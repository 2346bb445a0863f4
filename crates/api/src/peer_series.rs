//! Figures of single peers. Their labels are identities, so their number is bounded here, and a peer that is gone has no series.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Most peers with series of their own.
pub const PEERS_SHOWN_MAX: usize = 64;

/// One peer's figures; what is not visible is none, never 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerSample {
    /// Its libp2p identity.
    pub peer: String,
    /// The validator key that it proved, or nothing.
    pub validator: String,
    /// Round trip, seconds.
    pub rtt_seconds: Option<f64>,
    /// Segments that this host sent it again since its connection began.
    pub retransmits: Option<u64>,
}

impl PeerSample {
    fn labels(&self) -> [(&str, &str); 2] {
        [("peer", &self.peer), ("validator", &self.validator)]
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PeerSeries {
    samples: Mutex<Vec<PeerSample>>,
}

impl PeerSeries {
    /// Replaces all; the first [`PEERS_SHOWN_MAX`] are kept.
    pub fn store(&self, mut samples: Vec<PeerSample>) {
        samples.truncate(PEERS_SHOWN_MAX);
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }
}

impl Collector for PeerSeries {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Round trip to a peer: the kernel's of a TCP connection where it is visible, else libp2p's ping";
        let mut metric = encoder.encode_descriptor("ebpf_node_peer_rtt_seconds", help, None, MetricType::Gauge)?;
        for (sample, rtt) in samples.iter().filter_map(|sample| Some((sample, sample.rtt_seconds?))) {
            metric.encode_family(&sample.labels())?.encode_gauge(&rtt)?;
        }
        let help = "Segments sent again to a peer since its TCP connection began; none over QUIC, where losses are not visible";
        let mut metric = encoder.encode_descriptor("ebpf_node_peer_retransmits", help, None, MetricType::Counter)?;
        for (sample, count) in samples.iter().filter_map(|sample| Some((sample, sample.retransmits?))) {
            metric.encode_family(&sample.labels())?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn sample(n: usize) -> PeerSample {
        PeerSample { peer: format!("peer{n}"), validator: String::new(), rtt_seconds: Some(0.25), retransmits: None }
    }

    #[test]
    fn what_is_not_visible_has_no_series_and_their_number_is_bounded() {
        let metrics = Metrics::new();
        let tcp = PeerSample { validator: "key".into(), retransmits: Some(3), ..sample(1000) };
        let mut samples = vec![tcp, PeerSample { rtt_seconds: None, ..sample(1001) }];
        samples.extend((0..200).map(sample));
        metrics.store_peers(samples);
        let text = metrics.encode();
        let lines = |name: &str| text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            lines("ebpf_node_peer_retransmits_total"),
            ["ebpf_node_peer_retransmits_total{peer=\"peer1000\",validator=\"key\"} 3"]
        );
        let rtt = lines("ebpf_node_peer_rtt_seconds");
        assert_eq!(rtt.len(), PEERS_SHOWN_MAX - 1, "one has none");
        assert_eq!(rtt[0], "ebpf_node_peer_rtt_seconds{peer=\"peer1000\",validator=\"key\"} 0.25");
        metrics.store_peers(Vec::new());
        assert!(!metrics.encode().contains("peer1000"), "who is gone has no series");
    }
}
