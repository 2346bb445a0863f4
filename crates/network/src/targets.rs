//! Whom to dial, where, and when: configured peers, for ever. An attempt dials both lanes at one address; the next attempt takes
//! the peer's next address.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use crate::config::{Limits, TARGET_ADDRESSES_MAX, TARGETS_MAX};

#[derive(Debug)]
struct Target {
    addresses: Vec<Multiaddr>,
    /// Attempts since it last stood.
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    /// An attempt is under way, with its number.
    Dialing(u64),
    Standing,
}

/// Dial both lanes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub peer_id: PeerId,
    pub address: Multiaddr,
    pub number: u64,
}

/// All whom we keep connected with.
#[derive(Debug)]
pub(crate) struct Targets {
    me: PeerId,
    targets: HashMap<PeerId, Target>,
    attempts: u64,
    deference: Duration,
    backoff_min: Duration,
    backoff_max: Duration,
}

impl Targets {
    pub(crate) fn new(me: PeerId, limits: &Limits) -> Targets {
        let Limits { deference, backoff_min, backoff_max, .. } = *limits;
        Targets { me, targets: HashMap::new(), attempts: 0, deference, backoff_min, backoff_max }
    }

    /// Adds a peer, or another address of it. False if the bounds are reached; ourselves are taken and forgotten.
    pub(crate) fn add(&mut self, peer_id: PeerId, address: Multiaddr, standing: bool, now: Instant) -> bool {
        if peer_id == self.me {
            return true;
        }
        if !self.targets.contains_key(&peer_id) && self.targets.len() >= TARGETS_MAX {
            return false;
        }
        let due = now + self.deference(&peer_id);
        let state = if standing { State::Standing } else { State::Waiting(due) };
        let target = self.targets.entry(peer_id).or_insert(Target { addresses: Vec::new(), failures: 0, state });
        if !target.addresses.contains(&address) {
            if target.addresses.len() >= TARGET_ADDRESSES_MAX {
                return false;
            }
            target.addresses.push(address);
        }
        true
    }

    fn deference(&self, peer_id: &PeerId) -> Duration {
        if self.me > *peer_id { self.deference } else { Duration::ZERO }
    }

    pub(crate) fn contains(&self, peer_id: &PeerId) -> bool {
        self.targets.contains_key(peer_id)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.targets.values().flat_map(|target| &target.addresses)
    }

    /// One attempt that is due, marked as under way.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Attempt> {
        let due = |target: &Target| matches!(target.state, State::Waiting(at) if at <= now);
        let (peer_id, target) = self.targets.iter_mut().find(|(_, target)| due(target))?;
        let at = target.failures as usize % target.addresses.len().max(1);
        let address = target.addresses.get(at)?.clone();
        self.attempts += 1;
        target.state = State::Dialing(self.attempts);
        Some(Attempt { peer_id: *peer_id, address, number: self.attempts })
    }

    /// When `next_due` has to be asked again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let wait = |target: &Target| match target.state {
            State::Waiting(at) => Some(at),
            _ => None,
        };
        self.targets.values().filter_map(wait).min()
    }

    /// Whether this attempt is still the one that counts.
    pub(crate) fn is_current(&self, peer_id: &PeerId, number: u64) -> bool {
        self.targets.get(peer_id).is_some_and(|target| target.state == State::Dialing(number))
    }

    /// The peer stands, whoever dialled.
    pub(crate) fn stands(&mut self, peer_id: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer_id) {
            target.failures = 0;
            target.state = State::Standing;
        }
    }

    /// The peer fell: dial soon.
    pub(crate) fn fell(&mut self, peer_id: &PeerId, now: Instant) {
        let due = now + self.backoff_min + self.deference(peer_id);
        if let Some(target) = self.targets.get_mut(peer_id)
            && target.state == State::Standing
        {
            target.state = State::Waiting(due);
        }
    }

    /// The attempt failed; the second of its lanes to fail changes nothing.
    pub(crate) fn failed(&mut self, peer_id: &PeerId, number: u64, now: Instant) {
        if !self.is_current(peer_id, number) {
            return;
        }
        let (min, max) = (self.backoff_min, self.backoff_max);
        let me = self.me;
        if let Some(target) = self.targets.get_mut(peer_id) {
            // Every address is tried once before the pause grows.
            let rounds = target.failures / (target.addresses.len().max(1) as u32);
            target.failures = target.failures.saturating_add(1);
            let pause = min.saturating_mul(1 << rounds.min(16)).min(max);
            target.state = State::Waiting(now + spread(pause, &me, peer_id, number));
        }
    }
}

