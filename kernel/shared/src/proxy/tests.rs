//! Answers against checksums computed byte by byte, as the RFCs have them.

extern crate std;

use super::*;
use crate::{control::Mode, golden, inspect};
use proptest::prelude::*;
use std::vec::Vec;

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// RFC 1071, the slow way: 0 over bytes that hold their own checksum.
fn folded(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

proptest! {
    #[test]
    fn an_ipv4_answer_is_a_sound_segment_back(addresses: [u32; 2], tcp: [u32; TCP_WORDS_MAX], cookie: u32, of_cookie in 536u16..9000) {
        let ip = [0, 0, 0, addresses[0], addresses[1]];
        let answer = bytes(&answer4(&ip, &tcp, cookie, of_cookie));
        let syn = bytes(&tcp);
        prop_assert_eq!(folded(&answer[..20]), 0);
        prop_assert_eq!((answer[0], usize::from(u16::from_be_bytes([answer[2], answer[3]]))), (0x45, answer.len()));
        prop_assert_eq!(&answer[12..16], &bytes(&ip)[16..20]);
        prop_assert_eq!(&answer[16..20], &bytes(&ip)[12..16]);
        let pseudo = [&answer[12..20], &[0, 6, 0, 24], &answer[20..]].concat();
        prop_assert_eq!(folded(&pseudo), 0);
        sound(&answer[20..], &syn, cookie, of_cookie.min(1460))?;
    }

    #[test]
    fn an_ipv6_answer_is_a_sound_segment_back(ip: [u32; IP6_WORDS], tcp: [u32; TCP_WORDS_MAX], cookie: u32, of_cookie in 1220u16..9000) {
        let answer = bytes(&answer6(&ip, &tcp, cookie, of_cookie));
        prop_assert_eq!(&answer[..8], &[0x60, 0, 0, 0, 0, 24, 6, 64]);
        prop_assert_eq!(&answer[8..24], &bytes(&ip)[24..40]);
        prop_assert_eq!(&answer[24..40], &bytes(&ip)[8..24]);
        let pseudo = [&answer[8..40], &[0, 0, 0, 24, 0, 0, 0, 6], &answer[40..]].concat();
        prop_assert_eq!(folded(&pseudo), 0);
        sound(&answer[40..], &bytes(&tcp), cookie, of_cookie.min(1440))?;
    }

    #[test]
    fn hardware_addresses_are_exchanged(macs: [u8; 12]) {
        let word = |at: usize| u32::from_ne_bytes([macs[at], macs[at + 1], macs[at + 2], macs[at + 3]]);
        let turned = turned([word(0), word(4), word(8)]);
        let expect = (macs[0] & 1 == 0).then(|| [&macs[6..], &macs[..6]].concat());
        prop_assert_eq!(turned.map(|words| bytes(&words)), expect);
    }
}

/// A TCP header that answers this one: ports exchanged, cookie, the next sequence number, SYN and ACK, one option.
fn sound(tcp: &[u8], syn: &[u8], cookie: u32, mss: u16) -> Result<(), TestCaseError> {
    let next = u32::from_be_bytes([syn[4], syn[5], syn[6], syn[7]]).wrapping_add(1).to_be_bytes();
    prop_assert_eq!(&tcp[..4], &[syn[2], syn[3], syn[0], syn[1]]);
    prop_assert_eq!(&tcp[4..8], &cookie.to_be_bytes());
    prop_assert_eq!(&tcp[8..12], &next);
    prop_assert_eq!(&tcp[12..14], &[0x60, 0x12]);
    prop_assert_eq!(&tcp[20..22], &[2, 4]);
    prop_assert_eq!(&tcp[22..24], &mss.to_be_bytes());
    Ok(())
}

#[test]
fn segments_are_told_apart() {
    let of = |offset_flags: u16| segment((u32::from(offset_flags) << 16 | 0xffff).to_be());
    assert_eq!(of(0x5002), (Segment::Syn, 20));
    assert_eq!(of(0xf0c2), (Segment::Syn, 60)); // with ECN
    assert_eq!(of(0x5010), (Segment::Ack, 20));
    assert_eq!(of(0x8018), (Segment::Ack, 32)); // with data
    assert_eq!(of(0x4002), (Segment::Syn, 80)); // no such header: longer than any
    for other in [0x5012, 0x5011, 0x5004, 0x5014, 0x5000, 0x5003] {
        assert_eq!(of(other).0, Segment::Other, "{other:#x}");
    }
}

#[test]
fn nobody_answers_for_a_group() {
    assert!(unicast4(u32::from_ne_bytes([10, 0, 0, 1])) && unicast4(u32::from_ne_bytes([223, 255, 255, 255])));
    assert!(!unicast4(u32::from_ne_bytes([224, 0, 0, 1])) && !unicast4(u32::MAX));
    assert!(unicast6(u32::from_ne_bytes([0xfd, 0, 0, 0])) && !unicast6(u32::from_ne_bytes([0xff, 2, 0, 0])));
}

/// Nothing but TCP over a stranger's budget is ever taken up, and nothing at all while the proxy is off.
#[test]
fn only_tcp_over_budget_is_taken_up() {
    for on in SynProxy::ALL {
        let config = Config::new(Mode::Enforce).with_syn_proxy(on);
        let model = golden::model();
        for case in golden::cases() {
            assert!(!takes(&inspect(&case.frame[..], &model), config), "{}", case.name);
        }
        let mut taken = [0, 0];
        for flood in golden::floods() {
            let (model, packets) = flood.over_a_model();
            for (frame, reason) in &packets {
                let verdict = inspect(&frame[..], &model);
                let over = matches!(reason, Reason::RateSource | Reason::RatePrefix | Reason::RateStrangers);
                assert_eq!(takes(&verdict, config), over && verdict.protocol() == TCP && on != SynProxy::Off);
                let total = *reason == Reason::RateStrangers;
                taken[usize::from(total)] += u32::from(takes(&verdict, config));
                assert!(!takes(&verdict, config) || answers(&verdict, config) == (total || on == SynProxy::All));
            }
        }
        assert_eq!(taken[0] > 0 && taken[1] > 0, on != SynProxy::Off, "{taken:?}");
    }
}
