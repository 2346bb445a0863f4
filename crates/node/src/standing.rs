//! Who stands, whose key it proved, and what of it the guard shall know. Pure.
//!
//! Anybody can prove *some* key. A validator is who proved a key of the present epoch's record: only such a one has the floor and
//! can't be banned.

use std::collections::BTreeMap;
use std::net::IpAddr;

use guard::Prefix;
use network::{PeerId, Transport};
use types::{EpochRecord, PublicKey};

use crate::guard_link::{Culprit, Flow};

const PARTS: u128 = 1_000_000;

/// The validators of an epoch with their parts of its stake, in millionths; at least one each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    parts: BTreeMap<PublicKey, u32>,
}

impl Shares {
    /// Those of a record.
    pub fn new(record: &EpochRecord) -> Shares {
        let total = record.validators.iter().map(|validator| u128::from(validator.weight.0)).sum::<u128>().max(1);
        let part = |weight: u64| u32::try_from(u128::from(weight) * PARTS / total).unwrap_or(u32::MAX).clamp(1, PARTS as u32);
        Shares { parts: record.validators.iter().map(|validator| (validator.key, part(validator.weight.0))).collect() }
    }

    /// A key's part; none if it is no validator's.
    pub fn of(&self, key: &PublicKey) -> Option<u32> {
        self.parts.get(key).copied()
    }
}

/// What a standing peer is to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its transport identity.
    pub peer_id: PeerId,
    /// The key that it proved, a validator's or not.
    pub key: Option<PublicKey>,
    /// The remote address of its votes lane.
    pub address: IpAddr,
    /// Its connections, as the guard knows them.
    pub flows: Vec<Flow>,
}

/// All standing peers, under their handles.
#[derive(Debug, Default)]
pub struct Standings {
    all: BTreeMap<u64, Standing>,
    shares: Shares,
}

