//! Golden packets of step 6: what no honest sender makes, beside its nearest sane neighbour; and that flows are spared it.

extern crate std;

use super::{Frame, QUIC_PORT, REMOTE_PORT, SENDERS, STRANGER, Table, label};
use crate::{
    Reason,
    abi::{TCP, UDP},
};
use std::{format, vec::Vec};

const MALFORMED: (Reason, Reason) = (Reason::Malformed, Reason::Stranger);

/// Sources and ports.
pub(super) fn addresses(table: &mut Table, v6: bool, protocol: u8) {
    let base = |id: usize| Frame::new(&SENDERS[id], v6, protocol);
    let label = label(v6, protocol);
    let mut push = |name: &str, frame: Frame, expect| table.push(format!("{label}, {name}"), frame.build(), expect);
    push("source port 0", Frame { source_port: 0, ..base(0) }, MALFORMED);
    push("source port 1", Frame { source_port: 1, ..base(0) }, STRANGER);
    push("banned, source port 0", Frame { source_port: 0, ..base(4) }, SENDERS[4].expect);
    let v6_of = |groups: [u16; 8]| std::net::Ipv6Addr::from(groups).octets();
    let martians: [(&str, [u8; 4], [u16; 8]); 5] = [
        ("unspecified", [0, 0, 0, 0], [0; 8]),
        ("loopback", [127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]),
        ("multicast", [224, 0, 0, 1], [0xff02, 0, 0, 0, 0, 0, 0, 1]),
        ("broadcast or mapped", [255, 255, 255, 255], [0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]),
        ("itself", [10, 77, 255, 2], [0xfd00, 0, 0, 0, 0, 0, 0, 2]),
    ];
    for (name, v4, groups) in martians {
        push(&format!("from {name}"), Frame { source: (v4, v6_of(groups)), ..base(0) }, MALFORMED);
    }
    let neighbours: [(&str, [u8; 4], [u16; 8]); 4] = [
        ("the first host", [1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 2]),
        ("beside loopback", [126, 255, 255, 255], [0, 0, 0, 0, 0, 0xfffe, 0, 1]),
        ("below multicast", [223, 255, 255, 255], [0xfeff, 0, 0, 0, 0, 0, 0, 1]),
        ("beside itself", [10, 77, 255, 3], [0xfd00, 0, 0, 0, 0, 0, 0, 3]),
    ];
    for (name, v4, groups) in neighbours {
        push(&format!("from {name}"), Frame { source: (v4, v6_of(groups)), ..base(0) }, STRANGER);
    }
}

/// TCP flags and header length.
pub(super) fn flags(table: &mut Table, v6: bool) {
    let label = label(v6, TCP);
    let base = |id: usize| Frame::new(&SENDERS[id], v6, TCP);
    let mut push = |name: &str, frame: Frame, expect| table.push(format!("{label}, {name}"), frame.build(), expect);
    for (flags, name) in [
        (0x02, "syn"),
        (0xc2, "syn with ecn"),
        (0x12, "syn ack"),
        (0x10, "ack"),
        (0x18, "psh ack"),
        (0x30, "urg ack"),
        (0x11, "fin ack"),
        (0x39, "fin psh urg ack"),
        (0x04, "rst"),
        (0x14, "rst ack"),
    ] {
        push(name, Frame { flags: 0x5000 | flags, ..base(0) }, STRANGER);
    }
    for (flags, name) in [
        (0x00, "no flags"),
        (0x01, "fin alone"),
        (0x03, "syn fin"),
        (0x06, "syn rst"),
        (0x08, "psh alone"),
        (0x13, "syn fin ack"),
        (0x15, "fin rst ack"),
        (0x16, "syn rst ack"),
        (0x20, "urg alone"),
        (0x29, "fin psh urg"),
        (0x3f, "all flags"),
    ] {
        push(name, Frame { flags: 0x5000 | flags, ..base(0) }, MALFORMED);
    }
    push("header of 4 words, tcp", Frame { flags: 0x4010, ..base(0) }, MALFORMED);
    push("header to the end", Frame { flags: 0xd010, ..base(0) }, STRANGER);
    push("header beyond the end", Frame { flags: 0xe010, ..base(0) }, MALFORMED);
    // Flows have answered a handshake: their stack judges, not we.
    for id in [1, 2, 3] {
        push(&format!("no flags, {}", SENDERS[id].name), Frame { flags: 0x5000, ..base(id) }, SENDERS[id].expect);
    }
    let mut cut = Frame { payload: 0, ..base(0) }.build();
    cut.truncate(cut.len() - 7);
    table.push(format!("{label}, cut within its flags"), cut, MALFORMED);
}

/// UDP lengths.
pub(super) fn lengths(table: &mut Table, v6: bool) {
    let label = label(v6, UDP);
    let frame = Frame::new(&SENDERS[0], v6, UDP).build();
    let at = frame.len() - 32 - 4;
    for (length, expect) in
        [(7u16, MALFORMED), (8, STRANGER), (39, STRANGER), (40, STRANGER), (41, MALFORMED), (u16::MAX, MALFORMED), (0, MALFORMED)]
    {
        let mut frame = frame.clone();
        frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
        table.push(format!("{label}, length {length}"), frame, expect);
    }
}

/// QUIC's long headers, on the port that speaks it and on the one that does not.
pub(super) fn quic(table: &mut Table, v6: bool) {
    let label = label(v6, UDP);
    let head = |first: u8, version: u32| -> Vec<u8> { [&[first][..], &version.to_be_bytes()[..], &[8, 1, 2, 3]].concat() };
    let (v1, v2) = (1u32, 0x6b33_43cf);
    let rows = [
        ("initial", 0xc0u8, v1, 1200usize, STRANGER),
        ("initial of 1199 bytes", 0xc0, v1, 1199, MALFORMED),
        ("initial without the fixed bit", 0x80, v1, 1200, STRANGER),
        ("0-rtt", 0xd0, v1, 100, STRANGER),
        ("handshake", 0xe0, v1, 100, STRANGER),
        ("retry", 0xf0, v1, 100, STRANGER),
        ("initial, version 2", 0xd0, v2, 1200, STRANGER),
        ("initial, version 2, of 1199 bytes", 0xd0, v2, 1199, MALFORMED),
        ("retry, version 2", 0xc0, v2, 100, STRANGER),
        ("version negotiation", 0xc0, 0, 100, MALFORMED),
        ("version 3", 0xc0, 3, 1200, MALFORMED),
        ("short header", 0x40, 3, 100, STRANGER),
        ("short header without the fixed bit", 0x00, 3, 100, STRANGER),
        ("long header of nine bytes", 0xc0, 3, 9, MALFORMED),
        ("long header that is cut", 0xc0, 3, 7, STRANGER),
    ];
    for (name, first, version, payload, expect) in rows {
        let head: Vec<u8> = head(first, version).into_iter().take(payload).collect();
        let frame = Frame { port: QUIC_PORT, payload, head, ..Frame::new(&SENDERS[0], v6, UDP) };
        table.push(format!("{label}, quic {name}"), frame.build(), expect);
        let elsewhere = Frame { port: super::PORT, ..frame };
        table.push(format!("{label}, quic {name}, where nobody speaks it"), elsewhere.build(), STRANGER);
    }
    let own = Frame { port: QUIC_PORT, payload: 100, head: head(0xc0, 0), ..Frame::new(&SENDERS[3], v6, UDP) };
    assert_eq!(own.source_port, REMOTE_PORT);
    table.push(format!("{label}, quic version negotiation for a dialing flow"), own.build(), SENDERS[3].expect);
}
