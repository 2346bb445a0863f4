//! The SYN proxy: which packets it takes up, and the segment that it answers with.
//!
//! A SYN above the handshakes' budget is answered with a SYN cookie of the kernel's own (RFC 4987, 3.6) and forgotten; only who really is
//! at that address can send the ACK that names it, and the kernel's listener completes the connection from it. Nothing is
//! remembered, so a flood has nothing to fill. Here is what can be told from bytes alone; cookies are made and checked by the kernel.

use crate::{
    abi::{PRIMED_LISTENERS, TCP},
    control::{Config, SynProxy},
    reason::Reason,
    verdict::Verdict,
};

/// Words of an IPv4 header without options.
pub const IP4_WORDS: usize = 5;
/// Words of an IPv6 header.
pub const IP6_WORDS: usize = 10;
/// Words of room for a TCP header: it has 5 to 15; a length field that claims less than 5 reads as 16 to 20, and no cookie is made for it.
pub const TCP_WORDS_MAX: usize = 20;
/// Words of the answer's TCP header: one option, the MSS.
const ANSWER_TCP_WORDS: usize = 6;
/// Words of an IPv4 answer.
pub const ANSWER4_WORDS: usize = IP4_WORDS + ANSWER_TCP_WORDS;
const ANSWER_TCP_BYTES: u32 = ANSWER_TCP_WORDS as u32 * 4;
const ANSWER4_BYTES: u32 = ANSWER4_WORDS as u32 * 4;
/// Words of an IPv6 answer.
pub const ANSWER6_WORDS: usize = IP6_WORDS + ANSWER_TCP_WORDS;
/// A listener believes in cookies for two minutes after one was made in its name. That needs a look-up of the listener, so it is
/// done for one SYN a second, ns.
pub const PRIME_EVERY_NS: u64 = 1_000_000_000;

/// Window of the answer, bytes: no more than a listener grants at its default buffer, because the sender may use it at once.
const WINDOW: u32 = 29_200;
/// Greatest segment that we ask for over IPv4 and IPv6: an Ethernet frame's.
const MSS_MAX: [u32; 2] = [1460, 1440];
/// Hops of the answer.
const HOPS: u32 = 64;
const SYN_ACK: u32 = 0x12;

/// What the proxy sees in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A SYN alone: to be answered.
    Syn,
    /// An ACK that may end a handshake: its cookie is to be checked.
    Ack,
    /// Neither.
    Other,
}

/// Whether the proxy has a say about this verdict: TCP that is dropped for a stranger's budget.
#[inline(always)]
pub const fn takes(verdict: &Verdict, config: Config) -> bool {
    let reason = verdict.reason_slot();
    verdict.drop()
        && reason >= Reason::RateSource as u32
        && reason <= Reason::RateStrangers as u32
        && verdict.protocol() == TCP
        && !matches!(config.syn_proxy(), SynProxy::Off)
}

/// Whether a SYN with this verdict is answered: above the total in any case, above its source's or network's own budget only if all are.
#[inline(always)]
pub const fn answers(verdict: &Verdict, config: Config) -> bool {
    verdict.reason_slot() == Reason::RateStrangers as u32 || matches!(config.syn_proxy(), SynProxy::All)
}

/// Reads the fourth word of a TCP header (wire order): what the segment is, and the header's length in bytes, 20 to 80 whatever it says.
///
/// There is no comparison in it: the compiler would make it before the shift, where the kernel's verifier learns nothing from it.
#[inline(always)]
pub const fn segment(word: u32) -> (Segment, u32) {
    let word = u32::from_be(word);
    let kind = match word >> 16 & 0x17 {
        0x02 => Segment::Syn,
        0x10 => Segment::Ack,
        _ => Segment::Other,
    };
    (kind, 20 + ((word >> 28).wrapping_sub(5) & 15) * 4)
}

/// Slot of a listener in the array of those that were told, from the sum of its address's words and the word of the ports.
#[inline(always)]
pub const fn primed_slot(address: u32, ports: u32) -> u32 {
    let folded = u32::from_be(address);
    ((folded >> 16) ^ folded ^ u32::from_be(ports)) & (PRIMED_LISTENERS - 1)
}

/// Exchanges the hardware addresses of a frame's first twelve bytes; `None` if it was not sent to one station alone, which no
/// stack answers.
#[inline(always)]
pub const fn turned(macs: [u32; 3]) -> Option<[u32; 3]> {
    let [a, b, c] = [macs[0].to_le(), macs[1].to_le(), macs[2].to_le()];
    if a & 1 == 1 {
        return None;
    }
    Some([(b >> 16 | c << 16).to_le(), (c >> 16 | a << 16).to_le(), (a >> 16 | b << 16).to_le()])
}

