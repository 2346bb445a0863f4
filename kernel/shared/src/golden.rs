//! Golden packets: a scene, frames, and the verdict that each must get, written down by hand.
//!
//! The same table runs natively over [`crate::model`] and in the kernel by `BPF_PROG_TEST_RUN`. Expectations come from the
//! table here, never from the code under test.

extern crate std;

use crate::{
    Reason,
    abi::{BanValue, Flow4, Flow6, FlowClass, FlowValue, ROW_NONE, Range4, Range6, TCP, UDP, ValidatorValue},
    model::Model,
};

mod floods;
mod sanity;
mod shapes;

pub use floods::{Flood, floods};
use std::{format, string::String, vec::Vec};

/// The protected port, TCP and UDP.
pub const PORT: u16 = 9000;
/// The protected UDP port that speaks QUIC.
pub const QUIC_PORT: u16 = 9100;
/// The remote port of all flows.
pub const REMOTE_PORT: u16 = 4000;

const ALWAYS: u64 = u64::MAX;
const EXPIRED: u64 = 0;

/// A sender, by the third octet of its IPv4 address and the third group of its IPv6 address.
struct Sender {
    id: u8,
    name: &'static str,
    /// Class, expiry, budget (units) of its flows.
    flow: Option<(FlowClass, u64, u32)>,
    /// Offence and expiry of its exact ban.
    exact: Option<(u32, u64)>,
    /// Offence and expiry of its range's ban.
    range: Option<(u32, u64)>,
    expect: (Reason, Reason),
}

const FULL: u32 = u32::MAX;

const SENDERS: [Sender; 15] = [
    Sender { id: 0, name: "stranger", flow: None, exact: None, range: None, expect: (Reason::Stranger, Reason::Stranger) },
    Sender {
        id: 1,
        name: "floor",
        flow: Some((FlowClass::Floor, ALWAYS, FULL)),
        exact: None,
        range: None,
        expect: (Reason::Floor, Reason::Floor),
    },
    Sender {
        id: 2,
        name: "known",
        flow: Some((FlowClass::Known, ALWAYS, FULL)),
        exact: None,
        range: None,
        expect: (Reason::Known, Reason::Known),
    },
    Sender {
        id: 3,
        name: "dialing",
        flow: Some((FlowClass::Dialing, ALWAYS, FULL)),
        exact: None,
        range: None,
        expect: (Reason::Dialing, Reason::Dialing),
    },
    Sender {
        id: 4,
        name: "banned",
        flow: None,
        exact: Some((2, ALWAYS)),
        range: None,
        expect: (Reason::BannedBadSignature, Reason::Stranger),
    },
    Sender {
        id: 5,
        name: "in a banned range",
        flow: None,
        exact: None,
        range: Some((8, ALWAYS)),
        expect: (Reason::BannedRate, Reason::Stranger),
    },
    Sender {
        id: 6,
        name: "ban expired",
        flow: None,
        exact: Some((2, EXPIRED)),
        range: None,
        expect: (Reason::Stranger, Reason::Stranger),
    },
    Sender {
        id: 7,
        name: "flow expired",
        flow: Some((FlowClass::Known, EXPIRED, FULL)),
        exact: None,
        range: None,
        expect: (Reason::Stranger, Reason::Stranger),
    },
    Sender {
        id: 8,
        name: "floor and banned",
        flow: Some((FlowClass::Floor, ALWAYS, FULL)),
        exact: Some((2, ALWAYS)),
        range: None,
        expect: (Reason::Floor, Reason::Floor),
    },
    Sender {
        id: 9,
        name: "known and banned",
        flow: Some((FlowClass::Known, ALWAYS, FULL)),
        exact: Some((4, ALWAYS)),
        range: None,
        expect: (Reason::BannedReplay, Reason::Stranger),
    },
    Sender {
        id: 10,
        name: "floor, dry",
        flow: Some((FlowClass::Floor, ALWAYS, 0)),
        exact: None,
        range: None,
        expect: (Reason::RatePeer, Reason::Floor),
    },
    Sender {
        id: 11,
        name: "known, dry",
        flow: Some((FlowClass::Known, ALWAYS, 0)),
        exact: None,
        range: None,
        expect: (Reason::RatePeer, Reason::Known),
    },
    Sender {
        id: 12,
        name: "ban expired in a banned range",
        flow: None,
        exact: Some((2, EXPIRED)),
        range: Some((7, ALWAYS)),
        expect: (Reason::BannedOversize, Reason::Stranger),
    },
    Sender {
        id: 13,
        name: "in an expired range",
        flow: None,
        exact: None,
        range: Some((8, EXPIRED)),
        expect: (Reason::Stranger, Reason::Stranger),
    },
    Sender {
        id: 14,
        name: "dialed",
        flow: Some((FlowClass::Dialed, EXPIRED, FULL)),
        exact: None,
        range: None,
        expect: (Reason::Stranger, Reason::Stranger),
    },
];

