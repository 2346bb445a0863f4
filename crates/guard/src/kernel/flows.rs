//! Flows and rows: whose packets pass, how many, and where they are counted. Validators' flows share a total by stake (`floor`).

mod floor;
mod shares;

use super::{
    clock::Clock,
    hosts::Hosts,
    tables::{TableError, Tables},
};
use crate::{
    Prefix,
    protocol::{ENDPOINTS_PER_ROW, Endpoint, FlowKind, Protocol, RowInfo},
    quantile::quantile_ns,
    reader::Maps,
};
use kernel_shared::{
    abi::{FLOWS_MAX, Flow4, Flow6, FlowClass, FlowValue, ROW_NONE, ROWS_MAX},
    bucket::UNITS,
    control::Limit,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use shares::{PARTS, Stake};

/// How long a dialing flow passes, ms.
pub const DIALING_MS: u64 = 10_000;
/// Dialing flows at one time.
pub const DIALING_MAX: usize = 256;
/// Addresses that one validator's floor flows may come from.
pub const FLOOR_ADDRESSES_MAX: usize = 2;

/// A class's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Packets a second.
    pub rate: u32,
    /// Packets at once.
    pub burst: u32,
}

/// Budgets per class: each far above what an honest peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Floor flows of an operator's ranges: they are no validators', so no share is theirs.
    pub floor: Budget,
    /// Known flows.
    pub known: Budget,
    /// Dialing flows.
    pub dialing: Budget,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            floor: Budget { rate: 200_000, burst: 100_000 },
            known: Budget { rate: 50_000, burst: 50_000 },
            dialing: Budget { rate: 2_000, burst: 2_000 },
        }
    }
}

/// A flow's name. IPv4-mapped addresses are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

impl FlowKey {
    /// A key, its address in canonical form.
    pub fn new(protocol: Protocol, address: IpAddr, port: u16) -> FlowKey {
        FlowKey { protocol, address: Prefix::host(address).address(), port }
    }

    /// The remote address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }
}

/// A flow to announce.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// Its name.
    pub key: FlowKey,
    /// Its class.
    pub class: FlowKind,
    /// The peer: flows with the same label share a row.
    pub label: &'a str,
    /// A validator's stake; none: no validator's.
    pub stake: Option<Stake>,
    /// The tick now.
    pub now: u64,
    /// The address lies in an operator's floor range: the limit of addresses is not for it.
    pub in_floor_range: bool,
}

struct Flow {
    class: FlowKind,
    label: String,
    row: u32,
    /// Last tick; `u64::MAX` = until withdrawn.
    expiry: u64,
    /// A validator's; see [`Announcement`].
    stake: Option<Stake>,
    /// What its record says.
    limit: Limit,
}

struct Row {
    label: String,
    generation: u32,
    flows: u32,
}

/// Why a flow can't be announced.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A map.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Too many dialing flows.
    #[error("{DIALING_MAX} flows are being dialed already")]
    Dialing,
    /// A validator with too many addresses.
    #[error("floor flows of '{0}' come from {FLOOR_ADDRESSES_MAX} addresses already")]
    FloorAddresses(String),
}

/// All flows announced.
#[derive(Default)]
pub struct Flows {
    flows: BTreeMap<FlowKey, Flow>,
    rows: BTreeMap<u32, Row>,
    by_label: BTreeMap<String, u32>,
    hosts: Hosts,
    /// Highest generation ever given out: a row's next owner gets a higher one.
    generation: u32,
}

fn wire4(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(v4) => Some(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(_) => None,
    }
}

fn key4(key: &FlowKey, address: u32) -> Flow4 {
    Flow4::new(address, key.port, key.protocol.number())
}

fn key6(key: &FlowKey) -> Flow6 {
    let bits = Prefix::host(key.address).bits();
    let address = [((bits >> 64) as u64).to_be(), (bits as u64).to_be()];
    Flow6::new(address, key.port, key.protocol.number())
}

