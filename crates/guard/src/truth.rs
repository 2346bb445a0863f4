//! What the kernel's TCP knows about a peer's connection: round trips, losses, timeouts.
//!
//! Only for TCP, and only for sockets of the guarded cgroup: over QUIC the kernel sees datagrams, so there is nothing here. Nothing is
//! not 0: where there are no figures, there is no [`TcpTruth`].

use kernel_shared::truth::{NO_SAMPLE, TruthCell};
use serde::{Deserialize, Serialize};

/// A TCP connection's state, as in RFC 9293; the numbers are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum TcpState {
    Established = 1,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A number that this reader does not know.
    Unknown,
}

impl TcpState {
    /// The state with Linux's number (`include/net/tcp_states.h`; 12 is a request socket that is still being made).
    pub const fn from_number(number: u64) -> TcpState {
        match number {
            1 => TcpState::Established,
            2 => TcpState::SynSent,
            3 | 12 => TcpState::SynReceived,
            4 => TcpState::FinWait1,
            5 => TcpState::FinWait2,
            6 => TcpState::TimeWait,
            7 => TcpState::Closed,
            8 => TcpState::CloseWait,
            9 => TcpState::LastAck,
            10 => TcpState::Listen,
            11 => TcpState::Closing,
            _ => TcpState::Unknown,
        }
    }

    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            TcpState::Established => "established",
            TcpState::SynSent => "syn_sent",
            TcpState::SynReceived => "syn_received",
            TcpState::FinWait1 => "fin_wait1",
            TcpState::FinWait2 => "fin_wait2",
            TcpState::TimeWait => "time_wait",
            TcpState::Closed => "closed",
            TcpState::CloseWait => "close_wait",
            TcpState::LastAck => "last_ack",
            TcpState::Listen => "listen",
            TcpState::Closing => "closing",
            TcpState::Unknown => "unknown",
        }
    }
}

/// The last word of the kernel on a peer's connection: of a peer with several, on the one that was heard of last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpTruth {
    /// Smoothed round trip, µs; null = not measured yet.
    pub srtt_us: Option<u64>,
    /// Smallest round trip of the kernel's window (5 minutes), µs; null = not measured yet.
    pub min_rtt_us: Option<u64>,
    /// Retransmission timeout, µs; null = this kernel does not tell.
    pub rto_us: Option<u64>,
    /// Segments retransmitted since the connection began.
    pub retransmits: u64,
    /// State.
    pub state: TcpState,
    /// Bytes of ours that the peer acknowledged since the connection began.
    pub bytes_acked: u64,
    /// Bytes received from the peer since the connection began.
    pub bytes_received: u64,
    /// The peer's port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
    /// When the kernel said so, ns since boot (CLOCK_MONOTONIC).
    pub updated_ns: u64,
}

/// Reads a cell, if it is this generation's from beginning to end.
pub(crate) fn read(cell: &TruthCell, generation: u32) -> Option<TcpTruth> {
    let owned = || generation != 0 && cell.generation.load() == generation as u64;
    if !owned() {
        return None;
    }
    let positive = |value: u64| (value != 0).then_some(value);
    let connection = cell.connection.load();
    let truth = TcpTruth {
        srtt_us: positive(cell.srtt_us.load()),
        min_rtt_us: positive(cell.min_rtt_us.load()).filter(|value| *value < NO_SAMPLE as u64),
        rto_us: positive(cell.rto_us.load()),
        retransmits: cell.retransmits.load(),
        state: TcpState::from_number(cell.state.load()),
        bytes_acked: cell.bytes_acked.load(),
        bytes_received: cell.bytes_received.load(),
        remote_port: (connection >> 32) as u16,
        local_port: connection as u16,
        updated_ns: cell.updated_ns.load(),
    };
    owned().then_some(truth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_shared::truth::{Sample, connection};

    #[test]
    fn what_was_not_measured_is_null_and_what_is_anothers_is_nothing() {
        let cell = TruthCell::default();
        assert_eq!(read(&cell, 0), None);
        let sample = Sample { connection: connection(4000, 9000), min_rtt_us: NO_SAMPLE, state: 1, ..Sample::default() };
        cell.record(3, &sample);
        assert_eq!(read(&cell, 2), None);
        let truth = read(&cell, 3).unwrap();
        assert_eq!((truth.srtt_us, truth.min_rtt_us, truth.rto_us), (None, None, None));
        assert_eq!((truth.remote_port, truth.local_port, truth.state), (4000, 9000, TcpState::Established));
    }

    #[test]
    fn names_are_those_of_json() {
        for number in 0..20 {
            let state = TcpState::from_number(number);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