impl Sender {
    fn v4(&self) -> [u8; 4] {
        [10, 77, self.id, 9]
    }

    fn v6(&self) -> [u8; 16] {
        let mut octets = [0x20, 0x01, 0x0d, 0xb8, 0, self.id, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9];
        octets[15] = 9;
        octets
    }
}

/// Everything that has to be in the tables before the golden packets run.
#[derive(Default)]
pub struct Scene {
    /// v4 flows.
    pub flows4: Vec<(Flow4, FlowValue)>,
    /// v6 flows.
    pub flows6: Vec<(Flow6, FlowValue)>,
    /// Exact v4 bans.
    pub bans4: Vec<(u32, BanValue)>,
    /// v6 /64 bans.
    pub bans6: Vec<(u64, BanValue)>,
    /// v4 ranges (/24).
    pub ranges4: Vec<(Range4, BanValue)>,
    /// v6 ranges (/48).
    pub ranges6: Vec<(Range6, BanValue)>,
    /// Validators' v4 addresses: those of the floor's senders.
    pub validators4: Vec<(u32, ValidatorValue)>,
    /// Validators' v6 addresses.
    pub validators6: Vec<([u64; 2], ValidatorValue)>,
}

fn halves(octets: [u8; 16]) -> [u64; 2] {
    let value = u128::from_be_bytes(octets);
    [((value >> 64) as u64).to_be(), (value as u64).to_be()]
}

/// Builds the scene.
pub fn scene() -> Scene {
    let mut scene = Scene::default();
    for sender in &SENDERS {
        if let Some((class, expiry, budget)) = sender.flow {
            let value = || FlowValue::new(class, ROW_NONE, 0, budget.min(1 << 20), budget, expiry, 0);
            for protocol in [TCP, UDP] {
                let address = u32::from_ne_bytes(sender.v4());
                scene.flows4.push((Flow4::new(address, REMOTE_PORT, protocol), value()));
                let address = halves(sender.v6());
                scene.flows6.push((Flow6::new(address, REMOTE_PORT, protocol), value()));
            }
        }
        if matches!(sender.flow, Some((FlowClass::Floor, ..))) {
            scene.validators4.push((u32::from_ne_bytes(sender.v4()), ValidatorValue::new(ALWAYS)));
            scene.validators6.push((halves(sender.v6()), ValidatorValue::new(ALWAYS)));
        }
        if let Some((offence, expiry)) = sender.exact {
            scene.bans4.push((u32::from_ne_bytes(sender.v4()), BanValue::new(offence, expiry, 0)));
            scene.bans6.push((halves(sender.v6())[0], BanValue::new(offence, expiry, 0)));
        }
        if let Some((offence, expiry)) = sender.range {
            let [a, b, c, _] = sender.v4();
            let address = u32::from_ne_bytes([a, b, c, 0]);
            scene.ranges4.push((Range4 { length: 24, address }, BanValue::new(offence, expiry, 0)));
            let mut address = sender.v6();
            address[6..].fill(0);
            scene.ranges6.push((Range6 { length: 48, address }, BanValue::new(offence, expiry, 0)));
        }
    }
    scene
}

/// The scene over a model.
pub fn model() -> Model {
    let mut model = Model::default();
    model.set_time(1_000, 1_000_000);
    model.protect(TCP, PORT);
    model.protect(UDP, PORT);
    model.protect(UDP, QUIC_PORT);
    model.speaks_quic(QUIC_PORT);
    let scene = scene();
    scene.flows4.into_iter().for_each(|(key, value)| model.add_flow4(key, value));
    scene.flows6.into_iter().for_each(|(key, value)| model.add_flow6(key, value));
    scene.validators4.into_iter().for_each(|(key, value)| model.add_validator4(key, value));
    scene.validators6.into_iter().for_each(|(key, value)| model.add_validator6(key, value));
    scene.bans4.into_iter().for_each(|(key, value)| model.add_ban4(key, value));
    scene.bans6.into_iter().for_each(|(key, value)| model.add_ban6(key, value));
    scene.ranges4.into_iter().for_each(|(key, value)| model.add_range4(key, value));
    scene.ranges6.into_iter().for_each(|(key, value)| model.add_range6(key, value));
    model
}

