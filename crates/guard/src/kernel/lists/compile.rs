//! From a text of prefixes to the words of a list: parse, cut the floor out, sort, merge, index. Pure.

use crate::{Prefix, kernel::bans::bits_of_interval};
use kernel_shared::{
    abi::{BITS4_WORDS, BITS6_WORDS},
    ban::bit6,
    list::{
        DIRECTORY, INTERVALS, INTERVALS_MAX, LINES_MAX, NAME_WORDS, WORD_COUNT4, WORD_COUNT6, WORD_CUT, WORD_EXPIRY, WORD_LINES,
        WORD_NAME, WORD_PREFIXES, WORD_SINCE, WORD_SKIPPED,
    },
};
use std::io::{self, BufRead, Read};

/// Most bytes of a list's text.
pub const TEXT_BYTES_MAX: u64 = 128 << 20;
/// Longest line, bytes.
pub const LINE_BYTES_MAX: u64 = 4096;
/// Most prefixes of a list.
pub const PREFIXES_MAX: usize = 2 << 20;
/// Shortest IPv4 prefix of a list: 224.0.0.0/4 is on lists of addresses that are nobody's, anything wider is a mistake.
pub const LENGTH4_MIN: u8 = 4;
/// Shortest IPv6 prefix of a list: fc00::/7 is the widest on such lists.
pub const LENGTH6_MIN: u8 = 7;

/// Why a text is no list. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A line is neither a prefix nor a comment.
    #[error("line {line}: {message}; nothing was changed (--skip-bad leaves such lines out)")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// The text can't be read.
    #[error("the list can't be read")]
    Read(#[source] io::Error),
    /// Too many prefixes.
    #[error("a list has at most {PREFIXES_MAX} prefixes; nothing was changed")]
    Prefixes,
    /// Too long a text.
    #[error("a list's text has at most {TEXT_BYTES_MAX} bytes; nothing was changed")]
    Bytes,
    /// No prefix in it.
    #[error("there is no prefix in this list; nothing was changed (`list drop` takes a list away)")]
    Empty {
        /// Lines left out, because they are no prefix.
        skipped: u64,
    },
}

/// An interval of numbers, both ends in it.
type Interval<N> = (N, N);

/// A list before it becomes words: disjoint, ascending intervals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// IPv4 addresses.
    pub v4: Vec<Interval<u32>>,
    /// IPv6 /64s: the upper halves of addresses.
    pub v6: Vec<Interval<u64>>,
    /// Prefixes read.
    pub prefixes: u64,
    /// Lines left out.
    pub skipped: u64,
    /// Numbers of the first of them.
    pub lines: Vec<u64>,
    /// Prefixes that touch the floor: what of them is floor was cut out.
    pub cut: u64,
}

/// What of a line is a prefix: what stands before blanks and comments (`#`, `;`), if anything.
fn token(line: &str) -> Option<&str> {
    line.split(['#', ';']).next()?.split_whitespace().next()
}

fn prefix(token: &str) -> Result<Prefix, String> {
    let prefix: Prefix = token.parse().map_err(|error: crate::prefix::PrefixError| error.to_string())?;
    let min = if prefix.is_v6() { LENGTH6_MIN } else { LENGTH4_MIN };
    match prefix.length() < min {
        true => Err(format!("{prefix} is too wide: /{min} is the widest in a list")),
        false => Ok(prefix),
    }
}

