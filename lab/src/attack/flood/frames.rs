//! What the flood consists of: well-formed packets that make a node work, from addresses that nobody has, some from a validator's.
//!
//! Half of the turns open QUIC connections ([`super::openings`]), which an unguarded node answers with a handshake; the rest are SYNs,
//! segments of connections that nobody has, and datagrams of QUIC connections that nobody has. Checksums are right, so the
//! stack can't refuse them cheaply.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::openings::Opening;
use crate::attack::spoof::checksum;

const IPV4_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// A short datagram: header byte, connection id, some payload.
const DATAGRAM_BYTES: usize = 64;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Every so many frames, one is "from" a validator's very address.
pub const VALIDATOR_EVERY: u64 = 64;

/// A node to flood.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its interface's hardware address.
    pub hardware: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port, TCP and UDP.
    pub port: u16,
    /// Another validator, whose address some packets bear.
    pub validator: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    Opening,
    Segment,
    Datagram,
}

/// The order in which kinds come, over and over.
const KINDS: [Kind; 6] = [Kind::Opening, Kind::Syn, Kind::Opening, Kind::Segment, Kind::Opening, Kind::Datagram];

/// Makes frames without end, for each target in turn.
#[derive(Debug)]
pub struct Frames {
    rng: ChaCha8Rng,
    targets: Vec<Target>,
    openings: Arc<Vec<Opening>>,
    turns: u64,
    opened: u64,
    /// Later datagrams of an opening whose first was just written.
    due: VecDeque<Vec<u8>>,
}

impl Frames {
    /// Frames to these targets; the seed chooses sources and ports.
    pub fn new(targets: Vec<Target>, openings: Arc<Vec<Opening>>, seed: u64) -> Frames {
        Frames { rng: ChaCha8Rng::seed_from_u64(seed), targets, openings, turns: 0, opened: 0, due: VecDeque::new() }
    }

    /// QUIC connections opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Writes the next frame; false without targets.
    pub fn next(&mut self, frame: &mut Vec<u8>) -> bool {
        if let Some(due) = self.due.pop_front() {
            *frame = due;
            return true;
        }
        let count = self.targets.len() as u64;
        if count == 0 {
            return false;
        }
        let turn = self.turns / count;
        let target = self.targets[(self.turns % count) as usize].clone();
        self.turns += 1;
        let kind = KINDS[(turn % KINDS.len() as u64) as usize];
        let source = if turn.is_multiple_of(VALIDATOR_EVERY) { target.validator } else { self.stranger() };
        self.write(frame, kind, source, &target);
        true
    }

    fn write(&mut self, frame: &mut Vec<u8>, kind: Kind, source: Ipv4Addr, target: &Target) {
        match kind {
            Kind::Syn => self.tcp(frame, source, target, SYN),
            Kind::Segment => self.tcp(frame, source, target, ACK),
            Kind::Opening => self.opening(frame, source, target),
            Kind::Datagram => {
                let mut payload = [0x5a; DATAGRAM_BYTES];
                payload[0] = 0x40;
                payload[1..33].copy_from_slice(&self.rng.random::<[u8; 32]>());
                let port = self.port();
                udp(frame, source, port, target, &payload);
            }
        }
    }

    /// The next connection's first datagram; the others follow at once, from the same source. Every target gets each connection, so
    /// they come back to it as late as can be.
    fn opening(&mut self, frame: &mut Vec<u8>, source: Ipv4Addr, target: &Target) {
        let turn = self.opened / self.targets.len() as u64;
        self.opened += 1;
        let port = self.port();
        let openings = Arc::clone(&self.openings);
        let Some(opening) = openings.get((turn % openings.len().max(1) as u64) as usize) else {
            return self.tcp(frame, source, target, SYN);
        };
        let mut frames = opening.iter().map(|datagram| {
            let mut frame = Vec::new();
            udp(&mut frame, source, port, target, datagram);
            frame
        });
        if let Some(first) = frames.next() {
            *frame = first;
        }
        self.due.extend(frames);
    }

    /// 16.0.0.0 to 79.255.255.255: no martians.
    fn stranger(&mut self) -> Ipv4Addr {
        let number: u32 = self.rng.random();
        Ipv4Addr::from((number & 0x00ff_ffff) | (16 + (number >> 24) % 64) << 24)
    }

