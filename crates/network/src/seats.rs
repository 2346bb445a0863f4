//! Who gets a seat. Pressure that proves nothing about one peer (sybil, eclipse, handshake floods) is answered here, by refusing
//! seats; it never becomes an offence.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use types::PublicKey;

use crate::config::Limits;
use crate::event::Refusal;

/// Counts inbound connections by source, from their arrival to their end.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    connections: HashMap<ConnectionId, Arrival>,
    sources: HashMap<IpAddr, Source>,
    pending_strangers: usize,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    source: IpAddr,
    pending: bool,
    /// From a source of a configured peer: a flood of strangers can't keep it out.
    known: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Source {
    pending: usize,
    all: usize,
}

impl Arrivals {
    /// A connection arrives.
    ///
    /// # Errors
    /// [`Refusal::Source`] or [`Refusal::Seats`]; then it is not counted.
    pub(crate) fn arrive(&mut self, connection: ConnectionId, source: IpAddr, known: bool, limits: &Limits) -> Result<(), Refusal> {
        let count = self.sources.get(&source).copied().unwrap_or_default();
        if count.pending >= limits.pending_per_source_max || count.all >= limits.connections_per_source_max {
            return Err(Refusal::Source);
        }
        if !known && self.pending_strangers >= limits.pending_max {
            return Err(Refusal::Seats);
        }
        if !known {
            self.pending_strangers += 1;
        }
        self.sources.insert(source, Source { pending: count.pending + 1, all: count.all + 1 });
        self.connections.insert(connection, Arrival { source, pending: true, known });
        Ok(())
    }

    /// It belongs to a standing peer now.
    pub(crate) fn settle(&mut self, connection: ConnectionId) {
        let Some(arrival) = self.connections.get_mut(&connection) else { return };
        if !std::mem::take(&mut arrival.pending) {
            return;
        }
        if !arrival.known {
            self.pending_strangers -= 1;
        }
        if let Some(source) = self.sources.get_mut(&arrival.source) {
            source.pending -= 1;
        }
    }

    /// It is gone. Once for each arrival; other connections (outbound) are not known here.
    pub(crate) fn leave(&mut self, connection: ConnectionId) {
        self.settle(connection);
        let Some(arrival) = self.connections.remove(&connection) else { return };
        if let Some(source) = self.sources.get_mut(&arrival.source) {
            source.all -= 1;
            if source.all == 0 {
                self.sources.remove(&arrival.source);
            }
        }
    }
}

/// Who asks for a seat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applicant {
    pub peer_id: PeerId,
    pub validator: Option<PublicKey>,
    pub source: IpAddr,
    /// Configured, or dialled by hand.
    pub configured: bool,
}

/// The seats of standing peers.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: HashMap<PeerId, Applicant>,
}

impl Seats {
    /// Takes a seat. `validators` is the current set: a proof of any other key makes nobody important.
    ///
    /// # Errors
    /// [`Refusal::Seats`] or [`Refusal::Source`]; then nothing is taken.
    pub(crate) fn take(&mut self, applicant: Applicant, validators: &HashSet<PublicKey>, limits: &Limits) -> Result<(), Refusal> {
        let others = || self.taken.values().filter(|seat| seat.peer_id != applicant.peer_id);
        if others().count() >= limits.peers_max {
            return Err(Refusal::Seats);
        }
        let reserved = applicant.configured || self.is_seated_validator(&applicant, validators, limits);
        if !reserved {
            let strangers = || others().filter(|seat| !seat.configured && !proves(seat, validators));
            if strangers().count() >= limits.strangers_max {
                return Err(Refusal::Seats);
            }
            if strangers().filter(|seat| seat.source == applicant.source).count() >= limits.strangers_per_source_max {
                return Err(Refusal::Source);
            }
        }
        self.taken.insert(applicant.peer_id, applicant);
        Ok(())
    }

    /// A validator of the set whose key has not had its peers yet.
    fn is_seated_validator(&self, applicant: &Applicant, validators: &HashSet<PublicKey>, limits: &Limits) -> bool {
        let same = |seat: &&Applicant| seat.validator == applicant.validator && seat.peer_id != applicant.peer_id;
        proves(applicant, validators) && self.taken.values().filter(same).count() < limits.peers_per_validator_max
    }

