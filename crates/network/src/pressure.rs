//! Pressures: what proves nothing about one peer, and so bans nobody. Too many identities of one prefix (*sybil*), too many seats
//! of one prefix (*eclipse*, counted in `seats`), too many arrivals (*handshake flood*), and addresses that are limited because
//! somebody behind them is guilty. They refuse seats and shrink budgets, are counted, and end by themselves.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::config::Limits;

/// Prefixes whose identities are remembered; the one that was quiet the longest makes room.
const PREFIXES_MAX: usize = 1024;
/// Peers, and addresses, that may be limited at once; the one whose limit ends first makes room.
const LIMITED_MAX: usize = 1024;
/// Peers of a limited address that keep their right to a seat.
const KEPT_MAX: usize = 64;
/// Over which arrivals are counted.
const FLOOD_WINDOW: Duration = Duration::from_secs(1);

/// The identities that strangers of each prefix have shown lately.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    prefixes: HashMap<IpAddr, Shown>,
}

#[derive(Debug)]
struct Shown {
    last: Instant,
    peers: HashMap<PeerId, Instant>,
}

impl Identities {
    /// Notes an identity. False if its prefix has shown as many others within the window as it may; then it is not noted, so the
    /// first ones keep their right to come back.
    pub(crate) fn note(&mut self, prefix: IpAddr, peer_id: PeerId, limits: &Limits, now: Instant) -> bool {
        if !self.prefixes.contains_key(&prefix) && self.prefixes.len() >= PREFIXES_MAX {
            let quietest = self.prefixes.iter().min_by_key(|(_, shown)| shown.last).map(|(prefix, _)| *prefix);
            quietest.map(|prefix| self.prefixes.remove(&prefix));
        }
        let shown = self.prefixes.entry(prefix).or_insert_with(|| Shown { last: now, peers: HashMap::new() });
        shown.last = now;
        shown.peers.retain(|_, at| now.saturating_duration_since(*at) < limits.identities_window);
        if !shown.peers.contains_key(&peer_id) && shown.peers.len() >= limits.identities_per_prefix_max {
            return false;
        }
        shown.peers.insert(peer_id, now);
        true
    }
}

/// What an arrival tells about the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tide {
    /// Nothing, or nothing new.
    Calm,
    /// A flood begins.
    Rises,
    /// It goes on, half its calm after it was last told.
    Stays,
}

/// Counts arrivals from sources that we don't know.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    window: Option<Instant>,
    arrivals: u64,
    until: Option<Instant>,
    told: Option<Instant>,
}

impl Flood {
    /// A connection arrives.
    pub(crate) fn arrive(&mut self, limits: &Limits, now: Instant) -> Tide {
        if self.window.is_none_or(|start| now.saturating_duration_since(start) >= FLOOD_WINDOW) {
            self.window = Some(now);
            self.arrivals = 0;
        }
        self.arrivals += 1;
        if self.arrivals <= limits.flood_arrivals_per_s {
            return Tide::Calm;
        }
        let was_on = self.is_on(now);
        self.until = Some(now + limits.flood_calm);
        if !was_on {
            self.told = Some(now);
            return Tide::Rises;
        }
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= limits.flood_calm / 2) {
            self.told = Some(now);
            return Tide::Stays;
        }
        Tide::Calm
    }

    /// Whether the last flood ended less than its calm ago.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Whoever is limited, and until when.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    peers: HashMap<PeerId, Instant>,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Debug)]
struct Source {
    until: Instant,
    /// Those that stood when the limit began: the innocent behind the same address.
    kept: HashSet<PeerId>,
}

impl Limited {
    /// Limits a peer and its source: the peer gets no seat until then, and the source none for anybody but `kept`.
    pub(crate) fn limit(
        &mut self,
        peer_id: PeerId,
        source: IpAddr,
        kept: impl Iterator<Item = PeerId>,
        until: Instant,
        now: Instant,
    ) {
        self.peers.retain(|_, until| *until > now);
        self.sources.retain(|_, limited| limited.until > now);
        if self.peers.len() >= LIMITED_MAX {
            let first = self.peers.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.map(|peer| self.peers.remove(&peer));
        }
        if self.sources.len() >= LIMITED_MAX {
            let first = self.sources.iter().min_by_key(|(_, limited)| limited.until).map(|(source, _)| *source);
            first.map(|source| self.sources.remove(&source));
        }
        self.peers.insert(peer_id, until);
        let limited = self.sources.entry(source).or_insert_with(|| Source { until, kept: HashSet::new() });
        limited.until = limited.until.max(until);
        limited.kept.remove(&peer_id);
        let room = KEPT_MAX.saturating_sub(limited.kept.len());
        limited.kept.extend(kept.filter(|kept| *kept != peer_id).take(room));
    }