/// A class's limit; a validator's flow gets its share in its place.
fn class_limit(clock: &Clock, budgets: &Budgets, class: FlowKind) -> Limit {
    let budget = match class {
        FlowKind::Floor => budgets.floor,
        FlowKind::Known => budgets.known,
        FlowKind::Dialing => budgets.dialing,
        FlowKind::Dialed => return Limit::NONE,
    };
    Limit::new(clock.rate(budget.rate), budget.burst.saturating_mul(UNITS as u32))
}

fn read(tables: &Tables, key: &FlowKey) -> Result<Option<FlowValue>, TableError> {
    match wire4(key.address) {
        Some(address) => tables.flows4.get(&key4(key, address)),
        None => tables.flows6.get(&key6(key)),
    }
}

fn write(tables: &Tables, key: &FlowKey, value: &FlowValue) -> Result<(), TableError> {
    match wire4(key.address) {
        Some(address) => tables.flows4.set(&key4(key, address), value, FLOWS_MAX as usize),
        None => tables.flows6.set(&key6(key), value, FLOWS_MAX as usize),
    }
}

const fn class_of(kind: FlowKind) -> FlowClass {
    match kind {
        FlowKind::Floor => FlowClass::Floor,
        FlowKind::Known => FlowClass::Known,
        FlowKind::Dialing => FlowClass::Dialing,
        FlowKind::Dialed => FlowClass::Dialed,
    }
}

const KINDS: [FlowKind; 4] = [FlowKind::Floor, FlowKind::Known, FlowKind::Dialing, FlowKind::Dialed];

impl Flows {
    /// Reads the kernel's tables back after a restart. Labels are gone until the node announces its flows again.
    pub fn adopt(tables: &Tables, counters: &Maps) -> Result<Flows, TableError> {
        let mut flows = Flows { generation: counters.generation_max(), hosts: Hosts::adopt(tables)?, ..Flows::default() };
        for key in tables.flows4.keys::<Flow4>(FLOWS_MAX as usize)? {
            let value = tables.flows4.get::<_, FlowValue>(&key)?;
            let address = std::net::Ipv4Addr::from(u32::from_be(key.address)).into();
            flows.take_over(key.protocol(), address, key.port(), value);
        }
        for key in tables.flows6.keys::<Flow6>(FLOWS_MAX as usize)? {
            let value = tables.flows6.get::<_, FlowValue>(&key)?;
            let bits = (u64::from_be(key.address[0]) as u128) << 64 | u64::from_be(key.address[1]) as u128;
            flows.take_over(key.protocol(), std::net::Ipv6Addr::from(bits).into(), key.port(), value);
        }
        flows.hosts.write_bits(tables);
        Ok(flows)
    }

    fn take_over(&mut self, protocol: u8, address: IpAddr, port: u16, value: Option<FlowValue>) {
        let (Some(protocol), Some(value)) = (Protocol::from_number(protocol), value) else { return };
        let class = match FlowClass::from_u32(value.class) {
            FlowClass::Floor => FlowKind::Floor,
            FlowClass::Known => FlowKind::Known,
            FlowClass::Dialing => FlowKind::Dialing,
            FlowClass::Dialed => FlowKind::Dialed,
        };
        self.generation = self.generation.max(value.generation);
        if value.row != ROW_NONE {
            let row = Row { label: String::new(), generation: value.generation, flows: 0 };
            self.rows.entry(value.row).or_insert(row).flows += 1;
        }
        let expiry = if class == FlowKind::Dialed { u64::MAX } else { value.expiry.load() };
        let (stake, limit) = (Stake::from_word(value.stake), Limit::new(value.rate, value.burst));
        let flow = Flow { class, label: String::new(), row: value.row, expiry, stake, limit };
        self.hosts.count_flow(address, flow.is_floor());
        self.flows.insert(FlowKey::new(protocol, address, port), flow);
    }

