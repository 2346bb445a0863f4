//! The ban tables: exact bans, ranges, and the bitmaps in front of them, kept in step.
//!
//! The kernel's maps are the truth (an adopting guard reads them back); the records here hold what the kernel doesn't need.
//! Order of writing: entry before bit on the way in, entry before bit on the way out. A set bit without an entry costs a look-up;
//! a missing bit with an entry would be a ban that doesn't hold.

use super::{
    clock::{self, Clock},
    lists::compile::Bits,
    tables::{TableError, Tables},
};
use crate::{
    Prefix,
    protocol::{BanInfo, TEXT_BYTES_MAX},
};
use kernel_shared::{
    abi::{BANS_MAX, BanValue, RANGES_MAX, Range4, Range6},
    ban::{Bit, bit4, bit6},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
};
use types::Offence;

/// Widest IPv4 range: a wider one would set more than 65,536 bits.
pub const LENGTH4_MIN: u8 = 8;
/// Widest IPv6 range.
pub const LENGTH6_MIN: u8 = 32;

struct Record {
    offence: Offence,
    since_ms: u64,
    /// Last tick on which it holds.
    expiry: u64,
    note: String,
}

/// How many bans want each bit, by (word, bit).
type BitCounts = HashMap<(u32, u64), u32>;

/// All bans in force.
#[derive(Default)]
pub struct Bans {
    records: BTreeMap<Prefix, Record>,
    bits4: BitCounts,
    bits6: BitCounts,
    /// What the lists want in the same bitmaps.
    listed: Bits,
}

/// Where a prefix lives in the kernel.
enum Key {
    Exact4(u32),
    Exact6(u64),
    Range4(Range4),
    Range6(Range6),
}

fn key(prefix: &Prefix) -> Key {
    match (prefix.is_v6(), prefix.length()) {
        (false, 32) => Key::Exact4((prefix.bits() as u32).to_be()),
        (false, length) => Key::Range4(Range4 { length: length as u32, address: (prefix.bits() as u32).to_be() }),
        (true, 64) => Key::Exact6(((prefix.bits() >> 64) as u64).to_be()),
        (true, length) => Key::Range6(Range6 { length: length as u32, address: prefix.bits().to_be_bytes() }),
    }
}

/// The bits of a prefix: one, or one for each /24 (v4) or /48 (v6) in it.
fn bits(prefix: &Prefix) -> impl Iterator<Item = Bit> + use<> {
    let (v6, first, length) = (prefix.is_v6(), prefix.bits(), prefix.length() as u32);
    let count = 1u32 << if v6 { 48u32.saturating_sub(length) } else { 24u32.saturating_sub(length) };
    (0..count).map(move |index| match v6 {
        false => bit4(((first as u32).wrapping_add(index << 8)).to_be()),
        true => bit6([((first >> 64) as u64).wrapping_add((index as u64) << 16).to_be(), 0]),
    })
}

/// The words and masks of the bits `first` to `last` of a bitmap.
pub fn bits_of_interval(first: u32, last: u32, mut with: impl FnMut(u32, u64)) {
    for word in first >> 6..=last >> 6 {
        let from = if word == first >> 6 { first & 63 } else { 0 };
        let to = if word == last >> 6 { last & 63 } else { 63 };
        with(word, u64::MAX << from & u64::MAX >> (63 - to));
    }
}

impl Bans {
    /// Reads the kernel's tables back after a restart, and makes the bitmaps fit them.
    pub fn adopt(tables: &Tables, listed: Bits) -> Result<Bans, TableError> {
        let mut bans = Bans { listed: Bits::default(), ..Bans::default() };
        let record = |value: BanValue| Record {
            offence: u8::try_from(value.offence).ok().and_then(Offence::from_u8).unwrap_or(Offence::Manual),
            since_ms: value.since_ms,
            expiry: value.expiry.load(),
            note: String::new(),
        };
        let v4 = |address: u32, length| Prefix::new(Ipv4Addr::from(u32::from_be(address)).into(), length);
        let v6 = |bits: u128, length| Prefix::new(Ipv6Addr::from(bits).into(), length);
        let mut found = Vec::new();
        for address in tables.bans4.keys::<u32>(BANS_MAX as usize)? {
            found.push((v4(address, 32), tables.bans4.get(&address)?));
        }
        for network in tables.bans6.keys::<u64>(BANS_MAX as usize)? {
            found.push((v6((u64::from_be(network) as u128) << 64, 64), tables.bans6.get(&network)?));
        }
        for range in tables.ranges4.keys::<Range4>(RANGES_MAX as usize)? {
            found.push((v4(range.address, range.length as u8), tables.ranges4.get(&range)?));
        }
        for range in tables.ranges6.keys::<Range6>(RANGES_MAX as usize)? {
            found.push((v6(u128::from_be_bytes(range.address), range.length as u8), tables.ranges6.get(&range)?));
        }
        for (prefix, value) in found {
            if let (Ok(prefix), Some(value)) = (prefix, value) {
                bans.want_bits(tables, &prefix);
                bans.records.insert(prefix, record(value));
            }
        }
        bans.set_listed(tables, listed);
        Ok(bans)
    }

