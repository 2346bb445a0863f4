//! A TAP device instead of a cable: the guard's program runs natively on it, over exactly the bytes that a test wrote, tags and fragments
//! included, and what the program sends back can be read, byte for byte.

use crate::support::{INTERFACE, Lab, Namespace, PATIENCE, flow, private_mounts, privileged, until};
use guard::{FlowKind, Protocol, Request};
use kernel_shared::{Reason, golden};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    time::Instant,
};
use types::Offence;

/// Hardware address of the guarded device: where golden frames go.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Hardware address of whoever is behind it: where golden frames come from.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;
/// An ethertype for experiments (IEEE 802): nobody's business but the test's.
const MARKER: [u8; 2] = [0x88, 0xb5];

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// The other side of a TAP device.
pub struct Tap(File);

impl Tap {
    /// A laboratory whose guarded interface is a TAP device, and the device's other side.
    pub fn lab(test: &str) -> Option<(Lab, Tap)> {
        Tap::lab_with(test, 0)
    }

    /// The same, with further flags (`IFF_*`) for the device.
    pub fn lab_with(test: &str, flags: i16) -> Option<(Lab, Tap)> {
        if !privileged(test) {
            return None;
        }
        private_mounts();
        let inside = Namespace::new();
        let tap = inside.inside(|| Tap::open(flags));
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        inside.run("ip", &["link", "set", INTERFACE, "address", &mac]);
        for address in ["10.77.0.2/16", "fd77::2/32"] {
            inside.run("ip", &[&["addr", "add", address, "dev", INTERFACE], &nodad(address)[..]].concat());
        }
        inside.run("ip", &["link", "set", "lo", "up"]);
        inside.run("ip", &["link", "set", INTERFACE, "up"]);
        let lab = Lab { outside: Namespace::new(), inside, folder: tempfile::tempdir().unwrap() };
        Some((lab, tap))
    }

    fn open(flags: i16) -> Tap {
        // Natively, the kernel runs XDP over a write that may not block only.
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
        let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TAP | IFF_NO_PI | flags, rest: [0; 22] };
        request.name[..INTERFACE.len()].copy_from_slice(INTERFACE.as_bytes());
        // SAFETY: the request is valid and outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &mut request) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        Tap(file)
    }

    /// Puts a frame on the wire.
    pub fn write(&mut self, frame: &[u8]) {
        assert_eq!(self.0.write(frame).unwrap(), frame.len());
    }

    /// The next frame that comes back and satisfies; others are passed over.
    pub fn read(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut buffer = [0; 4096];
        until(what, || match self.0.read(&mut buffer) {
            Ok(length) => wanted(&buffer[..length]).then(|| buffer[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        })
    }
}

fn nodad(address: &str) -> Vec<&'static str> {
    if address.contains(':') { vec!["nodad"] } else { vec![] }
}

/// What reaches the stack behind the guard: a packet socket sees every frame that XDP has let pass.
struct Stack(OwnedFd);

impl Stack {
    fn new(lab: &Lab) -> Stack {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        lab.inside.inside(|| {
            // SAFETY: plain system calls; the descriptor is new and owned by nobody else.
            let socket = unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol.into());
                assert!(fd >= 0, "{}", std::io::Error::last_os_error());
                OwnedFd::from_raw_fd(fd)
            };
            Stack(socket)
        })
    }

    /// All that arrived before the marker did.
    fn until_marker(&self, number: u32) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let start = Instant::now();
        loop {
            let mut buffer = [0u8; 4096];
            // SAFETY: the buffer is valid for its length.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            assert!(start.elapsed() < PATIENCE, "marker {number} did not arrive");
            let Ok(length) = usize::try_from(length) else { continue };
            let frame = buffer[..length].to_vec();
            if frame[12..14] == MARKER && frame[14..18] == number.to_be_bytes() {
                return frames;
            }
            // What the stack itself sends is seen here, too; it carries the device's own address.
            if frame[6..12] != MAC {
                frames.push(frame);
            }
        }
    }
}

fn marker(number: u32) -> Vec<u8> {
    [&MAC[..], &PEER[..], &MARKER[..], &number.to_be_bytes()[..], &[0; 42][..]].concat()
}

