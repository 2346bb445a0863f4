//! Golden floods: sequences of packets against budgets of step 7 and validators' shares, with the verdict that each packet must get.
//!
//! The budgets never refill, so the sequences end alike however long a run takes.

extern crate std;

use super::{Frame, QUIC_PORT, REMOTE_PORT, SENDERS, halves};
use crate::{
    Reason,
    abi::{Flow4, Flow6, FlowClass, FlowValue, ROW_NONE, TCP, UDP},
    bucket::UNITS,
    control::Limit,
    model::Model,
    strangers::Budget,
};
use std::{string::String, vec::Vec};

/// One sequence.
pub struct Flood {
    /// What it shows.
    pub name: String,
    /// The budgets that are not unlimited.
    pub limits: Vec<(Budget, Limit)>,
    /// v4 flows beside the scene's.
    pub flows4: Vec<(Flow4, FlowValue)>,
    /// v6 flows.
    pub flows6: Vec<(Flow6, FlowValue)>,
    /// Frames with the reasons that they must get, in their order.
    pub packets: Vec<(Vec<u8>, Reason)>,
}

impl Flood {
    /// The golden model with these limits and flows, and the packets.
    pub fn over_a_model(self) -> (Model, Vec<(Vec<u8>, Reason)>) {
        let mut model = super::model();
        self.limits.iter().for_each(|(budget, limit)| model.set_control(budget.word(), limit.word()));
        self.flows4.into_iter().for_each(|(key, value)| model.add_flow4(key, value));
        self.flows6.into_iter().for_each(|(key, value)| model.add_flow6(key, value));
        (model, self.packets)
    }
}

/// Exactly so many packets, ever.
fn packets(count: u32) -> Limit {
    Limit::new(0, count * UNITS as u32)
}

const SYN: u16 = 0x5002;

fn syn(v6: bool, host: u16) -> Frame {
    Frame { flags: SYN, ..from(v6, TCP, host) }
}

fn initial(v6: bool, host: u16) -> Frame {
    let head = [0xc0, 0, 0, 0, 1, 8, 1, 2].to_vec();
    Frame { port: QUIC_PORT, payload: 1200, head, ..from(v6, UDP, host) }
}

/// A packet of a stranger: upper byte of `host` = network, lower = address in it.
fn from(v6: bool, protocol: u8, host: u16) -> Frame {
    let [network, address] = host.to_be_bytes();
    let v6_source = [0x20, 0x01, 0x0d, 0xb9, 0, network, 0, address, 0, 0, 0, 0, 0, 0, 0, 9];
    Frame { source: ([10, 88, network, address], v6_source), ..Frame::new(&SENDERS[0], v6, protocol) }
}

struct Sequence(Vec<(Vec<u8>, Reason)>);

impl Sequence {
    fn send(&mut self, count: usize, frame: &Frame, reason: Reason) {
        (0..count).for_each(|_| self.0.push((frame.build(), reason)));
    }
}

fn flood(name: String, limits: &[(Budget, u32)], send: impl FnOnce(&mut Sequence)) -> Flood {
    let mut sequence = Sequence(Vec::new());
    send(&mut sequence);
    let limits = limits.iter().map(|(budget, count)| (*budget, packets(*count))).collect();
    Flood { name, limits, flows4: Vec::new(), flows6: Vec::new(), packets: sequence.0 }
}

/// Two validators with shares of four packets and of two, and a peer without stake whose flow holds one. All strangers may send one.
fn shares(v6: bool, name: String) -> Flood {
    let [large, small, peer] = [0x0601, 0x0602, 0x0603].map(|host| from(v6, TCP, host));
    let mut flood = flood(name, &[(Budget::Rest, 1)], |all| {
        // In the name of the large one's very flow: what is dropped is its own.
        all.send(4, &large, Reason::Floor);
        all.send(20, &large, Reason::RatePeer);
        // A peer without stake, and strangers, can have nothing of it.
        all.send(1, &peer, Reason::Known);
        all.send(20, &peer, Reason::RatePeer);
        all.send(1, &from(v6, TCP, 0x0701), Reason::Stranger);
        all.send(20, &from(v6, TCP, 0x0701), Reason::RateStrangers);
        all.send(2, &small, Reason::Floor);
        all.send(1, &small, Reason::RatePeer);
    });
    for (frame, class, count) in [(large, FlowClass::Floor, 4), (small, FlowClass::Floor, 2), (peer, FlowClass::Known, 1)] {
        let value = FlowValue::new(class, ROW_NONE, 0, 0, packets(count).burst(), u64::MAX, 0);
        match v6 {
            true => flood.flows6.push((Flow6::new(halves(frame.source.1), REMOTE_PORT, TCP), value)),
            false => flood.flows4.push((Flow4::new(u32::from_ne_bytes(frame.source.0), REMOTE_PORT, TCP), value)),
        }
    }
    flood
}