/// Reads a list: a prefix a line. With `skip_bad`, lines that are none are left out and counted, else the first is an error.
pub fn read(text: impl Read, skip_bad: bool, floor: &[Prefix]) -> Result<Compiled, ListError> {
    let mut text = io::BufReader::with_capacity(1 << 16, text.take(TEXT_BYTES_MAX + 1));
    let mut compiled = Compiled::default();
    let (mut line, mut number, mut bytes) = (Vec::new(), 0u64, 0u64);
    loop {
        line.clear();
        let read = text.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(ListError::Read)? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        bytes += read;
        if bytes > TEXT_BYTES_MAX {
            return Err(ListError::Bytes);
        }
        let whole = read < LINE_BYTES_MAX || line.last() == Some(&b'\n');
        if !whole {
            // The rest of an overlong line is no line of its own.
            bytes += skip_line(&mut text).map_err(ListError::Read)?;
        }
        let parsed = match std::str::from_utf8(&line) {
            _ if !whole => Some(Err(format!("longer than {LINE_BYTES_MAX} bytes"))),
            Err(_) => Some(Err("not UTF-8".to_string())),
            Ok(text) => token(text).map(prefix),
        };
        match parsed {
            None => {}
            Some(Ok(_)) if compiled.prefixes as usize == PREFIXES_MAX => return Err(ListError::Prefixes),
            Some(Ok(prefix)) => compiled.add(&prefix, floor),
            Some(Err(message)) if !skip_bad => return Err(ListError::Line { line: number, message }),
            Some(Err(_)) => {
                compiled.skipped += 1;
                if compiled.lines.len() < LINES_MAX as usize {
                    compiled.lines.push(number);
                }
            }
        }
    }
    merge(&mut compiled.v4, |last| last.checked_add(1));
    merge(&mut compiled.v6, |last| last.checked_add(1));
    compiled.cut_out(floor);
    match compiled.v4.is_empty() && compiled.v6.is_empty() {
        true => Err(ListError::Empty { skipped: compiled.skipped }),
        // More than the search can tell apart can't come of so few prefixes and a floor; the limit is checked all the same.
        false if compiled.v4.len().max(compiled.v6.len()) > INTERVALS_MAX as usize - 1 => Err(ListError::Prefixes),
        false => Ok(compiled),
    }
}

fn skip_line(text: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = text.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        text.consume(used);
        skipped += used as u64;
        if end.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}

fn interval4(prefix: &Prefix) -> Option<Interval<u32>> {
    let first = prefix.bits() as u32;
    (!prefix.is_v6()).then(|| (first, first | u32::MAX.checked_shr(prefix.length() as u32).unwrap_or(0)))
}

fn interval6(prefix: &Prefix) -> Option<Interval<u64>> {
    let first = (prefix.bits() >> 64) as u64;
    prefix.is_v6().then(|| (first, first | u64::MAX.checked_shr(prefix.length() as u32).unwrap_or(0)))
}

/// Sorts, and joins what overlaps or touches.
fn merge<N: Copy + Ord>(intervals: &mut Vec<Interval<N>>, next: impl Fn(N) -> Option<N>) {
    intervals.sort_unstable();
    intervals.dedup_by(|later, earlier| {
        let joined = next(earlier.1).is_none_or(|after| later.0 <= after);
        if joined {
            earlier.1 = earlier.1.max(later.1);
        }
        joined
    });
    intervals.shrink_to_fit();
}

/// Takes each of `holes` out.
fn cut<N: Copy + Ord>(
    intervals: &mut Vec<Interval<N>>,
    holes: impl Iterator<Item = Interval<N>>,
    next: impl Fn(N) -> Option<N>,
    previous: impl Fn(N) -> Option<N>,
) {
    for (first, last) in holes {
        let from = intervals.partition_point(|interval| interval.1 < first);
        let to = intervals.partition_point(|interval| interval.0 <= last);
        let Some(touched) = intervals.get(from..to) else { continue };
        let mut left = Vec::new();
        for (start, end) in touched {
            if *start < first
                && let Some(before) = previous(first)
            {
                left.push((*start, before));
            }
            if *end > last
                && let Some(after) = next(last)
            {
                left.push((after, *end));
            }
        }
        intervals.splice(from..to, left);
    }
}

/// Where the names, times and counts of a list's head come from.
pub struct Head<'a> {
    /// At most 32 bytes.
    pub name: &'a str,
    /// Last tick.
    pub expiry: u64,
    /// Since when, Unix ms.
    pub since_ms: u64,
}

impl Compiled {
    fn add(&mut self, prefix: &Prefix, floor: &[Prefix]) {
        self.prefixes += 1;
        self.cut += floor.iter().any(|range| range.overlaps(prefix)) as u64;
        self.v4.extend(interval4(prefix));
        self.v6.extend(interval6(prefix));
    }

    fn cut_out(&mut self, floor: &[Prefix]) {
        cut(&mut self.v4, floor.iter().filter_map(interval4), |n| n.checked_add(1), |n| n.checked_sub(1));
        cut(&mut self.v6, floor.iter().filter_map(interval6), |n| n.checked_add(1), |n| n.checked_sub(1));
    }

    /// Words of the list's array.
    pub fn len_words(&self) -> u32 {
        INTERVALS + self.v4.len() as u32 + 2 * self.v6.len() as u32 + 1
    }