/// A frame as a packet socket shows it: the stack has taken the outer tag off before. `None` if it has not the inner ethertype whole
/// with two bytes behind it: there it dies.
pub fn untagged(frame: &[u8]) -> Option<Vec<u8>> {
    match frame[12..14] {
        [0x81, 0x00] | [0x88, 0xa8] => (frame.len() >= 20).then(|| [&frame[..12], &frame[16..]].concat()),
        _ => Some(frame.to_vec()),
    }
}

/// Golden packets whose senders a guard can be told about over its socket, and which stay as they are while a test runs.
fn tellable(case: &golden::Case) -> bool {
    !["expired", "dry", "and banned", "dialing"].iter().any(|word| case.name.contains(word))
}

#[test]
fn golden_packets_on_a_tap_reach_the_stack_or_die_as_the_table_says() {
    let Some((lab, mut tap)) = Tap::lab("golden_packets_on_a_tap_reach_the_stack_or_die_as_the_table_says") else { return };
    let arguments = ["--mode", "enforce", "--xdp", "native", "--protect", "quic/9100", "--event-shift", "31"];
    // The table's packets with a hidden port pass.
    let guard = lab.start(&[&arguments[..], &["--drop-unreadable", "false"]].concat());
    assert_eq!(guard.stats().xdp_mode, "native");
    for (id, class) in [(1, FlowKind::Floor), (2, FlowKind::Known)] {
        for address in [format!("10.77.{id}.9"), format!("2001:db8:{id}:7::9")] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let label = format!("golden {id}");
                let (address, port) = (address.parse().unwrap(), golden::REMOTE_PORT);
                guard.ask(&Request::FlowAdd { protocol, address, port, class, label, stake_ppm: None });
            }
        }
    }
    let bans = [
        ("10.77.4.9", Offence::BadSignature),
        ("2001:db8:4:7::9", Offence::BadSignature),
        ("10.77.5.0/24", Offence::Rate),
        ("2001:db8:5::/48", Offence::Rate),
    ];
    bans.into_iter().for_each(|(address, offence)| drop(guard.ban(address, 600_000, offence)));
    let stack = Stack::new(&lab);
    let before = guard.stats();
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut number, mut sent) = (0u32, 0);
    for case in golden::cases().iter().filter(|case| tellable(case) && case.frame.len() <= 1500) {
        number += 1;
        tap.write(&case.frame);
        tap.write(&marker(number));
        let arrived = stack.until_marker(number);
        *expected.entry(case.reason.as_str()).or_default() += 1;
        sent += 1;
        match untagged(&case.frame) {
            Some(frame) if !case.drop => assert_eq!(arrived, [frame], "{}", case.name),
            _ => assert_eq!(arrived, [[0u8; 0]; 0], "{}", case.name),
        }
    }
    assert!(sent >= 1000, "{sent} packets");
    *expected.entry(Reason::OutOfScope.as_str()).or_default() += u64::from(number);
    let after = guard.stats();
    assert_eq!(after.unreadable - before.unreadable, expected.remove("unreadable").unwrap());
    // The stack's own neighbour discovery is answered by nobody, so nothing else comes in.
    assert_eq!(after.out_of_scope - before.out_of_scope, expected.remove("out_of_scope").unwrap());
    let passed = [&after.passed, &after.dropped].into_iter().flatten().filter(|(_, count)| **count > 0);
    let counted: BTreeMap<&str, u64> = passed.map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(counted, expected);
}

/// A UDP datagram to the protected port from a host of golden sender 0's network.
fn datagram(host: u8) -> Vec<u8> {
    let udp = [&4000u16.to_be_bytes()[..], &9000u16.to_be_bytes()[..], &[0, 12, 0, 0, 1, 2, 3, host][..]].concat();
    let ip = [0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, host, 10, 77, 0, 2];
    [&MAC[..], &PEER[..], &[0x08, 0x00][..], &ip[..], &udp[..]].concat()
}