/// All sequences.
pub fn floods() -> Vec<Flood> {
    let mut floods = Vec::new();
    for v6 in [false, true] {
        let version = if v6 { "v6" } else { "v4" };
        let name = |text: &str| std::format!("{version}, {text}");
        floods.push(flood(name("each class has its own budget"), &[(Budget::SynSource, 2), (Budget::UdpSource, 3)], |all| {
            all.send(2, &syn(v6, 1), Reason::Stranger);
            all.send(2, &syn(v6, 1), Reason::RateSource);
            all.send(3, &from(v6, UDP, 1), Reason::Stranger);
            all.send(1, &from(v6, UDP, 1), Reason::RateSource);
            all.send(5, &from(v6, TCP, 1), Reason::Stranger);
            all.send(5, &initial(v6, 1), Reason::Stranger);
            all.send(2, &syn(v6, 2), Reason::Stranger);
        }));
        floods.push(flood(name("an initial pays as one"), &[(Budget::InitialSource, 1), (Budget::TcpSource, 1)], |all| {
            all.send(1, &initial(v6, 1), Reason::Stranger);
            all.send(1, &initial(v6, 1), Reason::RateSource);
            all.send(2, &from(v6, UDP, 1), Reason::Stranger);
            all.send(1, &from(v6, TCP, 1), Reason::Stranger);
            all.send(1, &from(v6, TCP, 1), Reason::RateSource);
            all.send(1, &syn(v6, 1), Reason::Stranger);
        }));
        let limits = [(Budget::SynSource, 3), (Budget::SynPrefix, 4), (Budget::Handshakes, 6)];
        floods.push(flood(name("source, then network, then all"), &limits, |all| {
            all.send(3, &syn(v6, 0x0101), Reason::Stranger);
            all.send(1, &syn(v6, 0x0101), Reason::RateSource);
            all.send(1, &syn(v6, 0x0102), Reason::Stranger);
            all.send(1, &syn(v6, 0x0103), Reason::RatePrefix);
            all.send(2, &syn(v6, 0x0201), Reason::Stranger);
            all.send(1, &syn(v6, 0x0301), Reason::RateStrangers);
            all.send(1, &initial(v6, 0x0401), Reason::RateStrangers);
            all.send(1, &from(v6, TCP, 0x0301), Reason::Stranger);
        }));
        let limits = [(Budget::UdpSource, 2), (Budget::UdpPrefix, 3), (Budget::Rest, 5)];
        floods.push(flood(name("all before a source, unless it opens a connection"), &limits, |all| {
            all.send(2, &from(v6, UDP, 0x0101), Reason::Stranger);
            all.send(1, &from(v6, UDP, 0x0101), Reason::RateSource);
            all.send(1, &from(v6, UDP, 0x0102), Reason::Stranger);
            all.send(1, &from(v6, UDP, 0x0103), Reason::RatePrefix);
            all.send(2, &from(v6, UDP, 0x0201), Reason::Stranger);
            all.send(1, &from(v6, UDP, 0x0201), Reason::RateStrangers);
            all.send(1, &from(v6, UDP, 0x0101), Reason::RateStrangers);
            all.send(1, &from(v6, TCP, 0x0301), Reason::RateStrangers);
            all.send(1, &syn(v6, 0x0101), Reason::Stranger);
        }));
        let limits = [(Budget::UdpSource, 2), (Budget::UdpPrefix, 2), (Budget::Rest, 2), (Budget::Handshakes, 1)];
        let limits = [&limits[..], &[(Budget::ValidatorHandshakes, 2), (Budget::ValidatorRest, 3)]].concat();
        floods.push(flood(name("a validator's address pays for itself"), &limits, |all| {
            let another_port = |frame: Frame| Frame { source_port: 5000, source: (SENDERS[1].v4(), SENDERS[1].v6()), ..frame };
            all.send(1, &syn(v6, 1), Reason::Stranger);
            all.send(3, &syn(v6, 2), Reason::RateStrangers);
            all.send(2, &another_port(syn(v6, 1)), Reason::Stranger);
            all.send(1, &another_port(syn(v6, 1)), Reason::RateSource);
            all.send(2, &from(v6, UDP, 1), Reason::Stranger);
            all.send(1, &from(v6, UDP, 3), Reason::RateStrangers);
            all.send(1, &from(v6, UDP, 0x0501), Reason::RateStrangers);
            all.send(3, &another_port(from(v6, UDP, 1)), Reason::Stranger);
            all.send(1, &another_port(from(v6, UDP, 1)), Reason::RateSource);
            // Its flow has never noticed.
            all.send(3, &Frame::new(&SENDERS[1], v6, TCP), Reason::Floor);
        }));
        floods.push(shares(v6, name("validators have shares of their own")));
    }
    floods
}