    /// Flows announced.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// How many flows there are of each class.
    pub fn by_class(&self) -> Vec<(FlowClass, u64)> {
        let count = |kind| self.flows.values().filter(|flow| flow.class == kind).count() as u64;
        KINDS.into_iter().map(|kind| (class_of(kind), count(kind))).collect()
    }

    /// Whether no flow is announced.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The first floor flow whose address lies in the prefix, as its label.
    pub fn floor_in(&self, prefix: &Prefix) -> Option<(IpAddr, &str)> {
        let floor = self.flows.iter().filter(|(_, flow)| flow.is_floor());
        floor.map(|(key, flow)| (key.address, flow.label.as_str())).find(|(address, _)| prefix.contains(*address))
    }

    /// Announces a flow; its row and generation. All rows taken: the flow works without a row. Announced again, it keeps its
    /// tokens. Dialing an address and port whose flow is established changes nothing: over QUIC a peer is dialed where it is
    /// connected from.
    pub fn add(
        &mut self,
        tables: &Tables,
        clock: &Clock,
        budgets: &Budgets,
        announcement: Announcement<'_>,
    ) -> Result<(Option<u32>, u32), FlowError> {
        let Announcement { key, class, label, stake, now, in_floor_range } = announcement;
        if class == FlowKind::Dialing
            && let Some(established) = self.flows.get(&key).filter(|flow| flow.class != FlowKind::Dialing)
        {
            return Ok(self.rows.get(&established.row).map_or((None, 0), |row| (Some(established.row), row.generation)));
        }
        if !in_floor_range || class == FlowKind::Dialing {
            self.check_limits(&key, class, stake, label)?;
        }
        let expiry = if class == FlowKind::Dialing { now.saturating_add(clock.ticks(DIALING_MS)) } else { u64::MAX };
        let (row, generation) = self.row(&key, label);
        let limit = class_limit(clock, budgets, class);
        let flow = Flow { class, label: label.to_string(), row, expiry, stake, limit };
        let (floor, sharing) = (flow.is_floor(), flow.sharing().is_some());
        let old = self.flows.insert(key, flow);
        if let Err(error) = self.enter(tables, &key, generation, old.as_ref(), now) {
            match old {
                Some(old) => self.flows.insert(key, old),
                None => self.flows.remove(&key),
            };
            self.release_if_unused(row);
            return Err(error.into());
        }
        if let Some(row) = self.rows.get_mut(&row) {
            row.flows += 1;
        }
        let shared = old.as_ref().is_some_and(|old| old.sharing().is_some());
        if let Some(old) = old {
            self.leave_row(old.row);
            self.hosts.flow_removed(tables, key.address, old.is_floor());
        }
        self.hosts.flow_added(tables, key.address, floor)?;
        if sharing || shared {
            self.rebalance(tables)?;
        }
        Ok(((row != ROW_NONE).then_some(row), generation))
    }

    /// Writes the record of a flow that was just inserted, whose stake is its validator's now. An error changes no other flow.
    fn enter(&mut self, tables: &Tables, key: &FlowKey, generation: u32, old: Option<&Flow>, now: u64) -> Result<(), TableError> {
        let before = self.set_stake(key);
        let written = self.write_new(tables, key, generation, old, now);
        if written.is_err() {
            self.reset_stakes(before);
        }
        written
    }

    fn write_new(
        &mut self,
        tables: &Tables,
        key: &FlowKey,
        generation: u32,
        old: Option<&Flow>,
        now: u64,
    ) -> Result<(), TableError> {
        let Some(flow) = self.flows.get(key) else { return Ok(()) };
        let limit = match flow.sharing() {
            Some(_) => self.limits(tables)?.get(key).copied().unwrap_or(flow.limit),
            None => flow.limit,
        };
        let Some(flow) = self.flows.get_mut(key) else { return Ok(()) };
        flow.limit = limit;
        // The filter takes no packet for one of a connection that we dialed ourselves: those come in on a port that is not protected.
        let expiry = if flow.class == FlowKind::Dialed { 0 } else { flow.expiry };
        let value = FlowValue::new(class_of(flow.class), flow.row, generation, limit.rate(), limit.burst(), expiry, now);
        let mut value = value.with_stake(Stake::word(flow.stake));
        if old.is_some_and(|old| old.class == flow.class)
            && let Some(present) = read(tables, key)?
        {
            value.bucket = present.bucket;
        }
        write(tables, key, &value)
    }

