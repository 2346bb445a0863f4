//! The egress guard: where a node has no business to dial.
//!
//! Peers gossip addresses, and an attacker gossips yours: private, link-local and other special ranges, which a node that dials them scans on his behalf.
//! Hosters cut off nodes that do. The ranges are those of RFC 6890 and its registry; an operator allows what his own network needs.

use crate::control::{Config, Mode};

/// What an address that is nobody's on the Internet is for. The label of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Range {
    /// RFC 1918; unique local (RFC 4193) and the site-local of old.
    Private = 0,
    /// Shared space behind carriers' NAT, RFC 6598.
    CarrierNat = 1,
    /// RFC 3927, which holds clouds' metadata services; RFC 4291.
    LinkLocal = 2,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation = 3,
    /// RFC 2544, RFC 5180.
    Benchmarking = 4,
    /// RFC 5771, RFC 4291.
    Multicast = 5,
    /// "This network", protocol assignments, discard-only, reserved, broadcast.
    Reserved = 6,
    /// One's own machine. Allowed unless told otherwise: it never leaves the host.
    Loopback = 7,
}

/// Ranges.
pub const RANGES: u32 = 8;
/// Counters of one range: denied, would have been denied.
pub const OUTCOMES: u32 = 2;

impl Range {
    /// All of them, in the order of their numbers.
    pub const ALL: [Range; RANGES as usize] = [
        Range::Private,
        Range::CarrierNat,
        Range::LinkLocal,
        Range::Documentation,
        Range::Benchmarking,
        Range::Multicast,
        Range::Reserved,
        Range::Loopback,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Range::Private => "private",
            Range::CarrierNat => "carrier_nat",
            Range::LinkLocal => "link_local",
            Range::Documentation => "documentation",
            Range::Benchmarking => "benchmarking",
            Range::Multicast => "multicast",
            Range::Reserved => "reserved",
            Range::Loopback => "loopback",
        }
    }
}

/// The special range that a v4 address (wire order) lies in; none if it is anybody's.
#[inline(always)]
pub const fn range4(address: u32) -> Option<Range> {
    let number = u32::from_be(address);
    let (first, second, third) = (number >> 24, number >> 16, number >> 8);
    if first == 127 {
        return Some(Range::Loopback);
    }
    if first == 10 || number >> 20 == 0xac1 || second == 0xc0a8 {
        return Some(Range::Private);
    }
    if number >> 22 == 0x191 {
        return Some(Range::CarrierNat);
    }
    if second == 0xa9fe {
        return Some(Range::LinkLocal);
    }
    if third == 0xc0_0002 || third == 0xc6_3364 || third == 0xcb_0071 {
        return Some(Range::Documentation);
    }
    if number >> 17 == 0x6309 {
        return Some(Range::Benchmarking);
    }
    if first >> 4 == 0xe {
        return Some(Range::Multicast);
    }
    if first == 0 || first >> 4 == 0xf || third == 0xc0_0000 {
        return Some(Range::Reserved);
    }
    None
}

/// The same of a v6 address (wire order). One that carries a v4 address (mapped, NAT64, 6to4) is judged by that.
#[inline(always)]
pub const fn range6(address: [u64; 2]) -> Option<Range> {
    let (high, low) = (u64::from_be(address[0]), u64::from_be(address[1]));
    if high == 0 {
        return match low {
            0 => Some(Range::Reserved),
            1 => Some(Range::Loopback),
            _ if low >> 32 == 0xffff => range4((low as u32).to_be()),
            _ => Some(Range::Reserved),
        };
    }
    let first = high >> 48;
    if high == 0x0064_ff9b_0000_0000 && low >> 32 == 0 {
        return range4((low as u32).to_be());
    }
    if first == 0x2002 {
        return range4(((high >> 16) as u32).to_be());
    }
    if first >> 9 == 0x7e || first >> 6 == 0x3fb {
        return Some(Range::Private); // fc00::/7, fec0::/10
    }
    if first >> 6 == 0x3fa {
        return Some(Range::LinkLocal); // fe80::/10
    }
    if first >> 8 == 0xff {
        return Some(Range::Multicast);
    }
    if high >> 32 == 0x2001_0db8 || high >> 44 == 0x3fff0 {
        return Some(Range::Documentation);
    }
    if high >> 41 == 0x2001_0000 >> 9 {
        return assignment6(high, low);
    }
    if high == 0x0100_0000_0000_0000 || high == 0x0100_0000_0000_0001 || first == 0x0064 || first == 0x5f00 {
        return Some(Range::Reserved); // discard-only; dummy; local-use translation; segment identifiers
    }
    None
}

