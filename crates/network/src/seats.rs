//! Who gets a seat. Pressure that proves nothing about one peer (sybil, eclipse, handshake floods) is answered here, by refusing
//! seats; it never becomes an offence.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use types::PublicKey;

use crate::address::prefix_of;
use crate::config::Limits;
use crate::event::Refusal;
use crate::pressure::{Flood, Identities, Limited, Tide};

/// Counts inbound connections by source and by prefix, from their arrival to their end.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    connections: HashMap<ConnectionId, Arrival>,
    sources: HashMap<IpAddr, Source>,
    /// Connections from sources that we don't know, by /24 or /48.
    prefixes: HashMap<IpAddr, usize>,
    pending_strangers: usize,
    flood: Flood,
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
    pub(crate) fn arrive(
        &mut self,
        connection: ConnectionId,
        source: IpAddr,
        known: bool,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Refusal> {
        let count = self.sources.get(&source).copied().unwrap_or_default();
        if count.pending >= limits.pending_per_source_max || count.all >= limits.connections_per_source_max {
            return Err(Refusal::Source);
        }
        if !known {
            let of_prefix = self.prefixes.entry(prefix_of(source)).or_default();
            if *of_prefix >= limits.connections_per_prefix_max {
                return Err(Refusal::Source);
            }
            let pending_max = if self.flood.is_on(now) { limits.flood_pending_max } else { limits.pending_max };
            if self.pending_strangers >= pending_max {
                if *of_prefix == 0 {
                    self.prefixes.remove(&prefix_of(source));
                }
                return Err(Refusal::Seats);
            }
            *of_prefix += 1;
            self.pending_strangers += 1;
        }
        self.sources.insert(source, Source { pending: count.pending + 1, all: count.all + 1 });
        self.connections.insert(connection, Arrival { source, pending: true, known });
        Ok(())
    }

    /// Tells of an arrival from a source that we don't know, before it is admitted or refused.
    pub(crate) fn tide(&mut self, limits: &Limits, now: Instant) -> Tide {
        self.flood.arrive(limits, now)
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
        let prefix = prefix_of(arrival.source);
        if !arrival.known
            && let Some(of_prefix) = self.prefixes.get_mut(&prefix)
        {
            *of_prefix -= 1;
            if *of_prefix == 0 {
                self.prefixes.remove(&prefix);
            }
        }
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
    identities: Identities,
    limited: Limited,
}

impl Seats {
    /// Takes a seat. `validators` is the current set: a proof of any other key makes nobody important.
    ///
    /// # Errors
    /// A [`Refusal`]; then nothing is taken.
    pub(crate) fn take(
        &mut self,
        applicant: Applicant,
        validators: &HashSet<PublicKey>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Refusal> {
        if self.taken.keys().filter(|peer_id| **peer_id != applicant.peer_id).count() >= limits.peers_max {
            return Err(Refusal::Seats);
        }
        let reserved = applicant.configured || self.is_seated_validator(&applicant, validators, limits);
        if !reserved {
            self.check_stranger(&applicant, validators, limits, now)?;
        }
        self.taken.insert(applicant.peer_id, applicant);
        Ok(())
    }

    /// The limits of those who are neither configured nor validators.
    fn check_stranger(
        &mut self,
        applicant: &Applicant,
        validators: &HashSet<PublicKey>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Refusal> {
        let prefix = prefix_of(applicant.source);
        if self.limited.refuses(&applicant.peer_id, applicant.source, now) {
            return Err(Refusal::Limited);
        }
        if !self.identities.note(prefix, applicant.peer_id, limits, now) {
            return Err(Refusal::Sybil);
        }
        let (mut all, mut of_source, mut of_prefix) = (0, 0, 0);
        for seat in self.taken.values() {
            if seat.peer_id != applicant.peer_id && !seat.configured && !proves(seat, validators) {
                all += 1;
                of_source += usize::from(seat.source == applicant.source);
                of_prefix += usize::from(prefix_of(seat.source) == prefix);
            }
        }
        if all >= limits.strangers_max {
            return Err(Refusal::Seats);
        }
        if of_source >= limits.strangers_per_source_max {
            return Err(Refusal::Source);
        }
        if of_prefix >= limits.strangers_per_prefix_max {
            return Err(Refusal::Eclipse);
        }
        Ok(())
    }

    /// Limits a stranger and its source until then; who stands from there keeps his right to a seat.
    pub(crate) fn limit(&mut self, peer_id: PeerId, source: IpAddr, until: Instant, now: Instant) {
        let kept = self.taken.values().filter(|seat| seat.source == source).map(|seat| seat.peer_id);
        self.limited.limit(peer_id, source, kept, until, now);
    }

    /// Whether a peer is limited itself: there is no use in shaking hands with it.
    pub(crate) fn is_limited(&self, peer_id: &PeerId, now: Instant) -> bool {
        self.limited.is_peer(peer_id, now)
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

    fn prefix(n: u8, last: u8) -> IpAddr {
        [10, 0, n, last].into()
    }

    fn stranger(source: u8) -> Applicant {
        let source = IpAddr::from([10, 0, 0, source]);
        Applicant { peer_id: PeerId::random(), validator: None, source, configured: false }
    }

    #[test]
    fn strangers_never_take_reserved_seats() {
        let key = PublicKey([1; 32]);
        let validators = HashSet::from([key]);
        let (mut seats, limits, now) = (Seats::default(), limits(), Instant::now());
        let mut take = |applicant| seats.take(applicant, &validators, &limits, now);
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
        assert_eq!(seats.take(Applicant { configured: true, ..stranger(1) }, &validators, &limits, now), Ok(()));
    }

    #[test]
    fn a_flood_does_not_keep_configured_sources_out() {
        let (mut arrivals, limits, now) = (Arrivals::default(), limits(), Instant::now());
        for n in 0..5 {
            arrivals.arrive(ConnectionId::new_unchecked(n), [10, 0, 0, n as u8].into(), false, &limits, now).unwrap();
        }
        let next = ConnectionId::new_unchecked(5);
        assert_eq!(arrivals.arrive(next, [10, 0, 0, 9].into(), false, &limits, now), Err(Refusal::Seats));
        assert_eq!(arrivals.arrive(next, [10, 0, 0, 9].into(), true, &limits, now), Ok(()));
        arrivals.settle(ConnectionId::new_unchecked(0));
        assert_eq!(arrivals.arrive(ConnectionId::new_unchecked(6), [10, 0, 0, 8].into(), false, &limits, now), Ok(()));
    }

    /// One prefix may hold few of our seats, however many addresses it has; validators and configured peers of it may.
    #[test]
    fn no_prefix_surrounds_us() {
        let key = PublicKey([1; 32]);
        let validators = HashSet::from([key]);
        let limits = Limits { peers_max: 20, strangers_max: 10, strangers_per_prefix_max: 3, ..Limits::default() };
        let (mut seats, now) = (Seats::default(), Instant::now());
        let mut take = |source: IpAddr, configured, validator| {
            let applicant = Applicant { peer_id: PeerId::random(), validator, source, configured };
            seats.take(applicant, &validators, &limits, now)
        };
        for last in 0..3 {
            assert_eq!(take(prefix(1, last), false, None), Ok(()));
        }
        assert_eq!(take(prefix(1, 9), false, None), Err(Refusal::Eclipse));
        assert_eq!(take(prefix(1, 9), true, None), Ok(()));
        assert_eq!(take(prefix(1, 9), false, Some(key)), Ok(()));
        assert_eq!(take(prefix(2, 9), false, None), Ok(()), "another /24");
        let of_v6 = |text: &str| crate::address::source_of(text.parse().unwrap());
        for network in 0..3 {
            assert_eq!(take(of_v6(&format!("2001:db8:0:{network}::1")), false, None), Ok(()));
        }
        assert_eq!(take(of_v6("2001:db8:0:9::1"), false, None), Err(Refusal::Eclipse), "one /48");
        assert_eq!(take(of_v6("2001:db8:1::1"), false, None), Ok(()));
    }

    #[test]
    fn many_identities_of_one_prefix_are_refused() {
        let limits = Limits { identities_per_prefix_max: 4, ..Limits::default() };
        let (mut seats, now) = (Seats::default(), Instant::now());
        let mut come = |peer_id, last, configured| {
            let applicant = Applicant { peer_id, validator: None, source: prefix(1, last), configured };
            let taken = seats.take(applicant, &HashSet::new(), &limits, now);
            seats.free(&peer_id);
            taken
        };
        let first = PeerId::random();
        assert_eq!(come(first, 0, false), Ok(()));
        for last in 1..4 {
            assert_eq!(come(PeerId::random(), last, false), Ok(()));
        }
        assert_eq!(come(PeerId::random(), 4, false), Err(Refusal::Sybil));
        assert_eq!(come(first, 7, false), Ok(()), "an old one comes back");
        assert_eq!(come(PeerId::random(), 4, true), Ok(()), "one whom we dial");
    }

    proptest! {
        /// Whatever comes and goes in whatever order, the counts equal what is there.
        #[test]
        fn counts_stay_true(steps in prop::collection::vec((0usize..40, 0u8..3, 0u8..3, any::<bool>()), 0..300)) {
            let limits = Limits { connections_per_prefix_max: 7, ..limits() };
            let (mut arrivals, now) = (Arrivals::default(), Instant::now());
            for (number, step, source, known) in steps {
                let connection = ConnectionId::new_unchecked(number);
                match step {
                    0 if !arrivals.connections.contains_key(&connection) => {
                        arrivals.arrive(connection, [10, 0, 0, source].into(), known, &limits, now).ok();
                    }
                    1 => arrivals.settle(connection),
                    _ => arrivals.leave(connection),
                }
                let all = || arrivals.connections.values();
                prop_assert_eq!(arrivals.pending_strangers, all().filter(|a| a.pending && !a.known).count());
                prop_assert!(arrivals.pending_strangers <= limits.pending_max);
                for (prefix, count) in &arrivals.prefixes {
                    prop_assert_eq!(*count, all().filter(|a| !a.known && prefix_of(a.source) == *prefix).count());
                    prop_assert!((1..=limits.connections_per_prefix_max).contains(count));
                }
                for (source, count) in &arrivals.sources {
                    prop_assert_eq!(count.all, all().filter(|a| a.source == *source).count());
                    prop_assert_eq!(count.pending, all().filter(|a| a.source == *source && a.pending).count());
                    prop_assert!(count.all > 0 && count.pending <= limits.pending_per_source_max);
                }
            }
        }
    }
}