/// One golden packet.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// The reason that it must get.
    pub reason: Reason,
    /// The class that it passes as in shadow mode.
    pub class: Reason,
    /// Whether `enforce` drops it.
    pub drop: bool,
}

/// How a frame is made.
#[derive(Clone)]
struct Frame {
    tags: Vec<u16>,
    v6: bool,
    source: ([u8; 4], [u8; 16]),
    protocol: u8,
    source_port: u16,
    port: u16,
    /// v4: header length in words. v6: chain of extension headers.
    words: u8,
    chain: Vec<Vec<u8>>,
    /// v4 fragment field.
    fragment: u16,
    payload: usize,
    /// TCP: data offset and flags.
    flags: u16,
    /// What the payload starts with.
    head: Vec<u8>,
}

impl Frame {
    fn new(sender: &Sender, v6: bool, protocol: u8) -> Frame {
        Frame {
            tags: Vec::new(),
            v6,
            source: (sender.v4(), sender.v6()),
            protocol,
            source_port: REMOTE_PORT,
            port: PORT,
            words: 5,
            chain: Vec::new(),
            fragment: 0,
            payload: 32,
            flags: 0x5018,
            head: Vec::new(),
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.port.to_be_bytes());
        if self.protocol == TCP {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 2]);
            bytes.extend(self.flags.to_be_bytes());
            bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        } else {
            bytes.extend((8 + self.payload as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(&self.head);
        bytes.extend(std::vec![0xabu8; self.payload - self.head.len()]);
        bytes
    }

    fn build(&self) -> Vec<u8> {
        let mut frame = std::vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        let transport = self.transport();
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            let chain: usize = self.chain.iter().map(Vec::len).sum();
            frame.extend(((chain + transport.len()) as u16).to_be_bytes());
            let kinds: Vec<u8> = self.chain.iter().map(|header| header[0]).chain([self.protocol]).collect();
            frame.extend([kinds[0], 64]);
            frame.extend(self.source.1);
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            for (header, next) in self.chain.iter().zip(&kinds[1..]) {
                frame.push(*next);
                frame.extend(&header[1..]);
            }
        } else {
            let header = self.words as usize * 4;
            frame.extend([0x08, 0x00, 0x40 | self.words, 0]);
            frame.extend(((header + transport.len()) as u16).to_be_bytes());
            frame.extend([0, 1]);
            frame.extend(self.fragment.to_be_bytes());
            frame.extend([64, self.protocol, 0, 0]);
            frame.extend(self.source.0);
            frame.extend([10, 77, 255, 2]);
            frame.extend(std::vec![1u8; header.saturating_sub(20)]);
        }
        frame.extend(transport);
        frame
    }
}