    fn check_limits(&self, key: &FlowKey, class: FlowKind, stake: Option<Stake>, label: &str) -> Result<(), FlowError> {
        let others = || self.flows.iter().filter(|(other, _)| *other != key);
        match class {
            FlowKind::Known => Ok(()),
            FlowKind::Dialed if stake.is_none() => Ok(()),
            FlowKind::Dialing if others().filter(|(_, flow)| flow.class == FlowKind::Dialing).count() >= DIALING_MAX => {
                Err(FlowError::Dialing)
            }
            FlowKind::Dialing => Ok(()),
            FlowKind::Floor | FlowKind::Dialed => {
                let same = others().filter(|(_, flow)| flow.is_floor() && flow.label == label && !label.is_empty());
                let mut addresses: BTreeSet<IpAddr> = same.map(|(other, _)| other.address).collect();
                addresses.insert(key.address);
                if addresses.len() > FLOOR_ADDRESSES_MAX { Err(FlowError::FloorAddresses(label.to_string())) } else { Ok(()) }
            }
        }
    }

    /// Withdraws a flow; false if there was none.
    pub fn remove(&mut self, tables: &Tables, key: &FlowKey) -> Result<bool, TableError> {
        let removed = self.take_out(tables, key)?;
        self.rebalance(tables)?;
        Ok(removed)
    }

    /// Withdraws a flow; the shares of others stay as they are.
    fn take_out(&mut self, tables: &Tables, key: &FlowKey) -> Result<bool, TableError> {
        if !self.flows.contains_key(key) {
            return Ok(false);
        }
        match wire4(key.address) {
            Some(address) => tables.flows4.delete(&key4(key, address))?,
            None => tables.flows6.delete(&key6(key))?,
        };
        if let Some(flow) = self.flows.remove(key) {
            self.leave_row(flow.row);
            self.hosts.flow_removed(tables, key.address, flow.is_floor());
        }
        Ok(true)
    }

    /// Withdraws all flows of a prefix that is banned; how many. Its validators' addresses are strangers' from now on.
    pub fn remove_in(&mut self, tables: &Tables, prefix: &Prefix) -> Result<u32, TableError> {
        let keys: Vec<FlowKey> = self.flows.keys().filter(|key| prefix.contains(key.address)).copied().collect();
        self.take_all_out(tables, &keys)?;
        self.hosts.forget_in(tables, prefix)?;
        Ok(keys.len() as u32)
    }

    /// Withdraws all flows.
    pub fn clear(&mut self, tables: &Tables) -> Result<(), TableError> {
        let keys: Vec<FlowKey> = self.flows.keys().copied().collect();
        self.take_all_out(tables, &keys)
    }

    fn take_all_out(&mut self, tables: &Tables, keys: &[FlowKey]) -> Result<(), TableError> {
        keys.iter().try_for_each(|key| self.take_out(tables, key).map(drop))?;
        if keys.is_empty() { Ok(()) } else { self.rebalance(tables) }
    }

    /// Removes what has expired.
    pub fn expire(&mut self, tables: &Tables, clock: &Clock, now: u64) -> Result<(), TableError> {
        let expired: Vec<FlowKey> = self.flows.iter().filter(|(_, flow)| flow.expiry < now).map(|(key, _)| *key).collect();
        self.take_all_out(tables, &expired)?;
        self.hosts.expire(tables, clock, now)
    }

