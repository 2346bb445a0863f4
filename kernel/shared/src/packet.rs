//! The packet parser: Ethernet, at most two VLAN tags, IPv4 with options, IPv6 with at most four extension headers.
//!
//! Reads are of two, four or eight bytes only. A one-byte read at a variable offset compiles to a bound check (`>=`) from
//! which the kernel's verifier learns nothing, so bytes are taken out of halfwords.

use crate::abi::{TCP, UDP};

/// VLAN tags that are walked; a third one hides the port. (The kernel takes off any number of tags that name no VLAN.)
pub const VLAN_TAGS_MAX: usize = 2;
/// IPv6 extension headers that are walked; a fifth one makes the port unreadable.
pub const EXTENSION_HEADERS_MAX: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// A frame's bytes. Every read is checked against the end of the frame.
pub trait Packet {
    /// Bytes of the frame: what is counted. All of them can be read, but where they lie in the pages of a long socket buffer.
    fn length(&self) -> usize;
    /// A big-endian halfword, as a number.
    fn be16(&self, offset: usize) -> Option<u16>;
    /// Four bytes in the order of the wire.
    fn raw32(&self, offset: usize) -> Option<u32>;
    /// Eight bytes in the order of the wire.
    fn raw64(&self, offset: usize) -> Option<u64>;
}

impl Packet for [u8] {
    fn length(&self) -> usize {
        self.len()
    }
    fn be16(&self, offset: usize) -> Option<u16> {
        self.get(offset..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }
    fn raw32(&self, offset: usize) -> Option<u32> {
        self.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }
    fn raw64(&self, offset: usize) -> Option<u64> {
        self.get(offset..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Which half of the pipeline a frame goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 from this offset.
    V4(usize),
    /// IPv6 from this offset.
    V6(usize),
    /// More tags than are walked: what is behind them may be anything.
    Tagged,
    /// ARP and all else that is not IP.
    Other,
}

/// Walks Ethernet and the VLAN tags.
#[inline(always)]
pub fn family<P: Packet + ?Sized>(packet: &P) -> Family {
    let Some(mut ethertype) = packet.be16(12) else { return Family::Other };
    let mut offset = 14;
    let mut tags = 0;
    while tags < VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        let Some(inner) = packet.be16(offset + 2) else { return Family::Other };
        ethertype = inner;
        offset += 4;
        tags += 1;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Family::V4(offset),
        ETHERTYPE_IPV6 => Family::V6(offset),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Family::Tagged,
        _ => Family::Other,
    }
}

/// Whether something stands between the frame's IPv6 header and its transport header: then that may begin far behind it.
#[inline(always)]
pub fn has_extension_headers<P: Packet + ?Sized>(packet: &P) -> bool {
    let Family::V6(offset) = family(packet) else { return false };
    packet.be16(offset + 6).is_some_and(|next_hops| matches!(next_hops >> 8, 0 | 43 | 44 | 51 | 60))
}

/// What of an IP header the verdict looks at. `A` is the address: `u32` or `[u64; 2]`, wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader<A> {
    /// Source address.
    pub source: A,
    /// TCP or UDP.
    pub protocol: u8,
    /// The packet is the first of several fragments.
    pub first_fragment: bool,
    /// Offset of the transport header.
    pub transport: usize,
    /// Offset of the first byte after the IP packet, by its own length field.
    pub end: usize,
    /// Ports.
    pub ports: Ports,
}

/// Ports, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The sender's.
    pub source: u16,
    /// Ours.
    pub destination: u16,
}

/// What became of parsing an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<A> {
    /// TCP or UDP with readable ports.
    Transport(IpHeader<A>),
    /// Nothing that a port filter has a say in: another protocol, a later fragment, a packet cut short.
    NoPort,
    /// IPv6 whose port lies beyond the headers that we walk.
    Unreadable,
}

/// The ports at this offset, if they lie inside the IP packet and the frame.
#[inline(always)]
fn ports<P: Packet + ?Sized>(packet: &P, transport: usize, end: usize) -> Option<Ports> {
    if transport + 4 > end {
        return None;
    }
    let word = u32::from_be(packet.raw32(transport)?);
    Some(Ports { source: (word >> 16) as u16, destination: word as u16 })
}

/// Offset of the first byte after an IP packet of this length. One of 0 reaches to the frame's end: so does the kernel take IPv6 with a
/// hop-by-hop header (RFC 2675, though it asks for no jumbo option), and segments that it has merged to more than 64 KiB itself.
#[inline(always)]
fn end<P: Packet + ?Sized>(packet: &P, offset: usize, length: usize) -> usize {
    if length == 0 { packet.length() } else { offset + length }
}