    /// Says what the lists want in the bitmaps: bits that neither they nor a ban want are cleared.
    pub fn set_listed(&mut self, tables: &Tables, listed: Bits) {
        let wanted = |counts: &BitCounts, listed: &[u64]| {
            let mut words = listed.to_vec();
            for (word, mask) in counts.keys() {
                if let Some(word) = words.get_mut(*word as usize) {
                    *word |= mask;
                }
            }
            words
        };
        let (words4, words6) = (wanted(&self.bits4, &listed.v4), wanted(&self.bits6, &listed.v6));
        tables.bits4.replace(|word| words4.get(word as usize).copied().unwrap_or(0));
        tables.bits6.replace(|word| words6.get(word as usize).copied().unwrap_or(0));
        self.listed = listed;
    }

    /// Bans in force.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many bans there are for each offence.
    pub fn by_offence(&self) -> Vec<(Offence, u64)> {
        let count = |offence| self.records.values().filter(|record| record.offence == offence).count() as u64;
        Offence::ALL.into_iter().map(|offence| (offence, count(offence))).collect()
    }

    /// Prefixes in force.
    pub fn prefixes(&self) -> impl Iterator<Item = &Prefix> {
        self.records.keys()
    }

    /// Bans a prefix until `expiry`, or changes the ban that it has. Its hits stay.
    pub fn insert(&mut self, tables: &Tables, prefix: Prefix, offence: Offence, expiry: u64, note: &str) -> Result<(), TableError> {
        let old = self.value(tables, &prefix)?;
        let known = self.records.get(&prefix);
        if known.is_none() && (matches!(key(&prefix), Key::Range4(_) | Key::Range6(_))) {
            // The tries grow on demand; this keeps the limit the same for both kinds.
            let ranges = self.records.keys().filter(|prefix| matches!(key(prefix), Key::Range4(_) | Key::Range6(_))).count();
            if ranges >= RANGES_MAX as usize {
                return Err(TableError::Full { map: "RANGES", max: RANGES_MAX as usize });
            }
        }
        let since_ms = known.map_or_else(clock::unix_ms, |record| record.since_ms);
        let value = BanValue::new(offence as u32, expiry, since_ms);
        value.hits.store(old.map_or(0, |old| old.hits.load()));
        match key(&prefix) {
            Key::Exact4(address) => tables.bans4.set(&address, &value, BANS_MAX as usize)?,
            Key::Exact6(network) => tables.bans6.set(&network, &value, BANS_MAX as usize)?,
            Key::Range4(range) => tables.ranges4.set(&range, &value, RANGES_MAX as usize)?,
            Key::Range6(range) => tables.ranges6.set(&range, &value, RANGES_MAX as usize)?,
        }
        if known.is_none() {
            self.want_bits(tables, &prefix);
        }
        let note: String = note.chars().take(TEXT_BYTES_MAX).collect();
        self.records.insert(prefix, Record { offence, since_ms, expiry, note });
        Ok(())
    }

    /// Bans again what was banned before a restart, with its beginning and its hits.
    pub fn restore(&mut self, tables: &Tables, saved: &BanInfo, expiry: u64) -> Result<(), TableError> {
        if too_wide(&saved.address).is_some() || saved.address != saved.address.widened() {
            return Ok(()); // no guard wrote this
        }
        self.insert(tables, saved.address, saved.offence, expiry, &saved.note)?;
        let value = BanValue::new(saved.offence as u32, expiry, saved.since_unix_ms);
        value.hits.store(saved.hits);
        match key(&saved.address) {
            Key::Exact4(address) => tables.bans4.set(&address, &value, BANS_MAX as usize)?,
            Key::Exact6(network) => tables.bans6.set(&network, &value, BANS_MAX as usize)?,
            Key::Range4(range) => tables.ranges4.set(&range, &value, RANGES_MAX as usize)?,
            Key::Range6(range) => tables.ranges6.set(&range, &value, RANGES_MAX as usize)?,
        }
        if let Some(record) = self.records.get_mut(&saved.address) {
            record.since_ms = saved.since_unix_ms;
        }
        Ok(())
    }

    /// Gives a ban that was adopted its note back.
    pub fn set_note(&mut self, prefix: &Prefix, note: &str) {
        if let Some(record) = self.records.get_mut(prefix) {
            record.note = note.chars().take(TEXT_BYTES_MAX).collect();
        }
    }

    /// Ends a ban; false if there was none.
    pub fn remove(&mut self, tables: &Tables, prefix: &Prefix) -> Result<bool, TableError> {
        if !self.records.contains_key(prefix) {
            return Ok(false);
        }
        match key(prefix) {
            Key::Exact4(address) => tables.bans4.delete(&address)?,
            Key::Exact6(network) => tables.bans6.delete(&network)?,
            Key::Range4(range) => tables.ranges4.delete(&range)?,
            Key::Range6(range) => tables.ranges6.delete(&range)?,
        };
        self.records.remove(prefix);
        self.release_bits(tables, prefix);
        Ok(true)
    }

