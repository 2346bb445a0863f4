//! Golden packets by shape: senders × tags × fragments × extension headers, and packets cut at every byte.

extern crate std;

use super::{FRAGMENT, Frame, OUTSIDE, SENDERS, STRANGER, Table, UNREADABLE, extension, label};
use crate::{Reason, abi::TCP};
use std::{format, vec::Vec};

const TAGS: [&[u16]; 3] = [&[], &[0x8100], &[0x88a8, 0x8100]];
const MALFORMED: (Reason, Reason) = (Reason::Malformed, Reason::Stranger);

/// What a packet is of.
const PIECES: [(&str, Option<u16>); 4] =
    [("whole", None), ("first fragment", Some(1)), ("later fragment", Some(5 << 3 | 1)), ("last fragment", Some(5 << 3))];

/// A fragment header with these offset and flags.
fn fragment(field: u16) -> Vec<u8> {
    let mut header = extension(44);
    header[2..4].copy_from_slice(&field.to_be_bytes());
    header
}

/// IPv6: 0 to 5 extension headers, whole and in pieces, behind 0 to 2 tags.
pub(super) fn chains(table: &mut Table, protocol: u8) {
    for sender in [&SENDERS[0], &SENDERS[1], &SENDERS[2], &SENDERS[4]] {
        for tags in TAGS {
            for headers in 0..=5 {
                for (piece, field) in PIECES {
                    let mut chain: Vec<Vec<u8>> = (0..headers).map(|_| extension(60)).collect();
                    chain.extend(field.map(fragment));
                    // Five headers are one too many, whatever the fifth would have said.
                    let expect = match (chain.len(), field) {
                        (5.., _) => UNREADABLE,
                        (_, None) => sender.expect,
                        (_, Some(1)) => FRAGMENT,
                        (_, Some(_)) => OUTSIDE,
                    };
                    let frame = Frame { chain, tags: tags.to_vec(), ..Frame::new(sender, true, protocol) };
                    let name = format!(
                        "{}, {}, {} tags, {headers} options headers, {piece}",
                        label(true, protocol),
                        sender.name,
                        tags.len()
                    );
                    table.push(name, frame.build(), expect);
                }
            }
        }
    }
}

/// IPv4: every sender's options, whole and in pieces, behind 0 to 2 tags.
pub(super) fn pieces(table: &mut Table, protocol: u8) {
    for sender in [&SENDERS[0], &SENDERS[1], &SENDERS[2], &SENDERS[4]] {
        for tags in TAGS {
            for words in [5u8, 6, 15] {
                for (piece, field) in PIECES {
                    // IPv4 has the flag above the offset, IPv6 below it.
                    let field = field.map(|field| (field & 1) << 13 | field >> 3);
                    let expect = match field {
                        None => sender.expect,
                        Some(0x2000) => FRAGMENT,
                        Some(_) => OUTSIDE,
                    };
                    let base = Frame::new(sender, false, protocol);
                    let frame = Frame { words, fragment: field.unwrap_or(0x4000), tags: tags.to_vec(), ..base };
                    let name = format!(
                        "{}, {}, {} tags, header of {words} words, {piece}",
                        label(false, protocol),
                        sender.name,
                        tags.len()
                    );
                    table.push(name, frame.build(), expect);
                }
            }
        }
    }
}

/// Packets cut at every byte: of a stranger behind options and tags, and IPv6's first fragment.
pub(super) fn cuts(table: &mut Table, v6: bool, protocol: u8) {
    for tags in TAGS {
        let base = Frame { payload: 0, tags: tags.to_vec(), ..Frame::new(&SENDERS[0], v6, protocol) };
        let (frame, header) = match v6 {
            true => (Frame { chain: [0, 60].map(extension).to_vec(), ..base }, 40 + 8 + 16),
            false => (Frame { words: 7, ..base }, 28),
        };
        let ports = 14 + tags.len() * 4 + header;
        // The last field that step 6 reads: TCP's flags, UDP's length.
        let judged = ports + if protocol == TCP { 14 } else { 6 };
        let whole = frame.build();
        for length in 14..=whole.len() {
            let expect = match length {
                length if length < ports + 4 => OUTSIDE,
                length if length < judged => MALFORMED,
                _ => STRANGER,
            };
            let name = format!("{}, stranger behind options, {} tags, cut at {length}", label(v6, protocol), tags.len());
            table.push(name, whole[..length].to_vec(), expect);
        }
    }
    if v6 {
        let whole = Frame { payload: 0, chain: [fragment(1)].to_vec(), ..Frame::new(&SENDERS[0], true, protocol) }.build();
        for length in 14..=whole.len() {
            let expect = match length {
                length if length < 14 + 40 + 4 => OUTSIDE,
                // A first fragment is known, and hides its ports.
                length if length < 14 + 40 + 8 + 4 => UNREADABLE,
                _ => FRAGMENT,
            };
            table.push(format!("{}, first fragment, cut at {length}", label(true, protocol)), whole[..length].to_vec(), expect);
        }
    }
}
