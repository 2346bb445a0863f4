//! Packets with somebody else's address on them, from a raw socket.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
const TTL: u8 = 64;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// PSH and ACK: a segment of an established connection.
const TCP_FLAGS: u8 = 0x18;

/// A raw socket of the namespace that the calling thread is in.
#[derive(Debug)]
pub struct Spoofer {
    socket: OwnedFd,
}

impl Spoofer {
    /// Opens it (IPPROTO_RAW: we write the IP header; the kernel fills in length, id and checksum).
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<Spoofer> {
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        Ok(Spoofer { socket: socket.context("open a raw socket")? })
    }

    /// Sends a UDP datagram "from" an address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn udp(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Result<()> {
        self.send(*to.ip(), &udp_packet(from, to, payload))
    }

    /// Sends a TCP segment "from" an address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn tcp(&self, from: SocketAddrV4, to: SocketAddrV4, sequence: u32, payload: &[u8]) -> Result<()> {
        self.send(*to.ip(), &tcp_packet(from, to, sequence, payload))
    }

    fn send(&self, to: Ipv4Addr, packet: &[u8]) -> Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty()).context("send a spoofed packet")?;
        Ok(())
    }
}

fn ip_header(from: Ipv4Addr, to: Ipv4Addr, protocol: u8) -> [u8; IPV4_BYTES] {
    let mut header = [0u8; IPV4_BYTES];
    // Version 4, five words; length, id and checksum stay zero for the kernel.
    header[0] = 0x45;
    header[8] = TTL;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    header
}

fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(UDP_BYTES + payload.len()).unwrap_or(u16::MAX);
    // Checksum 0: none (RFC 768).
    let parts = [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0, 0]];
    [ip_header(*from.ip(), *to.ip(), PROTOCOL_UDP).as_slice(), parts.as_flattened(), payload].concat()
}

fn tcp_packet(from: SocketAddrV4, to: SocketAddrV4, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(TCP_BYTES + payload.len());
    segment.extend_from_slice(&from.port().to_be_bytes());
    segment.extend_from_slice(&to.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    // Five words of header, flags, a full window; checksum and urgent pointer.
    segment.extend_from_slice(&[0x50, TCP_FLAGS, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
    let pseudo = [from.ip().octets().as_slice(), &to.ip().octets(), &[0, PROTOCOL_TCP], &length.to_be_bytes()].concat();
    let sum = checksum(&[pseudo.as_slice(), &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    [ip_header(*from.ip(), *to.ip(), PROTOCOL_TCP).as_slice(), &segment].concat()
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_rfc() {
        // RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }

    #[test]
    fn a_segment_checks_out_and_names_the_victim() {
        let from: SocketAddrV4 = "10.77.0.12:9000".parse().unwrap();
        let to: SocketAddrV4 = "10.77.0.11:9000".parse().unwrap();
        let packet = tcp_packet(from, to, 7, b"garbage");
        assert_eq!(packet[12..16], [10, 77, 0, 12]);
        let length = (packet.len() - IPV4_BYTES) as u16;
        let pseudo = [&packet[12..20], &[0, PROTOCOL_TCP], &length.to_be_bytes(), &packet[IPV4_BYTES..]].concat();
        assert_eq!(checksum(&pseudo), 0, "a correct checksum sums to all ones");
        assert_eq!(udp_packet(from, to, b"x")[24..26], [0, 9]);
    }
}
