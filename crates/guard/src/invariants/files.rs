//! What must hold for every file that somebody hands a guard: lists, and ban files.

use crate::{
    Prefix,
    kernel::{
        ban_file,
        lists::compile::{self, Compiled, ListError},
    },
};
use std::collections::BTreeMap;

/// Texts to begin with.
pub const SEEDS: [&str; 4] = [
    "# a feed\n198.51.100.0/24\n198.51.100.128/25 ; within it\n198.51.101.0/24\n2001:db8::/32\n10.0.0.0/8\nfd00::/16\n",
    "224.0.0.0/4\n223.255.255.255\n255.255.255.255\nffff:ffff:ffff:ffff::/64\nnonsense\n0.0.0.0/0\n",
    "198.51.100.7\n203.0.113.0/24 10m # a /24\n2001:db8::5\t2h\n10.0.0.1 1d#x#y\n",
    "10.0.0.1\nnonsense\n10.0.0.2 soon\n10.0.0.3 1m and more\n10.0.0.1 31d\n",
];

/// What no list may ban.
fn floor() -> Vec<Prefix> {
    let all = ["10.0.0.0/24", "0.0.0.0/32", "255.255.255.255/32", "fd00::/64"];
    all.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Strictly ascending, with a gap between any two.
fn in_order<N: Copy + Into<u128>>(intervals: &[(N, N)]) -> bool {
    let apart = intervals.windows(2).all(|pair| pair[0].1.into() + 1 < pair[1].0.into());
    apart && intervals.iter().all(|(first, last)| (*first).into() <= (*last).into())
}

/// The ends of a prefix: v4 addresses, or upper halves of v6 ones.
fn ends(prefix: &Prefix) -> (u64, u64) {
    let (bits, width) = if prefix.is_v6() { ((prefix.bits() >> 64) as u64, 64) } else { (prefix.bits() as u64, 32) };
    let free = width - u32::from(prefix.length()).min(width);
    (bits, bits | 1u64.checked_shl(free).map_or(u64::MAX, |size| size - 1))
}

fn holds(list: &Compiled, v6: bool, number: u64) -> bool {
    let within = |(first, last): (u64, u64)| (first..=last).contains(&number);
    if v6 {
        list.v6.iter().copied().any(within)
    } else {
        list.v4.iter().any(|(first, last)| within((u64::from(*first), u64::from(*last))))
    }
}

/// A text as a list: its intervals are in order and apart, hold the ends of every prefix that was read and nothing of the floor, and
/// a reader who leaves no line out reads the same or names a line.
pub fn list(text: &[u8]) {
    let floor = floor();
    let lenient = compile::read(text, true, &floor);
    let strict = compile::read(text, false, &floor);
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => assert_eq!((strict, lenient.skipped), (lenient, 0)),
        (Err(ListError::Line { line, .. }), Ok(lenient)) => assert_eq!(lenient.lines.first(), Some(line)),
        (Err(ListError::Line { .. }), Err(ListError::Empty { skipped })) => assert!(*skipped > 0),
        (Err(ListError::Empty { .. }), Err(ListError::Empty { skipped })) => assert_eq!(*skipped, 0),
        other => panic!("{other:?}"),
    }
    let Ok(list) = lenient else { return };
    assert!(in_order(&list.v4) && in_order(&list.v6), "{list:?}");
    assert_eq!(list.words(&compile::Head { name: "fuzz", expiry: 1, since_ms: 1 }).len() as u32, list.len_words());
    let exempt =
        |v6: bool, number: u64| floor.iter().any(|range| range.is_v6() == v6 && (ends(range).0..=ends(range).1).contains(&number));
    for range in &floor {
        let (first, last) = ends(range);
        assert!(!holds(&list, range.is_v6(), first) && !holds(&list, range.is_v6(), last), "{range} is banned");
    }
    let lines =
        std::str::from_utf8(text).unwrap_or_default().lines().filter(|line| (line.len() as u64) < compile::LINE_BYTES_MAX - 1);
    let tokens = lines.filter_map(|line| line.split(['#', ';']).next()?.split_whitespace().next());
    for prefix in tokens.filter_map(|token| token.parse::<Prefix>().ok()) {
        let least = if prefix.is_v6() { compile::LENGTH6_MIN } else { compile::LENGTH4_MIN };
        let (first, last) = ends(&prefix);
        for number in [first, last] {
            let held = holds(&list, prefix.is_v6(), number) || exempt(prefix.is_v6(), number);
            assert!(held || prefix.length() < least, "{prefix} was lost");
        }
    }
}

/// A text as a ban file: what is read, written down and read again is the same, and no line is both read and refused.
pub fn ban_file(text: &str) {
    let (entries, bad) = ban_file::parse(text);
    assert!(entries.len() <= ban_file::LINES_MAX && entries.len() + bad.len() <= text.lines().count());
    assert!(bad.iter().all(|bad| entries.values().all(|entry| entry.line != bad.line)));
    let written: String = entries
        .iter()
        .map(|(prefix, entry)| {
            let ttl = entry.ttl_ms.map_or(String::new(), |ms| format!(" {ms}ms"));
            format!("{prefix}{ttl} # {}\n", entry.note)
        })
        .collect();
    let (again, refused) = ban_file::parse(&written);
    let says = |entries: &BTreeMap<Prefix, ban_file::Entry>| {
        entries.iter().map(|(prefix, entry)| (*prefix, entry.ttl_ms, entry.note.clone())).collect::<Vec<_>>()
    };
    assert_eq!((says(&again), refused), (says(&entries), Vec::new()), "{written}");
    let difference = ban_file::difference(&entries, &again);
    assert!(difference.ban.is_empty() && difference.lift.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::bent;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn hold_for_the_seeds() {
        assert_eq!(floor().len(), 4);
        for seed in SEEDS {
            list(seed.as_bytes());
            ban_file(seed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn hold_for_bent_texts(
            seed in prop::sample::select(&SEEDS[..]),
            bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..8),
        ) {
            let bytes = bent(seed, bends);
            list(&bytes);
            ban_file(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn hold_for_any_prefixes(prefixes in prop::collection::vec((any::<u128>(), any::<bool>(), 0u8..=128), 0..40)) {
            let text = |(address, v6, length): (u128, bool, u8)| match v6 {
                true => format!("{}/{length}\n", Ipv6Addr::from(address)),
                false => format!("{}/{}\n", Ipv4Addr::from(address as u32), length % 33),
            };
            let text: String = prefixes.into_iter().map(text).collect();
            list(text.as_bytes());
            ban_file(&text);
        }
    }
}