    /// Removes what has expired: the kernel ignores it already, this frees its place.
    pub fn expire(&mut self, tables: &Tables, now: u64) -> Result<Vec<Prefix>, TableError> {
        let expired: Vec<Prefix> =
            self.records.iter().filter(|(_, record)| record.expiry < now).map(|(prefix, _)| *prefix).collect();
        for prefix in &expired {
            self.remove(tables, prefix)?;
        }
        Ok(expired)
    }

    /// The last tick on which a prefix is banned, if it is.
    pub fn end(&self, prefix: &Prefix) -> Option<u64> {
        self.records.get(prefix).map(|record| record.expiry)
    }

    /// How many bans hold at this tick.
    pub fn in_force(&self, now: u64) -> usize {
        self.records.values().filter(|record| record.expiry >= now).count()
    }

    /// All bans, with their hits.
    pub fn list(&self, tables: &Tables, clock: &Clock, now: u64) -> Result<Vec<BanInfo>, TableError> {
        self.page(tables, clock, now, (0, usize::MAX))
    }

    /// A page of them, in the order of addresses: without the first `skip`, at most `max`.
    pub fn page(&self, tables: &Tables, clock: &Clock, now: u64, (skip, max): (usize, usize)) -> Result<Vec<BanInfo>, TableError> {
        let now_ms = clock::unix_ms();
        let in_force = self.records.iter().filter(|(_, record)| record.expiry >= now).skip(skip).take(max);
        let info = |(prefix, record): (&Prefix, &Record)| {
            Ok(BanInfo {
                address: *prefix,
                offence: record.offence,
                since_unix_ms: record.since_ms,
                until_unix_ms: now_ms + clock.ms(record.expiry - now),
                hits: self.value(tables, prefix)?.map_or(0, |value| value.hits.load()),
                note: record.note.clone(),
            })
        };
        in_force.map(info).collect()
    }

    fn value(&self, tables: &Tables, prefix: &Prefix) -> Result<Option<BanValue>, TableError> {
        // Tries can't be asked for an exact prefix, only for the longest match: what isn't ours to know isn't there.
        if !self.records.contains_key(prefix) {
            return Ok(None);
        }
        match key(prefix) {
            Key::Exact4(address) => tables.bans4.get(&address),
            Key::Exact6(network) => tables.bans6.get(&network),
            Key::Range4(range) => tables.ranges4.get(&range),
            Key::Range6(range) => tables.ranges6.get(&range),
        }
    }

    fn want_bits(&mut self, tables: &Tables, prefix: &Prefix) {
        let (counts, bitmap) = if prefix.is_v6() { (&mut self.bits6, &tables.bits6) } else { (&mut self.bits4, &tables.bits4) };
        for bit in bits(prefix) {
            *counts.entry((bit.word, bit.mask)).or_insert(0) += 1;
            bitmap.write(bit.word, bit.mask, true);
        }
    }

    fn release_bits(&mut self, tables: &Tables, prefix: &Prefix) {
        let (counts, bitmap, listed) = match prefix.is_v6() {
            true => (&mut self.bits6, &tables.bits6, &self.listed.v6),
            false => (&mut self.bits4, &tables.bits4, &self.listed.v4),
        };
        for bit in bits(prefix) {
            let by_list = listed.get(bit.word as usize).is_some_and(|word| word & bit.mask != 0);
            if let Some(count) = counts.get_mut(&(bit.word, bit.mask)) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&(bit.word, bit.mask));
                    bitmap.write(bit.word, bit.mask, by_list);
                }
            }
        }
    }
}

/// Why a prefix may not be banned at all, whoever asks.
pub fn too_wide(prefix: &Prefix) -> Option<String> {
    let min = if prefix.is_v6() { LENGTH6_MIN } else { LENGTH4_MIN };
    (prefix.length() < min).then(|| format!("{prefix} is too wide: /{min} is the widest range that can be banned"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every address of a banned range finds its bit set.
        #[test]
        fn a_range_sets_the_bit_of_each_of_its_addresses(address: u32, length in 12u8..=32, host: u32) {
            let prefix = Prefix::new(Ipv4Addr::from(address).into(), length).unwrap();
            let inside = prefix.bits() as u32 | (host & u32::MAX.checked_shr(length as u32).unwrap_or(0));
            prop_assert!(bits(&prefix).any(|bit| bit == bit4(inside.to_be())));
        }

        #[test]
        fn a_v6_range_too(address: u128, length in 36u8..=64, host: u128) {
            let prefix = Prefix::new(Ipv6Addr::from(address | 1 << 127).into(), length).unwrap();
            let inside = prefix.bits() | (host & u128::MAX >> length);
            let halves = [((inside >> 64) as u64).to_be(), (inside as u64).to_be()];
            prop_assert!(bits(&prefix).any(|bit| bit == bit6(halves)));
        }
    }
}
