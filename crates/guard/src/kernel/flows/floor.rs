//! Validators' flows: which belong to one validator, and what limit each has.
//!
//! A limit lies in the flow's own record, so the filter reads nothing more for it. When validators come, go, or change their stake, the
//! limits of the others may change: their records are written again, with the tokens that they have.

use super::{
    Flow, FlowKey, Flows,
    shares::{self, Stake},
};
use crate::kernel::{
    clock::Clock,
    tables::{TableError, Tables},
};
use crate::protocol::{FlowInfo, FlowKind, SharesInfo};
use kernel_shared::{
    abi::{FlowValue, ROW_NONE},
    bucket::UNITS,
    control::Limit,
    strangers::Budget,
};
use std::{collections::BTreeMap, net::IpAddr};

/// A limit that no sender reaches.
const UNLIMITED: Limit = Limit::new(u32::MAX, u32::MAX);

/// A validator, as the guard tells it from others: by its row, else by its label, else (before the node has announced its flows to a
/// restarted guard) by its address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner<'a> {
    Row(u32),
    Label(&'a str),
    Address(IpAddr),
}

impl Flow {
    /// Whose it is.
    pub(super) fn owner(&self, key: &FlowKey) -> Owner<'_> {
        match (self.row, self.label.as_str()) {
            (ROW_NONE, "") => Owner::Address(key.address),
            (ROW_NONE, label) => Owner::Label(label),
            (row, _) => Owner::Row(row),
        }
    }

    /// Whether its address is a validator's, or an operator's: bans can't reach it, and it has budgets of its own.
    pub(super) fn is_floor(&self) -> bool {
        self.class == FlowKind::Floor || (self.class == FlowKind::Dialed && self.stake.is_some())
    }

    /// The stake that its limit is by.
    pub(super) fn sharing(&self) -> Option<Stake> {
        self.stake.filter(|_| self.class == FlowKind::Floor)
    }
}

/// Packets a second of so many units a tick.
fn packets(clock: &Clock, units: u64) -> u32 {
    clock.packets_per_second(units.min(u32::MAX.into()) as u32)
}

/// A validator's stake and flows.
type Validator = (Stake, Vec<FlowKey>);

/// Stakes of flows.
type Stakes = Vec<(FlowKey, Option<Stake>)>;