/// The same within 2001::/23, which is for protocols: what the registry calls globally reachable there is anybody's, all else is not. Teredo
/// carries the address of its host, inverted.
#[inline(always)]
const fn assignment6(high: u64, low: u64) -> Option<Range> {
    match (high >> 32) as u16 {
        0 => match range4((!low as u32).to_be()) {
            Some(range) => Some(range),
            None => Some(Range::Reserved),
        },
        1 if high as u32 == 0 && low >= 1 && low <= 3 => None, // anycast: port control, TURN, DNS service discovery
        2 if high as u32 >> 16 == 0 => Some(Range::Benchmarking),
        3 => None,                                // AMT
        4 if high as u32 >> 16 == 0x0112 => None, // AS112
        0x20..=0x3f => None,                      // ORCHIDv2, drone remote ID
        _ => Some(Range::Reserved),
    }
}

/// What happens to a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// It may.
    Allowed,
    /// It may, and is counted: `enforce` would have denied it.
    WouldDeny(Range),
    /// EPERM, counted.
    Denied(Range),
}

impl Dial {
    /// The counter's slot, if it is counted.
    #[inline(always)]
    pub const fn slot(self) -> Option<u32> {
        match self {
            Dial::Allowed => None,
            Dial::Denied(range) => Some(range as u32 * OUTCOMES),
            Dial::WouldDeny(range) => Some(range as u32 * OUTCOMES + 1),
        }
    }
}