/// An extension header: its kind in front (replaced by the next header's when the frame is built).
fn extension(kind: u8) -> Vec<u8> {
    match kind {
        44 => std::vec![44, 0, 0, 0, 0, 0, 0, 9],             // atomic fragment: offset 0, no more
        51 => std::vec![51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // authentication: (1 + 2) * 4 bytes
        60 => {
            let mut header = std::vec![60, 1];
            header.extend([0; 14]);
            header
        }
        kind => std::vec![kind, 0, 0, 0, 0, 0, 0, 0],
    }
}

struct Table(Vec<Case>);

impl Table {
    fn push(&mut self, name: String, frame: Vec<u8>, expect: (Reason, Reason)) {
        let (reason, class) = expect;
        let drop = !matches!(
            reason,
            Reason::OutOfScope | Reason::Unreadable | Reason::Floor | Reason::Known | Reason::Dialing | Reason::Stranger
        );
        self.0.push(Case { name, frame, reason, class, drop });
    }
}

const OUTSIDE: (Reason, Reason) = (Reason::OutOfScope, Reason::OutOfScope);
const STRANGER: (Reason, Reason) = (Reason::Stranger, Reason::Stranger);
const FRAGMENT: (Reason, Reason) = (Reason::Fragment, Reason::Stranger);
const UNREADABLE: (Reason, Reason) = (Reason::Unreadable, Reason::Unreadable);

/// All golden packets.
pub fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    for v6 in [false, true] {
        for protocol in [TCP, UDP] {
            senders(&mut table, v6, protocol);
            scope(&mut table, v6, protocol);
            if v6 {
                extensions(&mut table, protocol);
                shapes::chains(&mut table, protocol);
            } else {
                options(&mut table, protocol);
                shapes::pieces(&mut table, protocol);
            }
            cuts(&mut table, v6, protocol);
            shapes::cuts(&mut table, v6, protocol);
            sanity::addresses(&mut table, v6, protocol);
        }
    }
    for v6 in [false, true] {
        sanity::flags(&mut table, v6);
        sanity::lengths(&mut table, v6);
        sanity::quic(&mut table, v6);
    }
    let mut arp = std::vec![0xffu8; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    table.push("arp".into(), arp, OUTSIDE);
    table.0
}

fn label(v6: bool, protocol: u8) -> String {
    format!("{} {}", if v6 { "v6" } else { "v4" }, if protocol == TCP { "tcp" } else { "udp" })
}

/// Every sender, behind none, one and two tags.
fn senders(table: &mut Table, v6: bool, protocol: u8) {
    for sender in &SENDERS {
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let frame = Frame { tags: tags.to_vec(), ..Frame::new(sender, v6, protocol) };
            table.push(format!("{}, {}, {} tags", label(v6, protocol), sender.name, tags.len()), frame.build(), sender.expect);
        }
    }
}

/// What is none of our business, and flows that are not quite the announced ones.
fn scope(table: &mut Table, v6: bool, protocol: u8) {
    let base = |id: usize| Frame::new(&SENDERS[id], v6, protocol);
    let label = label(v6, protocol);
    let mut push = |name: &str, frame: Frame, expect| table.push(format!("{label}, {name}"), frame.build(), expect);
    push("banned to another port", Frame { port: 22, ..base(4) }, OUTSIDE);
    push("banned to the neighbour port", Frame { port: PORT + 1, ..base(4) }, OUTSIDE);
    push("banned, another protocol", Frame { protocol: if v6 { 58 } else { 1 }, ..base(4) }, OUTSIDE);
    push("banned behind three tags", Frame { tags: std::vec![0x88a8, 0x8100, 0x8100], ..base(4) }, UNREADABLE);
    push("a floor address from another port", Frame { source_port: REMOTE_PORT + 1, ..base(1) }, STRANGER);
    push("a known address from another port", Frame { source_port: REMOTE_PORT - 1, ..base(2) }, STRANGER);
    push("a banned address from another port", Frame { source_port: 1, ..base(4) }, SENDERS[4].expect);
    push("no payload", Frame { payload: 0, ..base(4) }, SENDERS[4].expect);
}

/// IPv4: options, fragments, headers that lie.
fn options(table: &mut Table, protocol: u8) {
    let base = |id: usize| Frame::new(&SENDERS[id], false, protocol);
    let label = label(false, protocol);
    let mut push = |name: String, frame: Vec<u8>, expect| table.push(format!("{label}, {name}"), frame, expect);
    for words in [6, 10, 15] {
        push(format!("header of {words} words"), Frame { words, ..base(4) }.build(), SENDERS[4].expect);
    }
    push("header of 4 words".into(), Frame { words: 4, ..base(4) }.build(), OUTSIDE);
    for tags in [&[][..], &[0x8100]] {
        let frame = |fragment| Frame { fragment, tags: tags.to_vec(), ..base(0) };
        push(format!("first fragment, {} tags", tags.len()), frame(0x2000).build(), FRAGMENT);
        push(format!("later fragment, {} tags", tags.len()), frame(0x2010).build(), OUTSIDE);
        push(format!("last fragment, {} tags", tags.len()), frame(0x0010).build(), OUTSIDE);
        push(format!("don't fragment, {} tags", tags.len()), frame(0x4000).build(), STRANGER);
    }
    push("first fragment of a floor flow".into(), Frame { fragment: 0x2000, ..base(1) }.build(), FRAGMENT);
    push("first fragment to another port".into(), Frame { fragment: 0x2000, port: 22, ..base(0) }.build(), OUTSIDE);
    let mut version = base(4).build();
    version[14] = 0x55;
    push("version 5".into(), version, OUTSIDE);
    let mut short = base(4).build();
    short[16..18].copy_from_slice(&23u16.to_be_bytes());
    push("total length before the ports' end".into(), short, OUTSIDE);
    let mut exact = base(4).build();
    exact[16..18].copy_from_slice(&24u16.to_be_bytes());
    push("total length at the ports' end".into(), exact, SENDERS[4].expect);
    let mut merged = base(4).build();
    merged[16..18].copy_from_slice(&[0, 0]);
    push("total length 0".into(), merged, SENDERS[4].expect);
}

