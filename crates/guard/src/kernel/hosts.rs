//! Hosts: which addresses have flows, and which are validators' and have budgets of their own outside their flows.
//!
//! In front of both stands one bitmap. Order of writing as with bans: entry before bit on the way in, entry before bit on the way
//! out, so a set bit without an entry costs a look-up and nothing else.
//!
//! A validator's address is remembered for [`MEMORY_MS`] after its last floor flow has gone: one that restarts gets in during a flood.

use super::{
    clock::Clock,
    tables::{TableError, Tables},
};
use crate::Prefix;
use kernel_shared::{
    abi::{VALIDATORS_MAX, ValidatorValue},
    ban::{Bit, host4, host6},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// How long a validator's address keeps its budgets after its last floor flow, ms: a day.
pub const MEMORY_MS: u64 = 24 * 3600 * 1000;

/// An expiry that never comes.
const NEVER: u64 = u64::MAX;

struct Validator {
    /// Floor flows now.
    flows: u32,
    /// Last tick; [`NEVER`] while it has flows.
    expiry: u64,
}

/// All hosts that have something.
#[derive(Default)]
pub struct Hosts {
    /// How many flows and validators want each bit, by (word, bit).
    bits: HashMap<(u32, u64), u32>,
    validators: BTreeMap<IpAddr, Validator>,
}

/// An address's key: IPv4 as one word, IPv6 as two, in the order of the wire.
enum Key {
    V4(u32),
    V6([u64; 2]),
}

fn key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => Key::V4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            Key::V6([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
        }
    }
}

fn bit(address: IpAddr) -> Bit {
    match key(address) {
        Key::V4(address) => host4(address),
        Key::V6(address) => host6(address),
    }
}

impl Hosts {
    /// Reads the validators back after a restart. Their flows are counted again as they are taken over.
    pub fn adopt(tables: &Tables) -> Result<Hosts, TableError> {
        let mut hosts = Hosts::default();
        let max = VALIDATORS_MAX as usize;
        for address in tables.validators4.keys::<u32>(max)? {
            if let Some(value) = tables.validators4.get::<_, ValidatorValue>(&address)? {
                hosts.take_over(std::net::Ipv4Addr::from(u32::from_be(address)).into(), &value);
            }
        }
        for address in tables.validators6.keys::<[u64; 2]>(max)? {
            if let Some(value) = tables.validators6.get::<_, ValidatorValue>(&address)? {
                let bits = (u64::from_be(address[0]) as u128) << 64 | u64::from_be(address[1]) as u128;
                hosts.take_over(std::net::Ipv6Addr::from(bits).into(), &value);
            }
        }
        Ok(hosts)
    }

    fn take_over(&mut self, address: IpAddr, value: &ValidatorValue) {
        self.validators.insert(address, Validator { flows: 0, expiry: value.expiry.load() });
        self.count(address);
    }

    /// Counts a flow that an adopted table holds already.
    pub fn count_flow(&mut self, address: IpAddr, floor: bool) {
        self.count(address);
        if floor && let Some(validator) = self.validators.get_mut(&address) {
            validator.flows += 1;
        }
    }

    /// Makes the bitmap fit, once everything adopted is counted.
    pub fn write_bits(&self, tables: &Tables) {
        let mut words: HashMap<u32, u64> = HashMap::new();
        self.bits.keys().for_each(|(word, mask)| *words.entry(*word).or_default() |= mask);
        tables.hosts.retain(|word| words.get(&word).copied().unwrap_or(0));
        self.bits.keys().for_each(|(word, mask)| tables.hosts.write(*word, *mask, true));
    }

    fn count(&mut self, address: IpAddr) {
        let Bit { word, mask } = bit(address);
        *self.bits.entry((word, mask)).or_default() += 1;
    }

    fn want(&mut self, tables: &Tables, address: IpAddr) {
        self.count(address);
        let Bit { word, mask } = bit(address);
        tables.hosts.write(word, mask, true);
    }

    fn leave(&mut self, tables: &Tables, address: IpAddr) {
        let Bit { word, mask } = bit(address);
        if let Some(count) = self.bits.get_mut(&(word, mask)) {
            *count -= 1;
            if *count == 0 {
                self.bits.remove(&(word, mask));
                tables.hosts.write(word, mask, false);
            }
        }
    }

    /// A flow was written. A floor flow makes its address a validator's.
    pub fn flow_added(&mut self, tables: &Tables, address: IpAddr, floor: bool) -> Result<(), TableError> {
        self.want(tables, address);
        if !floor {
            return Ok(());
        }
        match self.validators.get_mut(&address) {
            Some(validator) => {
                validator.flows += 1;
                if validator.expiry != NEVER {
                    validator.expiry = NEVER;
                    write(tables, address, NEVER)?;
                }
            }
            None => match write(tables, address, NEVER) {
                // A full table costs this address its own budgets, not its flow.
                Err(TableError::Full { map, max }) => tracing::warn!(%address, map, max, "no room for a validator's address"),
                written => {
                    written?;
                    self.validators.insert(address, Validator { flows: 1, expiry: NEVER });
                    self.want(tables, address);
                }
            },
        }
        Ok(())
    }

    /// A flow was deleted.
    pub fn flow_removed(&mut self, tables: &Tables, address: IpAddr, floor: bool) {
        self.leave(tables, address);
        if floor && let Some(validator) = self.validators.get_mut(&address) {
            validator.flows = validator.flows.saturating_sub(1);
        }
    }

    /// Starts the last day of those without flows, and forgets those whose day is over.
    pub fn expire(&mut self, tables: &Tables, clock: &Clock, now: u64) -> Result<(), TableError> {
        for (address, validator) in self.validators.iter_mut().filter(|(_, validator)| validator.flows == 0) {
            if validator.expiry == NEVER {
                validator.expiry = now.saturating_add(clock.ticks(MEMORY_MS));
                write(tables, *address, validator.expiry)?;
            }
        }
        self.forget(tables, |_, validator| validator.expiry < now)
    }

    /// Forgets the validators of a prefix: it was banned.
    pub fn forget_in(&mut self, tables: &Tables, prefix: &Prefix) -> Result<(), TableError> {
        self.forget(tables, |address, _| prefix.contains(address))
    }

    fn forget(&mut self, tables: &Tables, which: impl Fn(IpAddr, &Validator) -> bool) -> Result<(), TableError> {
        let gone = self.validators.iter().filter(|(address, validator)| which(**address, validator));
        for address in gone.map(|(address, _)| *address).collect::<Vec<_>>() {
            match key(address) {
                Key::V4(key) => tables.validators4.delete(&key)?,
                Key::V6(key) => tables.validators6.delete(&key)?,
            };
            self.validators.remove(&address);
            self.leave(tables, address);
        }
        Ok(())
    }
}

fn write(tables: &Tables, address: IpAddr, expiry: u64) -> Result<(), TableError> {
    let (value, max) = (ValidatorValue::new(expiry), VALIDATORS_MAX as usize);
    match key(address) {
        Key::V4(key) => tables.validators4.set(&key, &value, max),
        Key::V6(key) => tables.validators6.set(&key, &value, max),
    }
}