/// Judges a dial into this range. `allowed`: an operator's list holds the address. `deadline`: the last tick of a trial of `enforce`, 0 = none.
#[inline(always)]
pub const fn judge(config: Config, deadline: u64, now: u64, range: Option<Range>, allowed: bool) -> Dial {
    let Some(range) = range else { return Dial::Allowed };
    if allowed {
        return Dial::Allowed;
    }
    match config.mode() {
        Mode::Off => Dial::Allowed,
        Mode::Enforce if deadline == 0 || now <= deadline => Dial::Denied(range),
        _ => Dial::WouldDeny(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn of4(text: &str) -> Option<Range> {
        range4(u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets()))
    }

    fn halves(octets: [u8; 16]) -> [u64; 2] {
        [u64::from_ne_bytes(octets[..8].try_into().unwrap()), u64::from_ne_bytes(octets[8..].try_into().unwrap())]
    }

    fn of6(text: &str) -> Option<Range> {
        range6(halves(text.parse::<Ipv6Addr>().unwrap().octets()))
    }

    /// First and last address of each range, and the neighbours outside.
    #[test]
    fn ranges_begin_and_end_where_the_registry_says() {
        for (range, first, last) in [
            (Range::Private, "10.0.0.0", "10.255.255.255"),
            (Range::Private, "172.16.0.0", "172.31.255.255"),
            (Range::Private, "192.168.0.0", "192.168.255.255"),
            (Range::CarrierNat, "100.64.0.0", "100.127.255.255"),
            (Range::LinkLocal, "169.254.0.0", "169.254.255.255"),
            (Range::Documentation, "192.0.2.0", "192.0.2.255"),
            (Range::Documentation, "198.51.100.0", "198.51.100.255"),
            (Range::Documentation, "203.0.113.0", "203.0.113.255"),
            (Range::Benchmarking, "198.18.0.0", "198.19.255.255"),
            (Range::Multicast, "224.0.0.0", "239.255.255.255"),
            (Range::Reserved, "0.0.0.0", "0.255.255.255"),
            (Range::Reserved, "192.0.0.0", "192.0.0.255"),
            (Range::Reserved, "240.0.0.0", "255.255.255.255"),
            (Range::Loopback, "127.0.0.0", "127.255.255.255"),
        ] {
            assert_eq!((of4(first), of4(last)), (Some(range), Some(range)), "{first}");
            let number = |text: &str| u32::from(text.parse::<Ipv4Addr>().unwrap());
            for outside in [number(first).checked_sub(1), number(last).checked_add(1)].into_iter().flatten() {
                assert_ne!(range4(outside.to_be()), Some(range), "{}", Ipv4Addr::from(outside));
            }
        }
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
        ] {
            assert_eq!(of4(public), None, "{public}");
        }
    }

    #[test]
    fn v6_ranges_and_the_v4_in_them() {
        for (range, text) in [
            (Range::Loopback, "::1"),
            (Range::Reserved, "::"),
            (Range::Reserved, "::10.0.0.1"),
            (Range::Private, "::ffff:10.0.0.1"),
            (Range::Loopback, "::ffff:127.0.0.1"),
            (Range::LinkLocal, "::ffff:169.254.169.254"),
            (Range::Private, "64:ff9b::192.168.1.1"),
            (Range::Reserved, "64:ff9b:1::1"),
            (Range::Private, "2002:a00:1::1"),
            (Range::Private, "fc00::1"),
            (Range::Private, "fdff:ffff::1"),
            (Range::Private, "fec0::1"),
            (Range::LinkLocal, "fe80::1"),
            (Range::LinkLocal, "febf:ffff::1"),
            (Range::Multicast, "ff02::1"),
            (Range::Documentation, "2001:db8::1"),
            (Range::Documentation, "3fff:fff::1"),
            (Range::Benchmarking, "2001:2::1"),
            (Range::Reserved, "100::1"),
            (Range::Reserved, "100:0:0:1::1"),
            (Range::Reserved, "5f00::1"),
            (Range::Reserved, "2001:10::1"),
            (Range::Reserved, "2001:1::4"),
            (Range::Reserved, "2001:4:113::1"),
            (Range::Reserved, "2001:40::1"),
            (Range::Reserved, "2001:1ff:ffff::1"),
            (Range::Private, "2001:0:4136:e378:8000:63bf:f5ff:fffe"), // Teredo of 10.0.0.1
            (Range::Reserved, "2001:0:4136:e378:8000:63bf:f7f7:f7f7"), // Teredo of 8.8.8.8
        ] {
            assert_eq!(of6(text), Some(range), "{text}");
        }
        for public in [
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:db9::1",
            "4000::1",
            "2001:4860::8888",
            "2001:200::1",
            "2001:1::1",
            "2001:1::3",
            "2001:3::1",
            "2001:4:112::1",
            "2001:20::1",
            "2001:30::1",
            "100:0:0:2::1",
        ] {
            assert_eq!(of6(public), None, "{public}");
        }
    }

    proptest! {
        /// A mapped address is what it maps, whatever it is.
        #[test]
        fn mapping_changes_nothing(address: [u8; 4]) {
            let mapped = Ipv4Addr::from(address).to_ipv6_mapped().octets();
            prop_assert_eq!(range6(halves(mapped)), range4(u32::from_ne_bytes(address)));
        }

        /// The standard library's own tables agree where it has stable ones.
        #[test]
        fn the_standard_library_agrees(octets: [u8; 4], octets6: [u8; 16]) {
            let (address, range) = (Ipv4Addr::from(octets), range4(u32::from_ne_bytes(octets)));
            prop_assert_eq!(range == Some(Range::Private), address.is_private());
            prop_assert_eq!(range == Some(Range::LinkLocal), address.is_link_local());
            prop_assert_eq!(range == Some(Range::Multicast), address.is_multicast());
            prop_assert_eq!(range == Some(Range::Documentation), address.is_documentation());
            prop_assert_eq!(range == Some(Range::Loopback), address.is_loopback());
            let (address, range) = (Ipv6Addr::from(octets6), range6(halves(octets6)));
            prop_assert_eq!(range == Some(Range::LinkLocal), address.is_unicast_link_local());
            if address.is_unique_local() {
                prop_assert_eq!(range, Some(Range::Private));
            }
        }

        /// Nothing is denied that is nobody's range, is allowed, or meets a guard that doesn't enforce; what is counted has a slot of its own.
        #[test]
        fn only_enforce_denies(mode in prop::sample::select(&Mode::ALL[..]), deadline in 0u64..10, now in 0u64..10, range in prop::option::of(prop::sample::select(&Range::ALL[..])), allowed: bool) {
            let dial = judge(Config::new(mode), deadline, now, range, allowed);
            let enforcing = mode == Mode::Enforce && (deadline == 0 || now <= deadline);
            match dial {
                Dial::Denied(denied) => prop_assert!(enforcing && !allowed && Some(denied) == range),
                Dial::WouldDeny(denied) => prop_assert!(!enforcing && mode != Mode::Off && !allowed && Some(denied) == range),
                Dial::Allowed => prop_assert!(range.is_none() || allowed || mode == Mode::Off),
            }
            prop_assert!(dial.slot().is_none_or(|slot| slot < RANGES * OUTCOMES));
        }
    }
}