    /// The list as it lies in the kernel.
    pub fn words(&self, head: &Head<'_>) -> Vec<u64> {
        let mut words = vec![0u64; DIRECTORY as usize];
        let mut set = |index: u32, value: u64| {
            if let Some(word) = words.get_mut(index as usize) {
                *word = value;
            }
        };
        set(WORD_EXPIRY, head.expiry);
        set(WORD_SINCE, head.since_ms);
        set(WORD_COUNT4, self.v4.len() as u64);
        set(WORD_COUNT6, self.v6.len() as u64);
        set(WORD_PREFIXES, self.prefixes);
        set(WORD_SKIPPED, self.skipped);
        set(WORD_CUT, self.cut);
        for (index, chunk) in head.name.as_bytes().chunks(8).take(NAME_WORDS as usize).enumerate() {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            set(WORD_NAME + index as u32, u64::from_le_bytes(bytes));
        }
        for (index, line) in (0..LINES_MAX).zip(&self.lines) {
            set(WORD_LINES + index, *line);
        }
        words.reserve_exact(self.len_words() as usize - words.len());
        let mut below = 0;
        for bucket in 0..=1u64 << 16 {
            while self.v4.get(below).is_some_and(|interval| (interval.0 as u64) < bucket << 16) {
                below += 1;
            }
            words.push(below as u64);
        }
        words.extend(self.v4.iter().map(|(first, last)| (*first as u64) << 32 | *last as u64));
        words.extend(self.v6.iter().map(|interval| interval.0));
        words.extend(self.v6.iter().map(|interval| interval.1));
        words.push(0); // hits of earlier readings: read and ignored by a search that is over
        words
    }
}

/// The same list without the floor; `None` if it holds none of it.
pub fn without(words: &[u64], floor: &[Prefix]) -> Option<Vec<u64>> {
    let count = |index: u32| words.get(index as usize).copied().unwrap_or(0) as usize;
    let (v4, v6) = words.get(INTERVALS as usize..)?.split_at_checked(count(WORD_COUNT4))?;
    let (first6, rest) = v6.split_at_checked(count(WORD_COUNT6))?;
    let v4: Vec<_> = v4.iter().map(|word| ((word >> 32) as u32, *word as u32)).collect();
    let v6: Vec<_> = first6.iter().copied().zip(rest.iter().copied()).collect();
    let mut list = Compiled { v4: v4.clone(), v6: v6.clone(), ..Compiled::default() };
    list.cut_out(floor);
    if list.v4 == v4 && list.v6 == v6 {
        return None;
    }
    let mut changed = list.words(&Head { name: "", expiry: 0, since_ms: 0 });
    let kept = |index: u32| index != WORD_COUNT4 && index != WORD_COUNT6;
    for (index, (to, from)) in (0..DIRECTORY).zip(changed.iter_mut().zip(words)).filter(|(index, _)| kept(*index)) {
        *to = if index == WORD_CUT { *from + 1 } else { *from };
    }
    Some(changed)
}

/// Whether words are a list's: its counts fit its length, its directory its intervals, and these ascend.
pub fn check(words: &[u64]) -> Result<(), String> {
    let at = |index: u32| words.get(index as usize).copied().ok_or("shorter than a list is");
    let (count4, count6) = (at(WORD_COUNT4)? as usize, at(WORD_COUNT6)? as usize);
    let body = words.get(INTERVALS as usize..).ok_or("shorter than a list is")?;
    let length = count6.checked_mul(2).and_then(|twice| twice.checked_add(count4)).and_then(|sum| sum.checked_add(1));
    if length != Some(body.len()) || count4.max(count6) >= INTERVALS_MAX as usize {
        return Err("its counts don't fit its length".to_string());
    }
    let (v4, v6) = body.split_at(count4);
    let (first6, last6) = v6.split_at(count6);
    let ascends = v4.is_sorted_by(|a, b| a & 0xffff_ffff < b >> 32)
        && v4.iter().all(|interval| interval >> 32 <= interval & 0xffff_ffff)
        && first6.iter().skip(1).zip(last6).all(|(next, last)| next > last)
        && first6.iter().zip(last6).all(|(first, last)| first <= last);
    let directory = words.get(DIRECTORY as usize..INTERVALS as usize).unwrap_or_default();
    let counts = |(bucket, below): (u64, &u64)| *below == v4.partition_point(|interval| interval >> 32 < bucket << 16) as u64;
    match ascends && (0..).zip(directory).all(counts) {
        true => Ok(()),
        false => Err("its intervals are out of order".to_string()),
    }
}

/// Bits in front of lists, as the kernel's bitmaps have them.
#[derive(Clone)]
pub struct Bits {
    /// One bit a /24.
    pub v4: Vec<u64>,
    /// One bit a hash of a /48.
    pub v6: Vec<u64>,
}

