//! Which connections make a peer, and which pair wins when two nodes dial each other at once.
//!
//! A *session* is a pair of connections, one a lane, dialled by one side. Sessions are whole: lanes of two dialers are never
//! mixed. When a session is complete and another of the same peer stands, both ends must keep the same one:
//!
//! - dialled by the same side: the newer (its dialer has lost the older, or it would not have dialled);
//! - by both sides, and the standing one is younger than two handshakes can take: that of the smaller PeerId (a simultaneous dial);
//! - by both sides, and it is older: the newer (the other end has restarted, and we have not noticed yet).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use types::{Lane, PublicKey};

use crate::event::Refusal;

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    We,
    They,
}

/// A connection that has said its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeted {
    pub peer_id: PeerId,
    pub connection: ConnectionId,
    pub side: Side,
    pub lane: Lane,
    pub validator: Option<PublicKey>,
}

/// What follows, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This connection is not needed.
    Close(ConnectionId, Refusal),
    /// A standing session ended: its connections are to be closed.
    Fall { peer: u64, peer_id: PeerId, connections: [ConnectionId; 2] },
    /// A session stands, under a handle of its own.
    Stand { peer: u64, peer_id: PeerId, side: Side, connections: [ConnectionId; 2], validator: Option<PublicKey> },
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    peer: u64,
    side: Side,
    connections: [ConnectionId; 2],
    since: Instant,
}

#[derive(Debug, Default)]
struct Remote {
    /// By side, then by lane.
    candidates: [[Option<Greeted>; 2]; 2],
    standing: Option<Standing>,
}

impl Remote {
    fn is_empty(&self) -> bool {
        self.standing.is_none() && self.candidates.iter().flatten().all(Option::is_none)
    }
}

/// All peers, complete or not. Bounded by the connections that exist.
#[derive(Debug)]
pub(crate) struct Sessions {
    me: PeerId,
    /// Longer than a dial and a handshake: within it a session of the other side may be one of a simultaneous dial.
    window: Duration,
    remotes: HashMap<PeerId, Remote>,
    peers: u64,
}

impl Sessions {
    pub(crate) fn new(me: PeerId, window: Duration) -> Sessions {
        Sessions { me, window, remotes: HashMap::new(), peers: 0 }
    }

    /// A connection has said a good hello.
    pub(crate) fn greeted(&mut self, greeted: Greeted, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let Greeted { peer_id, side, lane, .. } = greeted;
        let remote = self.remotes.entry(peer_id).or_default();
        let candidate = &mut remote.candidates[side as usize];
        if let Some(older) = candidate[lane as usize].replace(greeted) {
            steps.push(Step::Close(older.connection, Refusal::Duplicate));
        }
        let [Some(votes), Some(bulk)] = *candidate else { return steps };
        *candidate = [None, None];
        let connections = [votes.connection, bulk.connection];
        let mut refuse = |refusal| steps.extend(connections.map(|connection| Step::Close(connection, refusal)));
        if votes.validator != bulk.validator {
            refuse(Refusal::Proof);
            return steps;
        }
        if let Some(standing) = remote.standing {
            if standing.side != side && self.is_simultaneous(&standing, now) && self.wins(standing.side, &peer_id) {
                refuse(Refusal::Duplicate);
                return steps;
            }
            steps.push(Step::Fall { peer: standing.peer, peer_id, connections: standing.connections });
        }
        self.peers += 1;
        let peer = self.peers;
        if let Some(remote) = self.remotes.get_mut(&peer_id) {
            remote.standing = Some(Standing { peer, side, connections, since: now });
        }
        steps.push(Step::Stand { peer, peer_id, side, connections, validator: votes.validator });
        steps
    }

    fn is_simultaneous(&self, standing: &Standing, now: Instant) -> bool {
        now.saturating_duration_since(standing.since) < self.window
    }

    fn wins(&self, side: Side, peer_id: &PeerId) -> bool {
        (side == Side::We) == (self.me < *peer_id)
    }

    /// A connection is closed, or about to be.
    pub(crate) fn closed(&mut self, peer_id: PeerId, connection: ConnectionId) -> Option<Step> {
        let remote = self.remotes.get_mut(&peer_id)?;
        for candidate in remote.candidates.iter_mut().flatten() {
            if candidate.is_some_and(|greeted| greeted.connection == connection) {
                *candidate = None;
            }
        }
        let falls = remote.standing.filter(|standing| standing.connections.contains(&connection));
        if falls.is_some() {
            remote.standing = None;
        }
        if remote.is_empty() {
            self.remotes.remove(&peer_id);
        }
        falls.map(|standing| Step::Fall { peer: standing.peer, peer_id, connections: standing.connections })
    }