impl Standings {
    /// Nobody stands yet.
    pub fn new(record: &EpochRecord) -> Standings {
        Standings { all: BTreeMap::new(), shares: Shares::new(record) }
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One of them.
    pub fn get(&self, peer: u64) -> Option<&Standing> {
        self.all.get(&peer)
    }

    /// Whether a key is a present validator's.
    pub fn is_validator(&self, key: Option<PublicKey>) -> bool {
        key.is_some_and(|key| self.shares.of(&key).is_some())
    }

    /// Handles of those who proved a key.
    pub fn of_key(&self, key: &PublicKey) -> Vec<u64> {
        self.all.iter().filter(|(_, standing)| standing.key.as_ref() == Some(key)).map(|(peer, _)| *peer).collect()
    }

    /// A peer stands. Gives the flows to announce. A TCP connection that we dialled ends at an ephemeral port here, which the guard does
    /// not protect: such a flow is told apart.
    pub fn insert(&mut self, connected: &network::Connected) -> Vec<Flow> {
        let flow = |link: &network::Link| Flow {
            address: link.address,
            udp: link.transport == Transport::Quic,
            dialed: link.local_port.is_none(),
            label: connected.peer_id.to_string(),
            stake_ppm: connected.validator.and_then(|key| self.shares.of(&key)),
        };
        let flows: Vec<Flow> = connected.links.iter().map(flow).collect();
        let address = connected.address().ip();
        let standing = Standing { peer_id: connected.peer_id, key: connected.validator, address, flows: flows.clone() };
        self.all.insert(connected.peer, standing);
        flows
    }

    /// A peer is gone. Gives it back, with the flows to withdraw: a connection that we opened has the same remote end as the one that
    /// replaces it, and that one's flow stays.
    pub fn remove(&mut self, peer: u64) -> Option<Standing> {
        let mut standing = self.all.remove(&peer)?;
        standing.flows.retain(|flow| !self.all.values().flat_map(|other| &other.flows).any(|other| other.key() == flow.key()));
        Some(standing)
    }

    /// Another epoch's record holds. Gives the flows to announce again: those whose class or part of the stake changed.
    pub fn enter(&mut self, record: &EpochRecord) -> Vec<Flow> {
        self.shares = Shares::new(record);
        let mut changed = Vec::new();
        for standing in self.all.values_mut() {
            let stake_ppm = standing.key.and_then(|key| self.shares.of(&key));
            for flow in standing.flows.iter_mut().filter(|flow| flow.stake_ppm != stake_ppm) {
                flow.stake_ppm = stake_ppm;
                changed.push(flow.clone());
            }
        }
        changed
    }

    /// Whom an offence of a standing peer is about.
    pub fn culprit(&self, peer: u64) -> Option<Culprit> {
        let standing = self.all.get(&peer)?;
        Some(self.accuse(Some(peer), standing.peer_id, standing.key, standing.address))
    }

    /// Whom an offence is about: one that stands, fell just now, or never stood.
    pub fn accuse(&self, peer: Option<u64>, peer_id: PeerId, key: Option<PublicKey>, address: IpAddr) -> Culprit {
        let source = Prefix::host(address).widened();
        let other = |standing: &Standing| standing.peer_id != peer_id && Prefix::host(standing.address).widened() == source;
        let shared = self.all.values().any(other);
        Culprit { peer, peer_id, address, validator: self.is_validator(key), shared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::{Connected, Link};
    use types::{Epoch, Height, Lane, Params, Stake, Validator};

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn record(weights: &[(u8, u64)]) -> EpochRecord {
        let validators = weights.iter().map(|(n, weight)| Validator { key: key(*n), weight: Stake(*weight) }).collect();
        EpochRecord { epoch: Epoch(0), first_height: Height(1), length: 10, version: 1, params: Params::default(), validators }
    }

    fn connected(peer: u64, address: &str, validator: Option<PublicKey>) -> Connected {
        let link = |lane| Link { lane, transport: Transport::Quic, address: address.parse().unwrap(), local_port: Some(9000) };
        Connected { peer, peer_id: PeerId::random(), validator, outbound: false, links: Lane::ALL.map(link) }
    }

    #[test]
    fn shares_are_parts_of_the_whole_and_never_nothing() {
        let shares = Shares::new(&record(&[(1, 1), (2, 3)]));
        assert_eq!([shares.of(&key(1)), shares.of(&key(2)), shares.of(&key(3))], [Some(250_000), Some(750_000), None]);
        let shares = Shares::new(&record(&[(1, u64::MAX), (2, 1)]));
        assert_eq!([shares.of(&key(1)), shares.of(&key(2))], [Some(999_999), Some(1)]);
    }

    /// The hole that this table closes: a key that anybody can make is no validator's.
    #[test]
    fn a_key_of_nobody_has_no_floor() {
        let mut standings = Standings::new(&record(&[(1, 1)]));
        let flows = standings.insert(&connected(1, "10.0.0.1:9", Some(key(7))));
        assert!(flows.iter().all(|flow| flow.stake_ppm.is_none()));
        assert!(!standings.culprit(1).unwrap().validator);
        assert_eq!(standings.insert(&connected(2, "10.0.0.2:9", Some(key(1))))[0].stake_ppm, Some(1_000_000));
        assert!(standings.culprit(2).unwrap().validator);
    }

    #[test]
    fn an_epochs_change_changes_flows() {
        let mut standings = Standings::new(&record(&[(1, 1)]));
        standings.insert(&connected(1, "10.0.0.1:9", Some(key(1))));
        standings.insert(&connected(2, "10.0.0.2:9", Some(key(2))));
        assert_eq!(standings.enter(&record(&[(1, 1)])), []);
        let changed = standings.enter(&record(&[(2, 5)]));
        let found: Vec<_> = changed.iter().map(|flow| (flow.address.to_string(), flow.stake_ppm)).collect();
        let both = |address: &str, part| vec![(address.to_owned(), part); 2];
        assert_eq!(found, [both("10.0.0.1:9", None), both("10.0.0.2:9", Some(1_000_000))].concat());
        assert!(standings.culprit(2).unwrap().validator && !standings.culprit(1).unwrap().validator);
    }

    /// What we dialled is announced as such: no packet to a protected port is one of it.
    #[test]
    fn what_we_opened_over_tcp_is_told_apart_and_outlives_what_it_replaces() {
        let mut standings = Standings::new(&record(&[(1, 1)]));
        let dialed = |peer| {
            let peer = connected(peer, "10.0.0.1:9000", Some(key(1)));
            Connected { links: peer.links.map(|link| Link { transport: Transport::Tcp, local_port: None, ..link }), ..peer }
        };
        let flows = standings.insert(&dialed(1));
        assert!(flows.iter().all(|flow| flow.dialed && flow.stake_ppm == Some(1_000_000)));
        assert!(!standings.insert(&connected(2, "10.0.0.2:9", None))[0].dialed);
        standings.insert(&dialed(3));
        assert_eq!(standings.remove(1).unwrap().flows, []);
        assert_eq!(standings.remove(3).unwrap().flows.len(), 2);
    }

    #[test]
    fn who_shares_an_address() {
        let mut standings = Standings::new(&record(&[]));
        standings.insert(&connected(1, "10.0.0.1:9", None));
        assert!(!standings.culprit(1).unwrap().shared, "not with itself");
        standings.insert(&connected(2, "10.0.0.1:10", None));
        assert!(standings.culprit(1).unwrap().shared);
        standings.insert(&connected(3, "[2001:db8::1]:9", None));
        standings.insert(&connected(4, "[2001:db8::2]:9", None));
        assert!(standings.culprit(3).unwrap().shared, "a ban hits the /64");
        standings.insert(&connected(5, "[2001:db8:0:1::1]:9", None));
        assert!(!standings.culprit(5).unwrap().shared);
        let never_stood = standings.accuse(None, PeerId::random(), None, [10, 0, 0, 1].into());
        assert!(never_stood.shared, "two innocent ones stand there");
    }
}