    /// Whether a peer is limited itself.
    pub(crate) fn is_peer(&self, peer_id: &PeerId, now: Instant) -> bool {
        self.peers.get(peer_id).is_some_and(|until| *until > now)
    }

    /// Whether a seat for this peer is refused, for its own sake or its source's.
    pub(crate) fn refuses(&self, peer_id: &PeerId, source: IpAddr, now: Instant) -> bool {
        let by_source = self.sources.get(&source).is_some_and(|limited| limited.until > now && !limited.kept.contains(peer_id));
        by_source || self.is_peer(peer_id, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            identities_per_prefix_max: 3,
            identities_window: 10 * SECOND,
            flood_arrivals_per_s: 5,
            flood_calm: 4 * SECOND,
            ..Limits::default()
        }
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, last, 0].into()
    }

    #[test]
    fn new_identities_are_refused_and_the_first_come_back() {
        let (mut identities, limits, now) = (Identities::default(), limits(), Instant::now());
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        for peer in &peers[..3] {
            assert!(identities.note(ip(1), *peer, &limits, now));
        }
        assert!(!identities.note(ip(1), peers[3], &limits, now));
        assert!(identities.note(ip(1), peers[0], &limits, now + 5 * SECOND), "a known one comes back");
        assert!(identities.note(ip(2), peers[3], &limits, now), "another prefix");
        assert!(identities.note(ip(1), peers[3], &limits, now + 10 * SECOND), "the window has passed");
    }

    #[test]
    fn a_flood_is_told_once_and_again_while_it_lasts() {
        let (mut flood, limits, start) = (Flood::default(), limits(), Instant::now());
        let mut pour = |at: Duration, count: usize| -> Vec<Tide> {
            let tides = (0..count).map(|_| flood.arrive(&limits, start + at));
            tides.filter(|tide| *tide != Tide::Calm).collect()
        };
        assert_eq!(pour(Duration::ZERO, 5), []);
        assert_eq!(pour(SECOND, 5), [], "each second anew");
        assert_eq!(pour(2 * SECOND, 50), [Tide::Rises]);
        assert_eq!(pour(3 * SECOND, 50), []);
        assert_eq!(pour(4 * SECOND, 50), [Tide::Stays]);
        assert_eq!(pour(9 * SECOND, 5), []);
        assert_eq!(pour(10 * SECOND, 6), [Tide::Rises], "after its calm it is another one");
        assert!(flood.is_on(start + 13 * SECOND) && !flood.is_on(start + 14 * SECOND));
    }

    #[test]
    fn the_innocent_behind_an_address_keep_their_seats() {
        let (mut limited, now) = (Limited::default(), Instant::now());
        let (guilty, innocent, new) = (PeerId::random(), PeerId::random(), PeerId::random());
        limited.limit(guilty, ip(1), [guilty, innocent].into_iter(), now + SECOND, now);
        assert!(limited.refuses(&guilty, ip(1), now) && limited.refuses(&guilty, ip(2), now));
        assert!(limited.refuses(&new, ip(1), now) && !limited.refuses(&new, ip(2), now));
        assert!(!limited.refuses(&innocent, ip(1), now));
        // The innocent one turns out to be none.
        limited.limit(innocent, ip(1), std::iter::empty(), now + SECOND, now);
        assert!(limited.refuses(&innocent, ip(1), now));
        for peer in [guilty, innocent, new] {
            assert!(!limited.refuses(&peer, ip(1), now + SECOND), "every limit ends");
        }
    }

    #[test]
    fn bounded() {
        let (mut limited, mut identities, now) = (Limited::default(), Identities::default(), Instant::now());
        for n in 0..LIMITED_MAX + 100 {
            let address = IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
            limited.limit(PeerId::random(), address, std::iter::empty(), now + SECOND, now);
            identities.note(address, PeerId::random(), &limits(), now);
        }
        assert_eq!(
            (limited.peers.len(), limited.sources.len(), identities.prefixes.len()),
            (LIMITED_MAX, LIMITED_MAX, PREFIXES_MAX)
        );
    }
}