    /// Whether a session of this peer stands.
    pub(crate) fn stands(&self, peer_id: &PeerId) -> bool {
        self.remotes.get(peer_id).is_some_and(|remote| remote.standing.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn pair() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        if a < b { (a, b) } else { (b, a) }
    }

    fn greeted(peer_id: PeerId, side: Side, lane: Lane, number: usize) -> Greeted {
        Greeted { peer_id, connection: ConnectionId::new_unchecked(number), side, lane, validator: None }
    }

    /// Both lanes; connections `number` and `number + 1`.
    fn session(sessions: &mut Sessions, peer_id: PeerId, side: Side, number: usize, now: Instant) -> Vec<Step> {
        assert_eq!(sessions.greeted(greeted(peer_id, side, Lane::Votes, number), now), []);
        sessions.greeted(greeted(peer_id, side, Lane::Bulk, number + 1), now)
    }

    fn stands(steps: &[Step]) -> Option<u64> {
        steps.iter().find_map(|step| if let Step::Stand { peer, .. } = step { Some(*peer) } else { None })
    }

    #[test]
    fn half_a_peer_is_none() {
        let (small, large) = pair();
        let mut sessions = Sessions::new(small, WINDOW);
        let now = Instant::now();
        assert_eq!(sessions.greeted(greeted(large, Side::We, Lane::Votes, 1), now), []);
        assert_eq!(sessions.greeted(greeted(large, Side::They, Lane::Bulk, 2), now), [], "lanes of two dialers don't mix");
        assert!(!sessions.stands(&large));
        assert_eq!(sessions.greeted(greeted(large, Side::We, Lane::Bulk, 3), now).len(), 1);
        assert!(sessions.stands(&large));
        assert_eq!(sessions.closed(large, ConnectionId::new_unchecked(2)), None);
        let fall = sessions.closed(large, ConnectionId::new_unchecked(1));
        assert!(matches!(fall, Some(Step::Fall { peer: 1, .. })));
        assert!(sessions.remotes.is_empty());
    }

    #[test]
    fn lanes_that_name_two_validators_are_refused() {
        let (small, large) = pair();
        let mut sessions = Sessions::new(small, WINDOW);
        let now = Instant::now();
        sessions.greeted(greeted(large, Side::We, Lane::Votes, 1), now);
        let other = Greeted { validator: Some(PublicKey([1; 32])), ..greeted(large, Side::We, Lane::Bulk, 2) };
        let refused = |number| Step::Close(ConnectionId::new_unchecked(number), Refusal::Proof);
        assert_eq!(sessions.greeted(other, now), [refused(1), refused(2)]);
    }

    #[test]
    fn a_restarted_peer_replaces_its_old_self() {
        let (small, large) = pair();
        let mut sessions = Sessions::new(small, WINDOW);
        let now = Instant::now();
        assert_eq!(stands(&session(&mut sessions, large, Side::We, 1, now)), Some(1));
        assert_eq!(stands(&session(&mut sessions, large, Side::They, 3, now + WINDOW / 2)), None, "may be simultaneous");
        let steps = session(&mut sessions, large, Side::They, 5, now + WINDOW);
        assert!(matches!(steps[..], [Step::Fall { peer: 1, .. }, Step::Stand { peer: 2, .. }]));
        let steps = session(&mut sessions, large, Side::They, 7, now + WINDOW);
        assert!(matches!(steps[..], [Step::Fall { peer: 2, .. }, Step::Stand { peer: 3, .. }]), "same side: the newer");
    }

    /// One of four connections of a simultaneous dial: its dialer and its lane.
    type Line = (bool, Lane);

    proptest! {
        /// Two nodes dial each other; hellos complete at each end in any order, closes take any time. Both end with one and the
        /// same pair of connections: those that the smaller dialled.
        #[test]
        fn simultaneous_dials_end_alike(order in prop::collection::vec(any::<prop::sample::Index>(), 8), turns in prop::collection::vec(any::<bool>(), 64)) {
            let (small, large) = pair();
            let now = Instant::now();
            let lines: [Line; 4] = [(true, Lane::Votes), (true, Lane::Bulk), (false, Lane::Votes), (false, Lane::Bulk)];
            let mut ends = [Sessions::new(small, WINDOW), Sessions::new(large, WINDOW)];
            let names = [large, small];
            // Each end's own order of hellos.
            let mut inputs: Vec<VecDeque<(bool, usize)>> = Vec::new();
            for end in 0..2 {
                let mut rest: Vec<usize> = (0..4).collect();
                inputs.push((0..4).map(|n| (true, rest.remove(order[end * 4 + n].index(rest.len())))).collect());
            }
            let mut closed: [BTreeSet<usize>; 2] = Default::default();
            let mut turns = turns.into_iter();
            while inputs.iter().any(|queue| !queue.is_empty()) {
                let end = usize::from(turns.next().unwrap_or(!inputs[1].is_empty()));
                let Some((hello, line)) = inputs[end].pop_front() else { continue };
                let steps = if !hello {
                    ends[end].closed(names[end], ConnectionId::new_unchecked(line)).into_iter().collect()
                } else if closed[end].contains(&line) {
                    Vec::new()
                } else {
                    let by_me = lines[line].0 == (end == 0);
                    let side = if by_me { Side::We } else { Side::They };
                    ends[end].greeted(greeted(names[end], side, lines[line].1, line), now)
                };
                if !hello {
                    closed[end].insert(line);
                }
                for step in steps {
                    let dead: Vec<ConnectionId> = match step {
                        Step::Close(connection, _) => vec![connection],
                        Step::Fall { connections, .. } => connections.to_vec(),
                        Step::Stand { .. } => vec![],
                    };
                    for connection in dead {
                        let line = (0..4).find(|n| ConnectionId::new_unchecked(*n) == connection).unwrap();
                        closed[end].insert(line);
                        // The other end learns of it, after the hello that it may not have seen yet.
                        if !closed[1 - end].contains(&line) {
                            inputs[1 - end].push_back((false, line));
                        }
                    }
                }
            }
            for (end, name) in ends.iter().zip(names) {
                let standing = end.remotes[&name].standing.unwrap();
                prop_assert_eq!(standing.connections, [ConnectionId::new_unchecked(0), ConnectionId::new_unchecked(1)]);
            }
        }
    }
}