    pub(crate) fn free(&mut self, peer_id: &PeerId) {
        self.taken.remove(peer_id);
    }
}

fn proves(applicant: &Applicant, validators: &HashSet<PublicKey>) -> bool {
    applicant.validator.is_some_and(|key| validators.contains(&key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits { peers_max: 6, strangers_max: 3, strangers_per_source_max: 2, pending_max: 5, ..Limits::default() }
    }

    fn stranger(source: u8) -> Applicant {
        let source = IpAddr::from([10, 0, 0, source]);
        Applicant { peer_id: PeerId::random(), validator: None, source, configured: false }
    }

    #[test]
    fn strangers_never_take_reserved_seats() {
        let key = PublicKey([1; 32]);
        let validators = HashSet::from([key]);
        let (mut seats, limits) = (Seats::default(), limits());
        let mut take = |applicant| seats.take(applicant, &validators, &limits);
        assert_eq!(take(stranger(1)), Ok(()));
        assert_eq!(take(stranger(1)), Ok(()));
        assert_eq!(take(stranger(1)), Err(Refusal::Source));
        assert_eq!(take(stranger(2)), Ok(()));
        assert_eq!(take(stranger(3)), Err(Refusal::Seats));
        assert_eq!(take(Applicant { validator: Some(PublicKey([9; 32])), ..stranger(3) }), Err(Refusal::Seats), "any key");
        assert_eq!(take(Applicant { validator: Some(key), ..stranger(1) }), Ok(()));
        assert_eq!(take(Applicant { validator: Some(key), ..stranger(1) }), Ok(()));
        assert_eq!(take(Applicant { validator: Some(key), ..stranger(1) }), Err(Refusal::Seats), "a third peer of one key");
        let mine = Applicant { configured: true, ..stranger(1) };
        assert_eq!(take(mine), Ok(()));
        assert_eq!(take(mine), Ok(()), "its seat, again");
        assert_eq!(take(Applicant { configured: true, ..stranger(1) }), Err(Refusal::Seats), "all are taken");
        seats.free(&mine.peer_id);
        assert_eq!(seats.take(Applicant { configured: true, ..stranger(1) }, &validators, &limits), Ok(()));
    }

    #[test]
    fn a_flood_does_not_keep_configured_sources_out() {
        let (mut arrivals, limits) = (Arrivals::default(), limits());
        for n in 0..5 {
            arrivals.arrive(ConnectionId::new_unchecked(n), [10, 0, 0, n as u8].into(), false, &limits).unwrap();
        }
        let next = ConnectionId::new_unchecked(5);
        assert_eq!(arrivals.arrive(next, [10, 0, 0, 9].into(), false, &limits), Err(Refusal::Seats));
        assert_eq!(arrivals.arrive(next, [10, 0, 0, 9].into(), true, &limits), Ok(()));
        arrivals.settle(ConnectionId::new_unchecked(0));
        assert_eq!(arrivals.arrive(ConnectionId::new_unchecked(6), [10, 0, 0, 8].into(), false, &limits), Ok(()));
    }

    proptest! {
        /// Whatever comes and goes in whatever order, the counts equal what is there.
        #[test]
        fn counts_stay_true(steps in prop::collection::vec((0usize..40, 0u8..3, 0u8..3, any::<bool>()), 0..300)) {
            let (mut arrivals, limits) = (Arrivals::default(), limits());
            for (number, step, source, known) in steps {
                let connection = ConnectionId::new_unchecked(number);
                match step {
                    0 if !arrivals.connections.contains_key(&connection) => {
                        arrivals.arrive(connection, [10, 0, 0, source].into(), known, &limits).ok();
                    }
                    1 => arrivals.settle(connection),
                    _ => arrivals.leave(connection),
                }
                let all = || arrivals.connections.values();
                prop_assert_eq!(arrivals.pending_strangers, all().filter(|a| a.pending && !a.known).count());
                prop_assert!(arrivals.pending_strangers <= limits.pending_max);
                for (source, count) in &arrivals.sources {
                    prop_assert_eq!(count.all, all().filter(|a| a.source == *source).count());
                    prop_assert_eq!(count.pending, all().filter(|a| a.source == *source && a.pending).count());
                    prop_assert!(count.all > 0 && count.pending <= limits.pending_per_source_max);
                }
            }
        }
    }
}