/// Parses the IPv4 packet at `offset`.
///
/// A header that the kernel's own stack refuses (version, header length, total length) is `NoPort`: it dies there, not here.
#[inline(always)]
pub fn parse_v4<P: Packet + ?Sized>(packet: &P, offset: usize) -> Parsed<u32> {
    let Some(version_tos) = packet.be16(offset) else { return Parsed::NoPort };
    let header = (version_tos >> 8 & 15) as usize * 4;
    if version_tos >> 12 != 4 || header < 20 {
        return Parsed::NoPort;
    }
    // The last field that we need is read first: its bound covers all others.
    let Some(_destination) = packet.raw32(offset + 16) else { return Parsed::NoPort };
    let Some(source) = packet.raw32(offset + 12) else { return Parsed::NoPort };
    let Some(ttl_protocol) = packet.be16(offset + 8) else { return Parsed::NoPort };
    let Some(fragment) = packet.be16(offset + 6) else { return Parsed::NoPort };
    let Some(total) = packet.be16(offset + 2) else { return Parsed::NoPort };
    let protocol = ttl_protocol as u8;
    if (protocol != TCP && protocol != UDP) || fragment & 0x1fff != 0 {
        return Parsed::NoPort;
    }
    let transport = offset + header;
    let end = end(packet, offset, total as usize);
    match ports(packet, transport, end) {
        Some(ports) => {
            Parsed::Transport(IpHeader { source, protocol, first_fragment: fragment & 0x2000 != 0, transport, end, ports })
        }
        None => Parsed::NoPort,
    }
}

/// Parses the IPv6 packet at `offset`.
#[inline(always)]
pub fn parse_v6<P: Packet + ?Sized>(packet: &P, offset: usize) -> Parsed<[u64; 2]> {
    let Some(_end_of_header) = packet.raw64(offset + 32) else { return Parsed::NoPort };
    let Some(low) = packet.raw64(offset + 16) else { return Parsed::NoPort };
    let Some(high) = packet.raw64(offset + 8) else { return Parsed::NoPort };
    let Some(next_hops) = packet.be16(offset + 6) else { return Parsed::NoPort };
    let Some(payload) = packet.be16(offset + 4) else { return Parsed::NoPort };
    let Some(version) = packet.be16(offset) else { return Parsed::NoPort };
    if version >> 12 != 6 {
        return Parsed::NoPort;
    }
    let end = end(packet, offset, if payload == 0 { 0 } else { 40 + payload as usize });
    let mut next = (next_hops >> 8) as u8;
    let mut transport = offset + 40;
    let mut first_fragment = false;
    let mut headers = 0;
    while headers < EXTENSION_HEADERS_MAX {
        let step = match next {
            0 | 43 | 60 => 8, // hop-by-hop, routing, destination options: length in 8 bytes
            51 => 4,          // authentication: length in 4 bytes
            44 => 0,          // fragment: fixed
            _ => break,
        };
        let Some(word) = packet.be16(transport) else { return Parsed::NoPort };
        let length = (word & 0xff) as usize;
        if step == 0 {
            let Some(fragment) = packet.be16(transport + 2) else { return Parsed::NoPort };
            if fragment >> 3 != 0 {
                return Parsed::NoPort;
            }
            first_fragment |= fragment & 1 == 1;
            transport += 8;
        } else if step == 8 {
            transport += (length + 1) * 8;
        } else {
            transport += (length + 2) * 4;
        }
        next = (word >> 8) as u8;
        headers += 1;
    }
    match next {
        TCP | UDP => match ports(packet, transport, end) {
            Some(ports) => {
                Parsed::Transport(IpHeader { source: [high, low], protocol: next, first_fragment, transport, end, ports })
            }
            // RFC 8200: a first fragment must hold all headers. One that hides its port is trying something.
            None if first_fragment => Parsed::Unreadable,
            None => Parsed::NoPort,
        },
        0 | 43 | 44 | 51 | 60 => Parsed::Unreadable,
        _ => Parsed::NoPort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0usize..220) {
            family(&bytes[..]);
            parse_v4(&bytes[..], offset);
            parse_v6(&bytes[..], offset);
        }

        /// What is reported lies inside the frame, whatever the bytes say.
        #[test]
        fn ports_lie_inside_the_frame(mut bytes in proptest::collection::vec(any::<u8>(), 40..200), v6: bool, next in prop::sample::select(&[0u8, 6, 17, 43, 44, 51, 60][..])) {
            bytes[0] = if v6 { 0x60 } else { 0x45 + (bytes[0] & 7) };
            bytes[if v6 { 6 } else { 9 }] = next;
            let transport = if v6 {
                match parse_v6(&bytes[..], 0) { Parsed::Transport(header) => Some(header.transport), _ => None }
            } else {
                match parse_v4(&bytes[..], 0) { Parsed::Transport(header) => Some(header.transport), _ => None }
            };
            if let Some(transport) = transport {
                prop_assert!(transport + 4 <= bytes.len());
            }
        }
    }

    #[test]
    fn a_third_tag_hides_what_is_behind() {
        let mut frame = [0u8; 64];
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame[16..18].copy_from_slice(&[0x81, 0x00]);
        frame[20..22].copy_from_slice(&[0x08, 0x00]);
        assert_eq!(family(&frame[..]), Family::V4(22));
        frame[20..22].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(family(&frame[..]), Family::Tagged);
    }
}