/// Three quarters of a pause to all of it, by a hash of who dials whom and when: nodes that lost one peer at the same moment
/// don't all come back at the same moment.
fn spread(pause: Duration, me: &PeerId, peer_id: &PeerId, number: u64) -> Duration {
    let bytes = [me.to_bytes(), peer_id.to_bytes(), number.to_le_bytes().to_vec()].concat();
    let hash = types::Hash::tagged("ebpf-blockchain/backoff", &bytes);
    pause * 3 / 4 + pause * u32::from(hash.0[0]) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    const DEFERENCE: Duration = Duration::from_millis(300);

    fn limits() -> Limits {
        Limits { deference: DEFERENCE, backoff_min: MIN, backoff_max: MAX, ..Limits::default() }
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    /// Two identities in order.
    fn pair() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        if a < b { (a, b) } else { (b, a) }
    }

    #[test]
    fn addresses_in_turn_and_growing_pauses_for_ever() {
        let (small, large) = pair();
        let mut now = Instant::now();
        let mut targets = Targets::new(small, &limits());
        assert!(targets.add(large, address(1), false, now) && targets.add(large, address(2), false, now));
        let mut pauses = Vec::new();
        for n in 0..40u16 {
            let attempt = targets.next_due(now).unwrap();
            assert_eq!(attempt.address, address(1 + n % 2));
            assert_eq!(targets.next_due(now), None, "one attempt at a time");
            targets.failed(&large, attempt.number, now);
            targets.failed(&large, attempt.number, now);
            let due = targets.next_deadline().unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert!(pauses[..2].iter().all(|pause| *pause <= MIN && *pause >= MIN * 3 / 4));
        assert!(pauses[2..4].iter().all(|pause| *pause <= MIN * 2 && *pause > MIN));
        assert!(pauses[10..].iter().all(|pause| *pause <= MAX && *pause >= MAX * 3 / 4));
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "spread");
    }

    #[test]
    fn the_larger_identity_gives_way_at_first() {
        let (small, large) = pair();
        let now = Instant::now();
        let mut targets = Targets::new(large, &limits());
        targets.add(small, address(1), false, now);
        assert_eq!(targets.next_due(now), None);
        targets.stands(&small);
        assert_eq!(targets.next_due(now + DEFERENCE), None, "it came to us");
        targets.fell(&small, now);
        assert!(targets.next_due(now + MIN).is_none() && targets.next_due(now + MIN + DEFERENCE).is_some());
    }

    #[test]
    fn an_attempt_that_a_standing_overtook_is_stale() {
        let (small, large) = pair();
        let now = Instant::now();
        let mut targets = Targets::new(small, &limits());
        targets.add(large, address(1), false, now);
        let attempt = targets.next_due(now).unwrap();
        assert!(targets.is_current(&large, attempt.number));
        targets.stands(&large);
        assert!(!targets.is_current(&large, attempt.number));
        targets.failed(&large, attempt.number, now);
        assert_eq!(targets.next_deadline(), None, "its failure is no news");
    }

    #[test]
    fn bounded() {
        let now = Instant::now();
        let mut targets = Targets::new(PeerId::random(), &limits());
        for _ in 0..TARGETS_MAX {
            assert!(targets.add(PeerId::random(), address(1), false, now));
        }
        assert!(!targets.add(PeerId::random(), address(1), false, now));
    }
}