impl Default for Bits {
    fn default() -> Bits {
        Bits { v4: vec![0; BITS4_WORDS as usize], v6: vec![0; BITS6_WORDS as usize] }
    }
}

impl Bits {
    /// Adds the bits of v4 intervals.
    pub fn add4(&mut self, intervals: impl Iterator<Item = (u32, u32)>) {
        for (first, last) in intervals {
            bits_of_interval(first >> 8, last >> 8, |word, mask| {
                if let Some(word) = self.v4.get_mut(word as usize) {
                    *word |= mask;
                }
            });
        }
    }

    /// Adds the bits of v6 intervals. Where these span twice as many /48s as there are bits, nearly all would be set: then all
    /// are, at once. A set bit proves nothing, and a wide list takes no more steps than that.
    pub fn add6(&mut self, intervals: impl Iterator<Item = (u64, u64)> + Clone) {
        let span = |(first, last): (u64, u64)| (last >> 16) - (first >> 16) + 1;
        if intervals.clone().map(span).fold(0, u64::saturating_add) >= 2 * 64 * self.v6.len() as u64 {
            self.v6.fill(u64::MAX);
            return;
        }
        for (first, last) in intervals {
            for network in first >> 16..=last >> 16 {
                let bit = bit6([(network << 16).to_be(), 0]);
                if let Some(word) = self.v6.get_mut(bit.word as usize) {
                    *word |= bit.mask;
                }
            }
        }
    }