/// IPv6: extension headers, fragments, headers that lie.
fn extensions(table: &mut Table, protocol: u8) {
    let base = |id: usize| Frame::new(&SENDERS[id], true, protocol);
    let label = label(true, protocol);
    let mut push = |name: String, frame: Vec<u8>, expect| table.push(format!("{label}, {name}"), frame, expect);
    for kind in [0, 43, 44, 51, 60] {
        for count in 1..=5 {
            let chain: Vec<Vec<u8>> = (0..count).map(|_| extension(kind)).collect();
            let expect = if count <= 4 { SENDERS[4].expect } else { UNREADABLE };
            push(format!("{count} headers of kind {kind}"), Frame { chain, ..base(4) }.build(), expect);
        }
    }
    let mixed = [0, 60, 43, 51].map(extension).to_vec();
    push("four different headers".into(), Frame { chain: mixed, ..base(0) }.build(), STRANGER);
    push("no next header".into(), Frame { chain: std::vec![extension(60)], protocol: 59, ..base(4) }.build(), OUTSIDE);
    let fragment = |offset: u16, more: u16| {
        let mut header = extension(44);
        header[2..4].copy_from_slice(&(offset << 3 | more).to_be_bytes());
        header
    };
    push("first fragment".into(), Frame { chain: std::vec![fragment(0, 1)], ..base(0) }.build(), FRAGMENT);
    push("later fragment".into(), Frame { chain: std::vec![fragment(5, 1)], ..base(0) }.build(), OUTSIDE);
    push("last fragment".into(), Frame { chain: std::vec![fragment(5, 0)], ..base(0) }.build(), OUTSIDE);
    push(
        "first fragment behind options".into(),
        Frame { chain: std::vec![extension(0), fragment(0, 1)], ..base(1) }.build(),
        FRAGMENT,
    );
    let mut hidden = Frame { chain: std::vec![fragment(0, 1)], ..base(0) }.build();
    hidden[18..20].copy_from_slice(&8u16.to_be_bytes());
    push("first fragment without its port".into(), hidden, UNREADABLE);
    let mut short = base(4).build();
    short[18..20].copy_from_slice(&3u16.to_be_bytes());
    push("payload length before the ports' end".into(), short, OUTSIDE);
    // What the kernel reads to the frame's end, jumbo option or not.
    for chain in [std::vec![], std::vec![extension(0)], std::vec![extension(0), extension(60)]] {
        let headers = chain.len();
        let mut endless = Frame { chain, ..base(4) }.build();
        endless[18..20].copy_from_slice(&[0, 0]);
        push(format!("payload length 0 before {headers} headers"), endless, SENDERS[4].expect);
    }
    let mut version = base(4).build();
    version[14] = 0x50;
    push("version 5".into(), version, OUTSIDE);
}

/// A banned sender's packet, cut at every byte: out of scope until the ports are there, banned from then on.
fn cuts(table: &mut Table, v6: bool, protocol: u8) {
    for tags in [&[][..], &[0x8100]] {
        let whole = Frame { tags: tags.to_vec(), payload: 0, ..Frame::new(&SENDERS[4], v6, protocol) }.build();
        let ports_end = 14 + tags.len() * 4 + if v6 { 40 } else { 20 } + 4;
        for length in 14..=whole.len() {
            let expect = if length < ports_end { OUTSIDE } else { SENDERS[4].expect };
            let name = format!("{}, {} tags, cut at {length}", label(v6, protocol), tags.len());
            table.push(name, whole[..length].to_vec(), expect);
        }
    }
}