    /// Rows with an owner, with their counters: from this row on, at most `max`.
    pub fn list(&self, counters: &Maps, from: u32, max: usize) -> Vec<RowInfo> {
        let mut endpoints: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
        for (key, flow) in self.flows.iter().filter(|(_, flow)| flow.row != ROW_NONE && flow.row >= from) {
            let FlowKey { protocol, address, port } = *key;
            let of_row = endpoints.entry(flow.row).or_default();
            if of_row.len() < ENDPOINTS_PER_ROW {
                of_row.push(Endpoint { protocol, address, port, class: flow.class });
            }
        }
        let info = |(index, row): (&u32, &Row)| {
            let count = counters.row(*index, row.generation);
            let latency = counters.row_latency(*index, row.generation);
            RowInfo {
                row: *index,
                generation: row.generation,
                label: row.label.clone(),
                flows: row.flows,
                packets: count.packets,
                bytes: count.bytes,
                dropped: count.dropped,
                would_drop: count.would_drop,
                latency_p50_ns: quantile_ns(&latency, 50),
                latency_p99_ns: quantile_ns(&latency, 99),
                latency,
                endpoints: endpoints.remove(index).unwrap_or_default(),
                tcp: counters.truth(*index, row.generation),
            }
        };
        self.rows.range(from..).take(max).map(info).collect()
    }

    /// The busiest rows with their latencies, by packets passed, at most `max`: (row, its buckets as [`RowInfo::latency`] has them).
    pub fn busiest(&self, counters: &Maps, max: usize) -> Vec<(u32, Vec<u64>)> {
        let packets = |(index, row): (&u32, &Row)| (counters.row(*index, row.generation).packets, *index, row.generation);
        let mut rows: Vec<_> = self.rows.iter().map(packets).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        rows.truncate(max);
        rows.sort_unstable_by_key(|(_, index, _)| *index);
        rows.into_iter().map(|(_, index, generation)| (index, counters.row_latency(index, generation))).collect()
    }

    /// The row of a label: the one it has, else the one that its flow had before a restart, else a free one, else one that nobody
    /// uses any more, else none. Without a label there is no row.
    fn row(&mut self, key: &FlowKey, label: &str) -> (u32, u32) {
        if label.is_empty() {
            return (ROW_NONE, 0);
        }
        if let Some(row) = self.by_label.get(label)
            && let Some(owner) = self.rows.get(row)
        {
            return (*row, owner.generation);
        }
        if let Some(row) = self.flows.get(key).map(|flow| flow.row)
            && let Some(owner) = self.rows.get_mut(&row)
            && owner.label.is_empty()
        {
            owner.label = label.to_string();
            self.by_label.insert(label.to_string(), row);
            return (row, owner.generation);
        }
        let free = (0..ROWS_MAX).find(|row| !self.rows.contains_key(row));
        let abandoned = || self.rows.iter().find(|(_, owner)| owner.flows == 0).map(|(row, _)| *row);
        let Some(row) = free.or_else(abandoned) else { return (ROW_NONE, 0) };
        if let Some(old) = self.rows.remove(&row) {
            self.by_label.remove(&old.label);
        }
        self.generation = self.generation.saturating_add(1);
        self.rows.insert(row, Row { label: label.to_string(), generation: self.generation, flows: 0 });
        self.by_label.insert(label.to_string(), row);
        (row, self.generation)
    }

    /// A flow leaves its row. The row keeps its owner and counts until another one needs it: a peer that reconnects goes on counting.
    fn leave_row(&mut self, row: u32) {
        if let Some(owner) = self.rows.get_mut(&row) {
            owner.flows = owner.flows.saturating_sub(1);
        }
        if self.rows.get(&row).is_some_and(|owner| owner.flows == 0 && owner.label.is_empty()) {
            self.rows.remove(&row);
        }
    }

    fn release_if_unused(&mut self, row: u32) {
        if self.rows.get(&row).is_some_and(|owner| owner.flows == 0)
            && let Some(owner) = self.rows.remove(&row)
        {
            self.by_label.remove(&owner.label);
        }
    }
}