    fn port(&mut self) -> u16 {
        self.rng.random_range(1_024..=u16::MAX)
    }

    fn tcp(&mut self, frame: &mut Vec<u8>, source: Ipv4Addr, target: &Target, flags: u8) {
        headers(frame, source, target, PROTOCOL_TCP, TCP_BYTES);
        let start = frame.len();
        frame.extend_from_slice(&self.port().to_be_bytes());
        frame.extend_from_slice(&target.port.to_be_bytes());
        frame.extend_from_slice(&self.rng.random::<[u8; 8]>());
        frame.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [source.octets(), target.address.octets(), [0, PROTOCOL_TCP, 0, TCP_BYTES as u8]].concat();
        let sum = checksum(&[&pseudo, &frame[start..]].concat());
        frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Begins a frame: Ethernet, IPv4.
fn headers(frame: &mut Vec<u8>, source: Ipv4Addr, target: &Target, protocol: u8, payload: usize) {
    frame.clear();
    frame.extend_from_slice(&target.hardware);
    // A locally administered address of no interface.
    frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 0x66, 0x08, 0x00]);
    ip(frame, source, target.address, protocol, payload);
}

fn udp(frame: &mut Vec<u8>, source: Ipv4Addr, port: u16, target: &Target, payload: &[u8]) {
    let length = UDP_BYTES + payload.len();
    headers(frame, source, target, PROTOCOL_UDP, length);
    // Checksum 0: none (RFC 768).
    let parts = [port.to_be_bytes(), target.port.to_be_bytes(), (length as u16).to_be_bytes(), [0, 0]];
    frame.extend_from_slice(parts.as_flattened());
    frame.extend_from_slice(payload);
}

fn ip(frame: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: usize) {
    let start = frame.len();
    let total = ((IPV4_BYTES + payload) as u16).to_be_bytes();
    frame.extend_from_slice(&[0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    let sum = checksum(&frame[start..]);
    frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET_BYTES: usize = 14;

    fn target() -> Target {
        Target {
            hardware: [2, 0, 0, 0, 0, 9],
            address: Ipv4Addr::new(10, 77, 0, 11),
            port: 9_000,
            validator: Ipv4Addr::new(10, 77, 0, 12),
        }
    }

    #[test]
    fn frames_are_well_formed_and_bear_many_sources() {
        let openings = Arc::new(vec![vec![vec![0xc0; 1_200], vec![0xc1; 1_200]]; 3]);
        let mut frames = Frames::new(vec![target(), target()], openings, 7);
        let mut sources = std::collections::BTreeSet::new();
        let (mut validators, mut first, mut second) = (0, 0, 0);
        let mut frame = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        for _ in 0..1_920 {
            assert!(frames.next(&mut frame));
            assert_eq!(checksum(&frame[14..34]), 0, "the IP checksum is right");
            assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - ETHERNET_BYTES);
            assert_eq!(frame[36..38], 9_000u16.to_be_bytes());
            if frame[23] == PROTOCOL_TCP {
                let pseudo = [&frame[26..34], &[0, PROTOCOL_TCP, 0, TCP_BYTES as u8], &frame[34..]].concat();
                assert_eq!(checksum(&pseudo), 0, "the TCP checksum is right");
            } else if frame[42] == 0xc0 {
                first += 1;
            } else if frame[42] == 0xc1 {
                second += 1;
                assert_eq!(
                    last.as_ref().unwrap()[26..38],
                    frame[26..38],
                    "the flight's second datagram has the first one's source"
                );
            }
            validators += u32::from(frame[26..30] == [10, 77, 0, 12]);
            sources.insert(frame[26..30].to_vec());
            last = Some(frame.clone());
        }
        assert_eq!((first, second), (640, 640), "half of the turns open a connection, with two datagrams each");
        assert!(validators >= 1_280 / VALIDATOR_EVERY as u32);
        assert!(sources.len() > 1_200);
    }

    #[test]
    fn without_targets_there_is_nothing_to_send() {
        assert!(!Frames::new(Vec::new(), Arc::default(), 1).next(&mut Vec::new()));
    }
}
