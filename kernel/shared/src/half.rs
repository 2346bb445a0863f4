//! What differs between IPv4 and IPv6: which tables a half of the pipeline asks, and which addresses can't be a sender's.

use crate::{
    abi::{BanValue, Flow4, Flow6, FlowValue, ValidatorValue},
    ban::{bit4, bit6, host4, host6},
    packet::Packet,
    verdict::Tables,
};

/// An address family: which tables its half of the pipeline asks.
pub(crate) trait Half: Copy {
    /// 4 or 6.
    const VERSION: u8;
    fn flow<T: Tables>(tables: &T, address: Self, port: u16, protocol: u8) -> Option<&FlowValue>;
    fn suspicious<T: Tables>(tables: &T, address: Self) -> bool;
    fn exact<T: Tables>(tables: &T, address: Self) -> Option<&BanValue>;
    fn range<T: Tables>(tables: &T, address: Self) -> Option<&BanValue>;
    /// Whether a list holds the address; its hit is counted.
    fn listed<T: Tables>(tables: &T, address: Self, now: u64) -> bool;
    /// Whether the address may have flows or a validator's budget; false is a proof that it has none.
    fn hosted<T: Tables>(tables: &T, address: Self) -> bool;
    /// The budgets of a validator's address.
    fn validator<T: Tables>(tables: &T, address: Self) -> Option<&ValidatorValue>;
    /// Whether the address is no sender's, or the packet's own destination; `ip` is where the IP header lies.
    fn martian<P: Packet + ?Sized>(packet: &P, ip: usize, source: Self) -> bool;
    /// What strangers share a budget by: the address (v6: its /64), and its /24 (v6: /48).
    fn networks(address: Self) -> (u64, u64);
}

impl Half for u32 {
    const VERSION: u8 = 4;
    #[inline(always)]
    fn flow<T: Tables>(tables: &T, address: u32, port: u16, protocol: u8) -> Option<&FlowValue> {
        tables.flow4(&Flow4::new(address, port, protocol))
    }
    #[inline(always)]
    fn suspicious<T: Tables>(tables: &T, address: u32) -> bool {
        let bit = bit4(address);
        tables.ban_bits4(bit.word) & bit.mask != 0
    }
    #[inline(always)]
    fn exact<T: Tables>(tables: &T, address: u32) -> Option<&BanValue> {
        tables.ban4(address)
    }
    #[inline(always)]
    fn range<T: Tables>(tables: &T, address: u32) -> Option<&BanValue> {
        tables.range4(address)
    }
    #[inline(always)]
    fn listed<T: Tables>(tables: &T, address: u32, now: u64) -> bool {
        tables.listed4(u32::from_be(address), now)
    }
    #[inline(always)]
    fn hosted<T: Tables>(tables: &T, address: u32) -> bool {
        let bit = host4(address);
        tables.host_bits(bit.word) & bit.mask != 0
    }
    #[inline(always)]
    fn validator<T: Tables>(tables: &T, address: u32) -> Option<&ValidatorValue> {
        tables.validator4(address)
    }
    #[inline(always)]
    fn martian<P: Packet + ?Sized>(packet: &P, ip: usize, source: u32) -> bool {
        let first = u32::from_be(source) >> 24;
        // RFC 6890: "this network", loopback, multicast and above (which includes broadcast).
        first == 0 || first == 127 || first >= 224 || packet.raw32(ip + 16) == Some(source)
    }
    #[inline(always)]
    fn networks(address: u32) -> (u64, u64) {
        let number = u32::from_be(address);
        (number as u64, (number >> 8) as u64)
    }
}

impl Half for [u64; 2] {
    const VERSION: u8 = 6;
    #[inline(always)]
    fn flow<T: Tables>(tables: &T, address: [u64; 2], port: u16, protocol: u8) -> Option<&FlowValue> {
        tables.flow6(&Flow6::new(address, port, protocol))
    }
    #[inline(always)]
    fn suspicious<T: Tables>(tables: &T, address: [u64; 2]) -> bool {
        let bit = bit6(address);
        tables.ban_bits6(bit.word) & bit.mask != 0
    }
    #[inline(always)]
    fn exact<T: Tables>(tables: &T, address: [u64; 2]) -> Option<&BanValue> {
        tables.ban6(address[0])
    }
    #[inline(always)]
    fn range<T: Tables>(tables: &T, address: [u64; 2]) -> Option<&BanValue> {
        tables.range6(address)
    }
    #[inline(always)]
    fn listed<T: Tables>(tables: &T, address: [u64; 2], now: u64) -> bool {
        tables.listed6(u64::from_be(address[0]), now)
    }
    #[inline(always)]
    fn hosted<T: Tables>(tables: &T, address: [u64; 2]) -> bool {
        let bit = host6(address);
        tables.host_bits(bit.word) & bit.mask != 0
    }
    #[inline(always)]
    fn validator<T: Tables>(tables: &T, address: [u64; 2]) -> Option<&ValidatorValue> {
        tables.validator6(address)
    }
    #[inline(always)]
    fn martian<P: Packet + ?Sized>(packet: &P, ip: usize, source: [u64; 2]) -> bool {
        let (high, low) = (u64::from_be(source[0]), u64::from_be(source[1]));
        // Unspecified, loopback, IPv4-mapped; multicast.
        (high == 0 && (low <= 1 || low >> 32 == 0xffff))
            || high >> 56 == 0xff
            || (packet.raw64(ip + 24) == Some(source[0]) && packet.raw64(ip + 32) == Some(source[1]))
    }
    #[inline(always)]
    fn networks(address: [u64; 2]) -> (u64, u64) {
        let high = u64::from_be(address[0]);
        (high, high >> 16)
    }
}