    /// Adds another's bits.
    pub fn join(&mut self, other: &Bits) {
        let pairs = self.v4.iter_mut().zip(&other.v4).chain(self.v6.iter_mut().zip(&other.v6));
        pairs.for_each(|(word, more)| *word |= more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_shared::{list, model::Model};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn compile(text: &str, floor: &[&str]) -> Result<Compiled, ListError> {
        let floor: Vec<Prefix> = floor.iter().map(|range| range.parse().unwrap()).collect();
        read(text.as_bytes(), false, &floor)
    }

    fn model(compiled: &Compiled) -> Model {
        let mut model = Model::default();
        let mut words = compiled.words(&Head { name: "x", expiry: u64::MAX, since_ms: 0 });
        assert_eq!(words.len(), compiled.len_words() as usize);
        // Hits of earlier readings, as like an interval as can be: no search takes them for one.
        *words.last_mut().unwrap() = u64::from(u32::MAX);
        model.set_list(0, words);
        model
    }

    #[test]
    fn comments_blanks_and_trailing_words_are_no_prefixes() {
        let list = compile("# a\n\n; b\n10.0.0.0/8 ; SBL1\r\n  2001:db8::/32\t#x\n10.1.0.0/16", &[]).unwrap();
        assert_eq!((list.prefixes, list.v4.len(), list.v6.len(), list.skipped), (3, 1, 1, 0));
        assert_eq!(list.v4, [(0x0a00_0000, 0x0aff_ffff)]);
        assert_eq!(list.v6, [(0x2001_0db8_0000_0000, 0x2001_0db8_ffff_ffff)]);
    }

    #[test]
    fn a_bad_line_is_named_and_can_be_left_out() {
        let text = "10.0.0.1\nnonsense\n0.0.0.0/1\n10.0.0.2/33\n";
        assert!(matches!(compile(text, &[]), Err(ListError::Line { line: 2, .. })));
        let list = read(text.as_bytes(), true, &[]).unwrap();
        assert_eq!((list.prefixes, list.skipped, &list.lines[..]), (1, 3, &[2, 3, 4][..]));
        let long = format!("{}\n10.0.0.1\n", "x".repeat(10_000));
        assert_eq!(read(long.as_bytes(), true, &[]).unwrap().lines, [1]);
        assert!(matches!(compile("# nothing\n", &[]), Err(ListError::Empty { .. })));
    }

    #[test]
    fn the_floor_is_cut_out() {
        let list = compile("10.0.0.0/8\n11.0.0.0/24\nfd00::/16\n", &["10.1.0.0/16", "11.0.0.0/8", "fd00:0:0:5::/64"]).unwrap();
        assert_eq!(list.v4, [(0x0a00_0000, 0x0a00_ffff), (0x0a02_0000, 0x0aff_ffff)]);
        assert_eq!(list.v6, [(0xfd00 << 48, (0xfd00 << 48) + 4), ((0xfd00 << 48) + 6, (0xfd01 << 48) - 1)]);
        assert_eq!(list.cut, 3);
    }

    #[test]
    fn a_floor_that_grows_is_cut_out_later() {
        let words = compile("10.0.0.0/8\n2001:db8::/32\n", &[]).unwrap().words(&Head { name: "a", expiry: 3, since_ms: 5 });
        let floor: Vec<Prefix> = vec!["10.1.0.0/16".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
        let cut = without(&words, &floor).unwrap();
        check(&cut).unwrap();
        assert_eq!((cut[WORD_COUNT4 as usize], cut[WORD_CUT as usize], cut[WORD_NAME as usize]), (2, 1, words[WORD_NAME as usize]));
        assert!(without(&cut, &floor).is_none() && without(&words, &[]).is_none());
    }

    /// One interval over and over has the bits that it has once: only the sum of the spans can set them all.
    #[test]
    fn wide_v6_intervals_set_all_bits_at_once() {
        let wide = interval6(&"2001:db0::/28".parse().unwrap()).unwrap();
        let set = |times| {
            let mut bits = Bits::default();
            bits.add6(std::iter::repeat_n(wide, times));
            bits.v6.iter().map(|word| word.count_ones()).sum::<u32>()
        };
        // Each spans 2^20 /48s, and 2^23 are the first that are too many.
        assert_eq!([1, 7, 8, 4_096].map(set), [1 << 20, 1 << 20, 1 << 22, 1 << 22]);
    }

    proptest! {
        /// The kernel's search over the words says what the prefixes say.
        #[test]
        fn the_search_is_exact(
            prefixes in prop::collection::vec((0u32..1 << 12, 20u8..=32), 1..40),
            wide in prop::collection::vec((any::<u32>(), 8u8..=32), 0..4),
            probes in prop::collection::vec(0u32..1 << 13, 40),
        ) {
            // Close together, so that many share a /16 and some a /24; across the border of a /16, too.
            let near = |low: u32| 0x0a0a_f800u32.wrapping_add(low);
            let all: Vec<Prefix> = prefixes.iter().map(|(low, length)| (near(*low), *length)).chain(wide.iter().copied())
                .map(|(address, length)| Prefix::new(Ipv4Addr::from(address).into(), length).unwrap()).collect();
            let text: String = all.iter().map(|prefix| format!("{prefix}\n")).collect();
            let compiled = compile(&text, &[]).unwrap();
            let model = model(&compiled);
            let mut bits = Bits::default();
            bits.add4(compiled.v4.iter().copied());
            let ends = all.iter().flat_map(|prefix| { let (a, b) = interval4(prefix).unwrap(); [a, b, a.wrapping_sub(1), b.wrapping_add(1)] });
            for number in probes.iter().map(|low| near(*low)).chain(ends) {
                let expect = all.iter().any(|prefix| prefix.contains(Ipv4Addr::from(number).into()));
                prop_assert_eq!(list::holds4(0, number, &model), expect, "{}", Ipv4Addr::from(number));
                let bit = kernel_shared::ban::bit4(number.to_be());
                prop_assert!(!expect || bits.v4[bit.word as usize] & bit.mask != 0);
            }
            prop_assert!(!list::holds6(0, u64::MAX, &model), "hits are no interval");
        }

        #[test]
        fn the_v6_search_too(prefixes in prop::collection::vec((0u64..1 << 20, 40u8..=64), 1..40), probes in prop::collection::vec(0u64..1 << 21, 40)) {
            let near = |low: u64| 0x2001_0db8_0000_0000u64 + low;
            let all: Vec<Prefix> = prefixes.iter()
                .map(|(low, length)| Prefix::new(Ipv6Addr::from((near(*low) as u128) << 64).into(), *length).unwrap()).collect();
            let text: String = all.iter().map(|prefix| format!("{prefix}\n")).collect();
            let compiled = compile(&text, &[]).unwrap();
            let model = model(&compiled);
            let mut bits = Bits::default();
            bits.add6(compiled.v6.iter().copied());
            let ends = all.iter().flat_map(|prefix| { let (a, b) = interval6(prefix).unwrap(); [a, b, a.wrapping_sub(1), b.wrapping_add(1)] });
            for number in probes.iter().map(|low| near(*low)).chain(ends) {
                let expect = all.iter().any(|prefix| prefix.contains(Ipv6Addr::from((number as u128) << 64).into()));
                prop_assert_eq!(list::holds6(0, number, &model), expect, "{:x}", number);
                let bit = bit6([number.to_be(), 0]);
                prop_assert!(!expect || bits.v6[bit.word as usize] & bit.mask != 0);
            }
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&text[..], true, &[]);
        }
    }
}