/// The one's complement sum of RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A datagram from fd77::9 with these extension headers (the first is of kind `first`) and this payload length, if it is not to be true.
fn datagram6(first: u8, headers: &[u8], length: Option<u16>) -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let addresses = [address("fd77::9"), address("fd77::2")].concat();
    let mut udp = [&4000u16.to_be_bytes()[..], &9000u16.to_be_bytes(), &[0, 12, 0, 0], b"mark"].concat();
    let sum = checksum(&[&addresses[..], &[0, 0, 0, 12, 0, 0, 0, 17], &udp].concat());
    udp[6..8].copy_from_slice(&sum);
    let length = length.unwrap_or((headers.len() + udp.len()) as u16).to_be_bytes();
    [&MAC[..], &PEER, &[0x86, 0xdd, 0x60, 0, 0, 0], &length, &[first, 64], &addresses, headers, &udp].concat()
}

/// Ways to hide a port that Linux delivers all the same: without the filter they arrive, with it none does.
#[test]
fn what_the_kernel_would_deliver_is_judged() {
    let Some((lab, mut tap)) = Tap::lab("what_the_kernel_would_deliver_is_judged") else { return };
    const UDP: u8 = 17;
    let padded = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0]; // eight bytes, nothing but padding
    let options = [60, 60, 60, 60, UDP].map(padded).concat();
    let mut plain = datagram(9);
    let sum = checksum(&plain[14..34]);
    plain[24..26].copy_from_slice(&sum);
    let tagged = [&plain[..12], &[0x81, 0, 0, 0].repeat(3), &plain[12..]].concat();
    let frames = [
        ("an IPv6 length of 0", datagram6(0, &padded(UDP), Some(0)), "banned_manual"),
        ("five extension headers", datagram6(60, &options, None), "hidden"),
        ("three tags of no VLAN", tagged, "hidden"),
    ];
    let sockets = [lab.inside.udp(([10, 77, 0, 2], 9000)), lab.inside.udp((crate::support::ip("fd77::2"), 9000))];
    let stack = Stack::new(&lab);
    // Whether a socket has it. Once the marker has been seen by a packet socket, the stack is done with all before it.
    let mut arrives = |number: u32, frame: &[u8]| {
        tap.write(frame);
        tap.write(&marker(number));
        stack.until_marker(number);
        let mut buffer = [0; 64];
        sockets.iter().any(|socket| {
            socket.set_nonblocking(true).unwrap();
            socket.recv(&mut buffer).is_ok()
        })
    };
    for (number, (name, frame, _)) in (0..).zip(&frames) {
        assert!(arrives(number, frame), "{name}: this kernel does not deliver it");
    }
    let guard = lab.start(&["--mode", "enforce"]);
    for address in ["10.77.0.9", "fd77::9"] {
        guard.ban(address, 600_000, Offence::Manual);
    }
    for (number, (name, frame, reason)) in (10..).zip(&frames) {
        let before = guard.stats().dropped[*reason];
        assert!(!arrives(number, frame), "{name}");
        assert_eq!(guard.stats().dropped[*reason], before + 1, "{name}");
    }
    // With the switch off what is hidden passes, and is counted as that.
    drop(guard);
    let guard = lab.start(&["--drop-unreadable", "false"]);
    for (number, (name, frame, reason)) in (20..).zip(&frames) {
        let before = guard.stats().unreadable;
        let hidden = *reason == "hidden";
        assert_eq!((arrives(number, frame), guard.stats().unreadable - before), (hidden, u64::from(hidden)), "{name}");
    }
}

#[test]
fn budgets_hold_on_a_tap_and_flows_are_spared() {
    let Some((lab, mut tap)) = Tap::lab("budgets_hold_on_a_tap_and_flows_are_spared") else { return };
    let start = Instant::now();
    let guard = lab.start(&["--mode", "enforce", "--budget", "udp_source=1/4"]);
    guard.ask(&flow("10.77.0.8", 4000, FlowKind::Known, "peer"));
    let stack = Stack::new(&lab);
    for host in [7, 8] {
        (0..50).for_each(|_| tap.write(&datagram(host)));
        tap.write(&marker(host.into()));
        let arrived = stack.until_marker(host.into()).into_iter().filter(|frame| *frame == datagram(host)).count() as u64;
        let stats = guard.stats();
        if host == 7 {
            assert!(arrived >= 4 && arrived <= 4 + start.elapsed().as_secs() + 1, "{arrived} arrived");
            assert_eq!((stats.passed["stranger"], stats.dropped["rate_source"]), (arrived, 50 - arrived));
        } else {
            assert_eq!((arrived, stats.passed["known"]), (50, 50));
        }
    }
}
