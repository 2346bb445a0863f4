//! Lists: whole sets of prefixes in one array of words each, found by binary search.
//!
//! A list is never edited: a new one is written to memory of its own and then takes the place of the old one in one step. Inside lie
//! disjoint intervals in ascending order, so a look-up is exact and bounded, whatever lengths the prefixes had. It stands behind
//! the bitmap of the bans, whose bits are set for every prefix of a list, too.
//!
//! Layout, in words: the head ([`WORD_EXPIRY`] and following), the directory (for each upper half of a v4 address the number of intervals
//! that start below it, and one more for the end), the v4 intervals (first in the upper half of a word, last in the lower), the
//! first /64s of the v6 intervals, their last /64s, one word more.

use crate::{abi::LISTS_MAX, verdict::Tables};
use core::hint::black_box;

/// Last tick on which the list holds.
pub const WORD_EXPIRY: u32 = 0;
/// Packets that met it.
pub const WORD_HITS: u32 = 1;
/// Intervals of v4 addresses.
pub const WORD_COUNT4: u32 = 2;
/// Intervals of v6 /64s.
pub const WORD_COUNT6: u32 = 3;
/// Since when, Unix ms. From here on for user space only.
pub const WORD_SINCE: u32 = 4;
/// Prefixes, as they were read.
pub const WORD_PREFIXES: u32 = 5;
/// Lines that were left out.
pub const WORD_SKIPPED: u32 = 6;
/// Prefixes that were cut, or left out, because they touch the floor.
pub const WORD_CUT: u32 = 7;
/// Four words of name, padded with zeros.
pub const WORD_NAME: u32 = 8;
/// Words of the name.
pub const NAME_WORDS: u32 = 4;
/// Numbers of the first lines that were left out; 0 = no more.
pub const WORD_LINES: u32 = 12;
/// How many of them.
pub const LINES_MAX: u32 = 20;
/// First word of the directory.
pub const DIRECTORY: u32 = 32;
/// First word of the intervals.
pub const INTERVALS: u32 = DIRECTORY + (1 << 16) + 1;
/// Intervals in a list, v4 and v6 each: what the search can tell apart.
pub const INTERVALS_MAX: u32 = 1 << SEARCH6;

/// Steps of a search among the intervals that start in one /16, whatever they are.
const SEARCH4: u32 = 17;
/// Steps among fewer than sixteen: a list of a million prefixes has about that many in each /16 that it knows.
const SEARCH4_FEW: u32 = 4;
/// Steps of a search among all v6 intervals.
const SEARCH6: u32 = 22;

/// Whether an unexpired list holds the v4 address, a number; its hit is counted.
#[inline(always)]
pub fn listed4<T: Tables>(number: u32, now: u64, tables: &T) -> bool {
    let mut slot = 0;
    while slot < LISTS_MAX {
        if let Some(list) = tables.list(slot)
            && now <= word::<T>(list, WORD_EXPIRY)
            && in_list4::<T>(list, number)
        {
            return hit::<T>(list);
        }
        slot += 1;
    }
    false
}

/// The same for the upper half of a v6 address: lists hold whole /64s.
#[inline(always)]
pub fn listed6<T: Tables>(number: u64, now: u64, tables: &T) -> bool {
    let mut slot = 0;
    while slot < LISTS_MAX {
        if let Some(list) = tables.list(slot)
            && now <= word::<T>(list, WORD_EXPIRY)
            && in_list6::<T>(list, number)
        {
            return hit::<T>(list);
        }
        slot += 1;
    }
    false
}

/// Whether the list in this slot holds the v4 address, a number. Expiry is not asked.
pub fn holds4<T: Tables>(slot: u32, number: u32, tables: &T) -> bool {
    tables.list(slot).is_some_and(|list| in_list4::<T>(list, number))
}

/// Whether the list in this slot holds the v6 /64, a number. Expiry is not asked.
pub fn holds6<T: Tables>(slot: u32, number: u64, tables: &T) -> bool {
    tables.list(slot).is_some_and(|list| in_list6::<T>(list, number))
}

/// A word that every list has; 0 beyond its end, which no search reaches.
#[inline(always)]
fn word<T: Tables>(list: &T::List, index: u32) -> u64 {
    T::list_word(list, index).map_or(0, |word| word.load())
}

#[inline(always)]
fn hit<T: Tables>(list: &T::List) -> bool {
    if let Some(hits) = T::list_word(list, WORD_HITS) {
        hits.add(1);
    }
    true
}

#[inline(always)]
fn in_list4<T: Tables>(list: &T::List, number: u32) -> bool {
    let bucket = DIRECTORY + (number >> 16);
    let (first, end) = (word::<T>(list, bucket) as u32, word::<T>(list, bucket + 1) as u32);
    // The last interval that starts at or below the number; of those of earlier /16s only the last can reach so far.
    let key = (number as u64) << 32 | 0xffff_ffff;
    let found = if end.wrapping_sub(first) < 1 << SEARCH4_FEW {
        last_below::<SEARCH4_FEW, T>(list, INTERVALS, first, end, key)
    } else {
        last_below::<SEARCH4, T>(list, INTERVALS, first, end, key)
    };
    found > 0 && number <= word::<T>(list, INTERVALS + found - 1) as u32
}

#[inline(always)]
fn in_list6<T: Tables>(list: &T::List, number: u64) -> bool {
    let (count4, count6) = (word::<T>(list, WORD_COUNT4) as u32, word::<T>(list, WORD_COUNT6) as u32);
    let starts = INTERVALS.wrapping_add(count4);
    let found = last_below::<SEARCH6, T>(list, starts, 0, count6, number);
    let ends = starts.wrapping_add(count6);
    found > 0 && number <= word::<T>(list, ends.wrapping_add(found - 1))
}

/// How many of the ascending words before `high` are at most `key`, given that `low` of them are.
///
/// No branch depends on what was read: one would multiply the paths that the verifier walks by two each step. (The compiler would make
/// branches of the ones and zeros, did it know what they are.) So it always takes all steps; when the search is over, the word at `high` is read and ignored (the array ends with a word that is nobody's).
#[inline(always)]
fn last_below<const STEPS: u32, T: Tables>(list: &T::List, base: u32, low: u32, high: u32, key: u64) -> u32 {
    let (mut low, mut high) = (low as u64, high as u64);
    let mut step = 0;
    while step < STEPS {
        let middle = (low + high) >> 1;
        let Some(start) = T::list_word(list, base.wrapping_add(middle as u32)) else { return 0 };
        let up = black_box(less(key, start.load()) ^ 1) & black_box(less(low, high));
        high = middle + (high - middle) * up;
        low += (middle + 1 - low) * up;
        step += 1;
    }
    low as u32
}

/// 1 if `a < b`, else 0: the borrow of `a - b` (Warren, "Hacker's Delight", 2-13).
#[inline(always)]
const fn less(a: u64, b: u64) -> u64 {
    (!a & b | (!a | b) & a.wrapping_sub(b)) >> 63
}
