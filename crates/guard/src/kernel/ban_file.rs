//! Ban files: lines of `ADDRESS[/LENGTH] [TTL] [# note]`, and the difference between two readings of one.

use super::{bans, duration};
use crate::{
    Prefix,
    protocol::{BAN_TTL_MS_MAX, TEXT_BYTES_MAX},
};
use std::collections::BTreeMap;

/// Bans that one file may name: as many as the kernel's exact table holds.
pub const LINES_MAX: usize = kernel_shared::abi::BANS_MAX as usize;
/// Bytes of a ban file that are read.
pub const BYTES_MAX: u64 = 4 << 20;

/// What a line says about its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Line number, from 1.
    pub line: usize,
    /// How long, ms; `None`: as long as the line stands.
    pub ttl_ms: Option<u64>,
    /// Its comment.
    pub note: String,
}

/// A line that says nothing we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// What a file says: bans by prefix (the last line about one counts), and the lines that were left out.
pub type Reading = (BTreeMap<Prefix, Entry>, Vec<BadLine>);

/// Reads a file's text. Empty lines and lines of comment alone mean nothing.
pub fn parse(text: &str) -> Reading {
    let (mut entries, mut bad) = (BTreeMap::new(), Vec::new());
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let (words, note) = raw.split_once('#').unwrap_or((raw, ""));
        let mut words = words.split_whitespace();
        let Some(address) = words.next() else { continue };
        match entry(line, address, words.next(), words.next(), note) {
            Ok((prefix, _)) if entries.len() >= LINES_MAX && !entries.contains_key(&prefix) => {
                bad.push(BadLine {
                    line,
                    message: format!("a ban file holds at most {LINES_MAX} bans: this line and all behind it are left out"),
                });
                break;
            }
            Ok((prefix, entry)) => _ = entries.insert(prefix, entry),
            Err(message) => bad.push(BadLine { line, message }),
        }
    }
    (entries, bad)
}

fn entry(line: usize, address: &str, ttl: Option<&str>, rest: Option<&str>, note: &str) -> Result<(Prefix, Entry), String> {
    let prefix: Prefix = address.parse().map_err(|error: crate::prefix::PrefixError| error.to_string())?;
    let prefix = prefix.widened();
    if let Some(message) = bans::too_wide(&prefix) {
        return Err(message);
    }
    let ttl_ms = match ttl {
        None => None,
        Some(text) => {
            let ms = duration::parse(text)?.as_millis().min(u64::MAX as u128) as u64;
            if ms == 0 || ms > BAN_TTL_MS_MAX {
                return Err(format!("'{text}': a ban lasts 1 ms to 30 days"));
            }
            Some(ms)
        }
    };
    match rest {
        Some(word) => Err(format!("'{}' is too much: a line is ADDRESS, then a TTL, then # and a note", cut(word, 40))),
        None => Ok((prefix, Entry { line, ttl_ms, note: cut(note.trim(), TEXT_BYTES_MAX / 2).trim_end().to_string() })),
    }
}

/// At most so many bytes, cut between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What to do when a file that said `old` says `new`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Prefixes to ban: their line is new, or says something else now. A line that only moved is neither.
    pub ban: Vec<Prefix>,
    /// Prefixes whose line is gone.
    pub lift: Vec<Prefix>,
}

/// The difference between two readings.
pub fn difference(old: &BTreeMap<Prefix, Entry>, new: &BTreeMap<Prefix, Entry>) -> Difference {
    let says = |entry: &Entry| (entry.ttl_ms, entry.note.clone());
    let changed = |(prefix, entry): &(&Prefix, &Entry)| old.get(prefix).map(says) != Some(says(entry));
    Difference {
        ban: new.iter().filter(changed).map(|(prefix, _)| *prefix).collect(),
        lift: old.keys().filter(|prefix| !new.contains_key(prefix)).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn lines() {
        let text = "# who scans us\n\n198.51.100.7\n203.0.113.0/24 10m # a /24\n2001:db8::5\t2h\n10.0.0.1 1d#x#y\n";
        let (entries, bad) = parse(text);
        assert_eq!(bad, []);
        let check = |text: &str, line, ttl_ms, note: &str| {
            assert_eq!(entries.get(&prefix(text)), Some(&Entry { line, ttl_ms, note: note.into() }), "{text}");
        };
        check("198.51.100.7", 3, None, "");
        check("203.0.113.0/24", 4, Some(600_000), "a /24");
        check("2001:db8::/64", 5, Some(7_200_000), "");
        check("10.0.0.1", 6, Some(86_400_000), "x#y");
        assert_eq!(entries.len(), 4);
    }

    #[test]
    fn a_bad_line_leaves_the_others() {
        let (entries, bad) =
            parse("10.0.0.1\nnonsense\n10.0.0.2 soon\n0.0.0.0/0\n10.0.0.3 1m and more\n10.0.0.4 0s\n10.0.0.5 31d\n10.0.0.6\n");
        assert_eq!(entries.keys().map(Prefix::to_string).collect::<Vec<_>>(), ["10.0.0.1/32", "10.0.0.6/32"]);
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_file_is_bounded() {
        let text: String =
            (0..LINES_MAX as u32 + 5).map(|host| format!("{}\n", std::net::Ipv4Addr::from(0x0a00_0000 + host))).collect();
        let (entries, bad) = parse(&text);
        assert_eq!((entries.len(), bad.len(), bad[0].line), (LINES_MAX, 1, LINES_MAX + 1));
    }

    #[test]
    fn differences() {
        let read = |text: &str| parse(text).0;
        let check = |old: &str, new: &str, ban: &[&str], lift: &[&str]| {
            let prefixes = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect::<Vec<_>>();
            let expect = Difference { ban: prefixes(ban), lift: prefixes(lift) };
            assert_eq!(difference(&read(old), &read(new)), expect, "{old:?} → {new:?}");
        };
        check("", "10.0.0.1", &["10.0.0.1"], &[]);
        check("10.0.0.1", "\n# moved\n10.0.0.1", &[], &[]);
        check("10.0.0.1", "10.0.0.1 5m", &["10.0.0.1"], &[]);
        check("10.0.0.1 # a", "10.0.0.1 # b", &["10.0.0.1"], &[]);
        check("10.0.0.1\n10.0.0.2", "10.0.0.2\n10.0.0.3", &["10.0.0.3"], &["10.0.0.1"]);
        check("10.0.0.1", "", &[], &["10.0.0.1"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-f:./# \\n\u{e9}smhd]{0,200}") {
            let (entries, bad) = parse(&text);
            prop_assert!(entries.len() + bad.len() <= text.lines().count());
        }
    }
}
