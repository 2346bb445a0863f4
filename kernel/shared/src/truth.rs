//! What the kernel's TCP knows about a peer's connection: one cell a row, written by the `sock_ops` program.
//!
//! A row may have several connections (a peer that reconnects): the cell belongs to the one that was heard of last, and an old
//! connection's end does not overwrite a new one's life.

use crate::{Word, abi::Plain};

/// TCP's state number of an established connection, as the kernel counts them (`include/net/tcp_states.h`).
pub const ESTABLISHED: u32 = 1;
/// What the kernel says where it has no sample of the smallest round trip.
pub const NO_SAMPLE: u32 = u32::MAX;

/// One row's connection: index `row`, not per CPU.
#[repr(C)]
#[derive(Debug, Default)]
pub struct TruthCell {
    /// Whose it is: the generation of the row; 0 = nobody's, or being written.
    pub generation: Word,
    /// Which connection: remote port in the upper half, local port in the lower.
    pub connection: Word,
    /// Smoothed round trip, µs; 0 = not measured yet.
    pub srtt_us: Word,
    /// Smallest round trip of the kernel's window (5 minutes), µs; [`NO_SAMPLE`] = not measured yet.
    pub min_rtt_us: Word,
    /// Retransmission timeout, µs; 0 = this kernel does not tell.
    pub rto_us: Word,
    /// Segments retransmitted since the connection began.
    pub retransmits: Word,
    /// State, as a number of the kernel's.
    pub state: Word,
    /// Bytes of ours that the peer acknowledged.
    pub bytes_acked: Word,
    /// Bytes received from the peer.
    pub bytes_received: Word,
    /// When this was written, ns since boot (CLOCK_MONOTONIC).
    pub updated_ns: Word,
    /// Always 0: room for later fields.
    pub zeros: [u64; 6],
}

// SAFETY: repr(C) of words, without padding.
unsafe impl Plain for TruthCell {}
const _: () = assert!(size_of::<TruthCell>() == 128);

/// What a callback has seen of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// As in the cell.
    pub connection: u64,
    /// µs.
    pub srtt_us: u32,
    /// µs.
    pub min_rtt_us: u32,
    /// µs.
    pub rto_us: u64,
    /// Segments.
    pub retransmits: u32,
    /// Number.
    pub state: u32,
    /// Bytes.
    pub bytes_acked: u64,
    /// Bytes.
    pub bytes_received: u64,
    /// ns.
    pub updated_ns: u64,
}

/// A connection's name in a cell; never 0, since no remote port is 0.
#[inline(always)]
pub const fn connection(remote_port: u16, local_port: u16) -> u64 {
    (remote_port as u64) << 32 | local_port as u64
}

impl TruthCell {
    /// Writes a sample of the row's owner with this generation. A reader that loads the generation before and after the fields, and
    /// finds it the same, has read fields of one owner.
    #[inline(always)]
    pub fn record(&self, generation: u32, sample: &Sample) {
        let owned = self.generation.load() == generation as u64;
        if owned && sample.state != ESTABLISHED && self.connection.load() != sample.connection {
            return;
        }
        if !owned {
            self.generation.store(0);
        }
        self.connection.store(sample.connection);
        self.srtt_us.store(sample.srtt_us as u64);
        self.min_rtt_us.store(sample.min_rtt_us as u64);
        self.rto_us.store(sample.rto_us);
        self.retransmits.store(sample.retransmits as u64);
        self.state.store(sample.state as u64);
        self.bytes_acked.store(sample.bytes_acked);
        self.bytes_received.store(sample.bytes_received);
        self.updated_ns.store(sample.updated_ns);
        if !owned {
            self.generation.store(generation as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(remote_port: u16, state: u32, srtt_us: u32) -> Sample {
        Sample { connection: connection(remote_port, 9000), state, srtt_us, ..Sample::default() }
    }

    #[test]
    fn an_old_connections_end_does_not_hide_the_new_one() {
        let cell = TruthCell::default();
        cell.record(7, &sample(4000, ESTABLISHED, 100));
        cell.record(7, &sample(4001, ESTABLISHED, 200));
        cell.record(7, &sample(4000, 7, 100));
        assert_eq!((cell.srtt_us.load(), cell.state.load()), (200, ESTABLISHED as u64));
        cell.record(7, &sample(4001, 8, 200));
        assert_eq!(cell.state.load(), 8);
    }

    #[test]
    fn a_new_owner_takes_the_cell_whatever_its_state() {
        let cell = TruthCell::default();
        cell.record(7, &sample(4000, ESTABLISHED, 100));
        cell.record(8, &sample(5000, 8, 300));
        assert_eq!((cell.generation.load(), cell.srtt_us.load()), (8, 300));
    }
}
