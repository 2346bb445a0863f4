//! Address prefixes: what a ban or a floor range names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network prefix. Host bits are zero; an IPv4-mapped IPv6 address is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    v6: bool,
    bits: u128,
    length: u8,
}

/// Why a text or a pair is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The address part is no IP address.
    #[error("'{0}' is no IP address")]
    Address(String),
    /// The length part is no number, or longer than the address.
    #[error("'{0}' is no prefix length for this address")]
    Length(String),
}

impl Prefix {
    /// The prefix of `length` bits that holds `address`.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let (v6, bits, width, length) = match address {
            IpAddr::V4(v4) => (false, u32::from(v4) as u128, 32, length),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => (false, u32::from(v4) as u128, 32, length - 96),
                _ => (true, u128::from(v6), 128, length),
            },
        };
        if length > width {
            return Err(PrefixError::Length(length.to_string()));
        }
        let host = (width - length) as u32;
        let mask = if host == 128 { 0 } else { u128::MAX << host };
        Ok(Prefix { v6, bits: bits & mask, length })
    }

    /// The prefix of exactly this address.
    pub fn host(address: IpAddr) -> Prefix {
        match address {
            IpAddr::V4(v4) => Prefix { v6: false, bits: u32::from(v4) as u128, length: 32 },
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Prefix::host(IpAddr::V4(v4)),
                None => Prefix { v6: true, bits: u128::from(v6), length: 128 },
            },
        }
    }

    /// Whether it is IPv6.
    pub const fn is_v6(&self) -> bool {
        self.v6
    }

    /// The address as a number (32 bits of it for IPv4).
    pub const fn bits(&self) -> u128 {
        self.bits
    }

    /// Length in bits.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        if self.v6 { IpAddr::V6(Ipv6Addr::from(self.bits)) } else { IpAddr::V4(Ipv4Addr::from(self.bits as u32)) }
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Prefix::host(address))
    }

    /// Whether the other prefix lies wholly in it.
    pub fn covers(&self, other: &Prefix) -> bool {
        let host = if self.v6 { 128 } else { 32 } - self.length as u32;
        self.v6 == other.v6 && self.length <= other.length && (host == 128 || (self.bits ^ other.bits) >> host == 0)
    }

    /// Whether they share an address.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The prefix that a ban of this one really means: an IPv6 host stands for its /64, since it can pick any address of it.
    pub fn widened(self) -> Prefix {
        if self.v6 && self.length > 64 { Prefix { v6: true, bits: self.bits >> 64 << 64, length: 64 } } else { self }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| PrefixError::Address(address.chars().take(64).collect()))?;
        match length {
            None => Ok(Prefix::host(ip)),
            Some(length) => {
                let bits = length.parse().map_err(|_| PrefixError::Length(length.chars().take(16).collect()))?;
                Prefix::new(ip, bits)
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl serde::Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        let check = |text: &str, expect: &str| assert_eq!(text.parse::<Prefix>().unwrap().to_string(), expect);
        check("10.1.2.3", "10.1.2.3/32");
        check("10.1.2.3/8", "10.0.0.0/8");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("::ffff:10.1.2.3", "10.1.2.3/32");
        check("::ffff:10.1.2.3/120", "10.1.2.0/24");
        check("2001:db8::1/32", "2001:db8::/32");
        check("::/0", "::/0");
        for bad in ["", "10.1.2", "10.1.2.3/33", "::1/129", "10.1.2.3/x", "10.1.2.3/-1", "a/b/c", "10.1.2.3/256"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        assert_eq!("2001:db8::5".parse::<Prefix>().unwrap().widened().to_string(), "2001:db8::/64");
        assert_eq!("10.1.2.3".parse::<Prefix>().unwrap().widened().to_string(), "10.1.2.3/32");
    }

    proptest! {
        #[test]
        fn covers_is_contains_of_both_ends(a: u32, la in 0u8..=32, b: u32, lb in 0u8..=32) {
            let (p, q) = (Prefix::new(Ipv4Addr::from(a).into(), la).unwrap(), Prefix::new(Ipv4Addr::from(b).into(), lb).unwrap());
            let last = IpAddr::V4(Ipv4Addr::from(q.bits() as u32 | (u32::MAX.checked_shr(lb as u32).unwrap_or(0))));
            prop_assert_eq!(p.covers(&q), la <= lb && p.contains(q.address()) && p.contains(last));
            prop_assert_eq!(p.overlaps(&q), q.overlaps(&p));
        }

        #[test]
        fn text_round_trip(bits: u128, length in 0u8..=128) {
            let prefix = Prefix::new(Ipv6Addr::from(bits).into(), length).unwrap();
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<Prefix>();
        }
    }
}