impl Flows {
    fn validators(&self) -> BTreeMap<Owner<'_>, Validator> {
        let mut validators: BTreeMap<Owner<'_>, Validator> = BTreeMap::new();
        for (key, flow) in &self.flows {
            if let Some(stake) = flow.sharing() {
                validators.entry(flow.owner(key)).or_insert((stake, Vec::new())).1.push(*key);
            }
        }
        validators
    }

    /// The limits that validators' flows must have.
    pub(super) fn limits(&self, tables: &Tables) -> Result<BTreeMap<FlowKey, Limit>, TableError> {
        let limit = |budget: Budget| Ok::<_, TableError>(Limit::from_word(tables.control(budget.word())?));
        Ok(self.divide(limit(Budget::Validators)?, limit(Budget::ValidatorLeast)?))
    }

    fn divide(&self, total: Limit, least: Limit) -> BTreeMap<FlowKey, Limit> {
        let validators = self.validators();
        if total.burst() == 0 {
            return validators.into_values().flat_map(|(_, keys)| keys).map(|key| (key, UNLIMITED)).collect();
        }
        let stakes: Vec<Stake> = validators.values().map(|(stake, _)| *stake).collect();
        let rates = shares::divide(total.rate().into(), least.rate().into(), &stakes);
        let bursts = shares::divide(total.burst().into(), least.burst().into(), &stakes);
        let mut limits = BTreeMap::new();
        for ((_, keys), (rate, burst)) in validators.into_values().zip(rates.into_iter().zip(bursts)) {
            let flows = keys.len() as u64;
            for (index, key) in (0..).zip(keys) {
                // A flow that could never send a packet would be a ban: one unit a tick and one packet at once are the least of all.
                let of = |share, least: u64| shares::part(share, flows, index).clamp(least, u32::MAX.into()) as u32;
                limits.insert(key, Limit::new(of(rate, 1), of(burst, UNITS)));
            }
        }
        limits
    }

    /// Writes the limits that have changed; each flow keeps the tokens that it has.
    pub fn rebalance(&mut self, tables: &Tables) -> Result<(), TableError> {
        for (key, limit) in self.limits(tables)? {
            let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.limit != limit) else { continue };
            if let Some(value) = super::read(tables, &key)? {
                super::write(tables, &key, &FlowValue { rate: limit.rate(), burst: limit.burst(), ..value })?;
                flow.limit = limit;
            }
        }
        Ok(())
    }

    /// All flows of a validator have its newest stake. Those whose stake has changed, with the one before.
    pub(super) fn set_stake(&mut self, key: &FlowKey) -> Stakes {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.stake.is_some()) else { return Stakes::new() };
        let (stake, row, label) = (flow.stake, flow.row, flow.label.clone());
        let owner = |flow: &Flow| flow.row == row && flow.label == label && !label.is_empty();
        let differs = |flow: &Flow| flow.stake.is_some() && flow.stake != stake && owner(flow);
        let others = self.flows.iter_mut().filter(|(_, flow)| differs(flow));
        others.map(|(key, flow)| (*key, std::mem::replace(&mut flow.stake, stake))).collect()
    }

    /// Takes back what [`Flows::set_stake`] has changed.
    pub(super) fn reset_stakes(&mut self, before: Stakes) {
        for (key, stake) in before {
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.stake = stake;
            }
        }
    }

    /// What validators are guaranteed.
    pub fn shares(&self, clock: &Clock) -> SharesInfo {
        let rates: Vec<Option<u64>> = self.validators().into_values().map(|(_, keys)| self.rate_of(&keys)).collect();
        let least = if rates.is_empty() { Some(0) } else { rates.iter().flatten().min().copied() };
        SharesInfo {
            validators: rates.len() as u64,
            rate: rates.iter().copied().sum::<Option<u64>>().map(|units| packets(clock, units)),
            least: least.map(|units| packets(clock, units)),
        }
    }

    /// What these flows may send together, units a tick; `None`: without limit.
    fn rate_of(&self, keys: &[FlowKey]) -> Option<u64> {
        let limits = keys.iter().filter_map(|key| self.flows.get(key)).map(|flow| flow.limit);
        limits.map(|limit| (limit != UNLIMITED).then(|| u64::from(limit.rate()))).sum()
    }

    /// Flows in the order of their keys: at most `count` after the first `skip`.
    pub fn page(&self, clock: &Clock, skip: usize, count: usize) -> Vec<FlowInfo> {
        let shares: BTreeMap<Owner<'_>, Option<u64>> =
            self.validators().into_iter().map(|(owner, (_, keys))| (owner, self.rate_of(&keys))).collect();
        let info = |(key, flow): (&FlowKey, &Flow)| {
            let limited = flow.class != FlowKind::Dialed && flow.limit != UNLIMITED;
            let share = flow.sharing().and_then(|_| shares.get(&flow.owner(key)).copied().flatten());
            FlowInfo {
                protocol: key.protocol,
                address: key.address,
                port: key.port,
                class: flow.class,
                label: flow.label.clone(),
                row: (flow.row != ROW_NONE).then_some(flow.row),
                stake_ppm: flow.stake.and_then(Stake::parts),
                share: share.map(|units| packets(clock, units)),
                rate: limited.then(|| packets(clock, flow.limit.rate().into())),
                burst: limited.then_some(flow.limit.burst() / UNITS as u32),
            }
        };
        self.flows.iter().skip(skip).take(count).map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn flow(class: FlowKind, row: u32, label: &str, stake: Option<Stake>) -> Flow {
        Flow { class, label: label.into(), row, expiry: u64::MAX, stake, limit: Limit::NONE }
    }

    /// Last octet, port, class, row, label, stake.
    type Told = (u8, u16, FlowKind, u32, &'static str, Option<Stake>);

    fn flows(list: &[Told]) -> Flows {
        let mut flows = Flows::default();
        for (host, port, class, row, label, stake) in list {
            let key = FlowKey::new(Protocol::Tcp, [10, 0, 0, *host].into(), *port);
            flows.flows.insert(key, flow(*class, *row, label, *stake));
        }
        flows
    }

    fn limits(flows: &Flows, total: Limit, least: Limit) -> Vec<(u8, u16, u32, u32)> {
        let row = |(key, limit): (FlowKey, Limit)| {
            let IpAddr::V4(address) = key.address else { panic!("{}", key.address) };
            (address.octets()[3], key.port, limit.rate(), limit.burst() / UNITS as u32)
        };
        flows.divide(total, least).into_iter().map(row).collect()
    }

    #[test]
    fn a_validators_flows_share_what_is_its_own() {
        use FlowKind::{Dialed, Floor, Known};
        let stake = |parts| Some(Stake::Parts(parts));
        let flows = flows(&[
            (1, 1, Floor, 1, "a", stake(250_000)),
            (1, 2, Floor, 1, "a", stake(250_000)),
            (2, 1, Floor, 2, "b", stake(750_000)),
            (3, 1, Floor, 3, "operator", None),
            (4, 1, Known, 4, "peer", None),
            (5, 1, Dialed, 5, "c", stake(1)),
        ]);
        let units = |packets: u32| packets * UNITS as u32;
        let expect = [(1, 1, 500, 50), (1, 2, 500, 50), (2, 1, 3000, 300)];
        assert_eq!(limits(&flows, Limit::new(4000, units(400)), Limit::NONE), expect);
        // Without a total there is no limit.
        assert!(flows.divide(Limit::NONE, Limit::NONE).values().all(|limit| *limit == UNLIMITED));
    }

    #[test]
    fn what_is_not_limited_has_no_rate() {
        let mut flows = flows(&[(1, 1, FlowKind::Floor, 1, "a", Some(Stake::Unknown)), (1, 2, FlowKind::Floor, 1, "a", None)]);
        let keys: Vec<FlowKey> = flows.flows.keys().copied().collect();
        let mut rate = |limit: Limit| {
            flows.flows.values_mut().for_each(|flow| flow.limit = limit);
            flows.rate_of(&keys)
        };
        assert_eq!((rate(Limit::new(3, 4)), rate(UNLIMITED)), (Some(6), None));
    }

    #[test]
    fn a_new_stake_is_all_flows_and_can_be_taken_back() {
        let stake = |parts| Some(Stake::Parts(parts));
        let floor = FlowKind::Floor;
        let mut flows = flows(&[
            (1, 1, floor, 1, "a", stake(1)),
            (1, 2, floor, 1, "a", stake(2)),
            (1, 3, floor, 1, "a", None),
            (2, 1, floor, 2, "b", stake(1)),
        ]);
        let stakes = |flows: &Flows| flows.flows.values().map(|flow| flow.stake).collect::<Vec<_>>();
        let had = stakes(&flows);
        let before = flows.set_stake(&FlowKey::new(Protocol::Tcp, [10, 0, 0, 1].into(), 2));
        assert_eq!(stakes(&flows), [stake(2), stake(2), None, stake(1)]);
        flows.reset_stakes(before);
        assert_eq!(stakes(&flows), had);
    }

    #[test]
    fn without_row_or_label_an_address_is_a_validator() {
        let unknown = Some(Stake::Unknown);
        let floor = FlowKind::Floor;
        let flows = flows(&[
            (1, 1, floor, ROW_NONE, "", unknown),
            (1, 2, floor, ROW_NONE, "", unknown),
            (2, 1, floor, ROW_NONE, "b", unknown),
            (3, 1, floor, ROW_NONE, "b", unknown),
        ]);
        let expect = [(1, 1, 1000, 1), (1, 2, 1000, 1), (2, 1, 1000, 1), (3, 1, 1000, 1)];
        assert_eq!(limits(&flows, Limit::new(4000, 1), Limit::NONE), expect);
    }
}