/// Whether an IPv4 destination (wire order) is one host's.
#[inline(always)]
pub const fn unicast4(address: u32) -> bool {
    u32::from_be(address) < 0xe000_0000
}

/// Whether an IPv6 destination is one host's, from its first word (wire order).
#[inline(always)]
pub const fn unicast6(first: u32) -> bool {
    u32::from_be(first) >> 24 != 0xff
}

/// The Internet checksum (RFC 1071) of words, begun with a sum; as it is written to the wire. The order of bytes does not matter to it.
#[inline(always)]
fn checksum(words: &[u32], start: u64) -> u32 {
    let mut sum = words.iter().fold(start, |sum, word| sum + *word as u64);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !sum as u32 & 0xffff
}

/// The answer's TCP header; `pseudo` is the sum of the pseudo-header.
#[inline(always)]
fn syn_ack(tcp: &[u32; TCP_WORDS_MAX], cookie: u32, mss: u32, pseudo: u64) -> [u32; ANSWER_TCP_WORDS] {
    let mut answer = [
        tcp[0].rotate_left(16),
        cookie.to_be(),
        u32::from_be(tcp[1]).wrapping_add(1).to_be(),
        ((ANSWER_TCP_WORDS as u32) << 28 | SYN_ACK << 16 | WINDOW).to_be(),
        0,
        (2 << 24 | 4 << 16 | mss).to_be(),
    ];
    // The checksum is the first half of its word on the wire.
    let sum = checksum(&answer, pseudo);
    answer[4] = u32::from_ne_bytes([sum.to_ne_bytes()[0], sum.to_ne_bytes()[1], 0, 0]);
    answer
}

/// The greatest segment that we ask for: the sender's own, as far as the cookie could keep it, and no more than Ethernet carries.
#[inline(always)]
fn mss(of_cookie: u16, max: u32) -> u32 {
    if (of_cookie as u32) < max { of_cookie as u32 } else { max }
}

/// The IPv4 packet that answers a SYN. All words in wire order; `cookie` and `mss` are numbers, as the kernel's helper gives them.
#[inline(always)]
pub fn answer4(ip: &[u32; IP4_WORDS], tcp: &[u32; TCP_WORDS_MAX], cookie: u32, of_cookie: u16) -> [u32; ANSWER4_WORDS] {
    let (source, destination) = (ip[4], ip[3]);
    let mut header =
        [(0x4500_0000 | ANSWER4_BYTES).to_be(), 0x4000u32.to_be(), (HOPS << 24 | (TCP as u32) << 16).to_be(), source, destination];
    let sum = checksum(&header, 0);
    header[2] |= u32::from_ne_bytes([0, 0, sum.to_ne_bytes()[0], sum.to_ne_bytes()[1]]);
    let pseudo = source as u64 + destination as u64 + ((TCP as u32) << 16 | ANSWER_TCP_BYTES).to_be() as u64;
    let segment = syn_ack(tcp, cookie, mss(of_cookie, MSS_MAX[0]), pseudo);
    let mut answer = [0; ANSWER4_WORDS];
    answer[..IP4_WORDS].copy_from_slice(&header);
    answer[IP4_WORDS..].copy_from_slice(&segment);
    answer
}

/// The IPv6 packet that answers a SYN.
#[inline(always)]
pub fn answer6(ip: &[u32; IP6_WORDS], tcp: &[u32; TCP_WORDS_MAX], cookie: u32, of_cookie: u16) -> [u32; ANSWER6_WORDS] {
    let mut answer = [0; ANSWER6_WORDS];
    answer[0] = 0x6000_0000u32.to_be();
    answer[1] = (ANSWER_TCP_BYTES << 16 | (TCP as u32) << 8 | HOPS).to_be();
    answer[2..6].copy_from_slice(&ip[6..10]);
    answer[6..10].copy_from_slice(&ip[2..6]);
    let addresses = answer[2..10].iter().fold(0, |sum, word| sum + *word as u64);
    let pseudo = addresses + ((TCP as u32) << 16 | ANSWER_TCP_BYTES).to_be() as u64;
    answer[IP6_WORDS..].copy_from_slice(&syn_ack(tcp, cookie, mss(of_cookie, MSS_MAX[1]), pseudo));
    answer
}

#[cfg(test)]
mod tests;
