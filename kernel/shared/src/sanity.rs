//! Step 6: what no honest sender makes, told from the packet alone. For strangers only: flows have answered a handshake.
//!
//! A packet that passes leaves with the class whose budget it pays from. What is *not* checked: QUIC's fixed bit. RFC 9287 lets
//! an endpoint clear it at will once its peer has offered that, and common stacks do so within the handshake.

use crate::{
    abi::{PORTS_QUIC, TCP},
    control::{Config, WORD_CONFIG},
    half::Half,
    packet::{IpHeader, Packet},
    strangers::Class,
    verdict::Tables,
};

/// FIN, SYN, RST and ACK; PSH, URG and the rest are free.
const FLAGS: u16 = 0b1_0111;
const SYN: u16 = 0b0_0010;
/// The combinations that exist (bit n = combination n): SYN, SYN+ACK, RST, RST+ACK, ACK, FIN+ACK.
const LEGAL: u32 = 1 << 0x02 | 1 << 0x12 | 1 << 0x04 | 1 << 0x14 | 1 << 0x10 | 1 << 0x11;

/// QUIC version 1 (RFC 9000).
const QUIC_V1: u32 = 1;
/// QUIC version 2 (RFC 9369), whose packet types are numbered otherwise.
const QUIC_V2: u32 = 0x6b33_43cf;
/// Smallest payload of a UDP datagram that carries an Initial (RFC 9000, 14.1).
const QUIC_INITIAL_BYTES_MIN: usize = 1200;

/// The class of a stranger's packet; `None` = malformed.
#[inline(always)]
pub(crate) fn class<A: Half, P: Packet + ?Sized, T: Tables>(
    packet: &P,
    header: &IpHeader<A>,
    ip: usize,
    tables: &T,
) -> Option<Class> {
    if header.ports.source == 0 {
        return None;
    }
    if A::martian(packet, ip, header.source) && !Config::from_word(tables.control(WORD_CONFIG)).loopback() {
        return None;
    }
    if header.protocol == TCP { tcp(packet, header) } else { udp(packet, header, tables) }
}

/// TCP: a whole header with flags that exist.
#[inline(always)]
fn tcp<A, P: Packet + ?Sized>(packet: &P, header: &IpHeader<A>) -> Option<Class> {
    let word = packet.be16(header.transport + 12)?;
    let words = (word >> 12) as usize;
    if words < 5 || header.transport + words * 4 > header.end {
        return None;
    }
    let flags = word & FLAGS;
    if LEGAL >> flags & 1 == 0 {
        return None;
    }
    Some(if flags == SYN { Class::Syn } else { Class::Tcp })
}

/// UDP: a length that fits; on a port that speaks QUIC, a long header of a known version and a full-sized Initial.
#[inline(always)]
fn udp<A, P: Packet + ?Sized, T: Tables>(packet: &P, header: &IpHeader<A>, tables: &T) -> Option<Class> {
    let length = packet.be16(header.transport + 4)? as usize;
    if length < 8 || header.transport + length > header.end {
        return None;
    }
    let port = header.ports.destination as u32;
    // Fewer than eight bytes of payload are nobody's long header.
    if length < 16 || tables.protected(PORTS_QUIC + (port >> 6)) >> (port & 63) & 1 == 0 {
        return Some(Class::Udp);
    }
    let head = u64::from_be(packet.raw64(header.transport + 8)?);
    if head >> 63 == 0 {
        return Some(Class::Udp);
    }
    let kind = head >> 60 & 3;
    let initial = match (head >> 24) as u32 {
        QUIC_V1 => kind == 0,
        QUIC_V2 => kind == 1,
        _ => return None,
    };
    if !initial {
        return Some(Class::Udp);
    }
    if length - 8 < QUIC_INITIAL_BYTES_MIN { None } else { Some(Class::Initial) }
}
