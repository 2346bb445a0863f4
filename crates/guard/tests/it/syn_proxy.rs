//! The SYN proxy: real clients get in during a flood that the budget would have shut them out by; and its answers, byte for byte.

use crate::{
    support::{INTERFACE, Lab, PATIENCE, PORT, Running, SERVER4, SERVER6, Wire, ip, until},
    tap::{MAC, PEER, Tap},
};
use guard::{ErrorCode, Request};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Real clients of a test.
const CLIENTS: usize = 20;
/// The flood ends here, whoever is still waiting.
const FLOOD_MAX: u32 = 20_000_000;

/// The Internet checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum = pairs.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum + (sum >> 16)) as u16)).to_be_bytes()
}

/// The pseudo-header and a TCP header of these addresses.
fn with_pseudo(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> Vec<u8> {
    let length = (tcp.len() as u32).to_be_bytes();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [&source.octets()[..], &destination.octets(), &[0, 6], &length[2..], tcp].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, 6], tcp].concat()
        }
        _ => panic!("two families"),
    }
}

/// A TCP segment to the protected port with sound checksums, in a frame for this station, behind these tags.
struct Segment {
    mac: [u8; 6],
    tags: Vec<u8>,
    source: IpAddr,
    port: u16,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    options: Vec<u8>,
}

impl Segment {
    fn syn(mac: [u8; 6], source: IpAddr, port: u16) -> Segment {
        let options = vec![2, 4, 0x05, 0xb4, 1, 3, 3, 7]; // MSS 1460, a window scale
        Segment { mac, tags: vec![], source, port, flags: SYN, sequence: 7000, acknowledged: 0, options }
    }

    fn build(&self) -> Vec<u8> {
        let destination = ip(if self.source.is_ipv4() { SERVER4 } else { SERVER6 });
        let mut tcp = [self.port.to_be_bytes(), PORT.to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([((20 + self.options.len()) as u8 / 4) << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        let sum = checksum(&with_pseudo(self.source, destination, &tcp));
        tcp[16..18].copy_from_slice(&sum);
        let mut packet = match (self.source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = (20 + tcp.len() as u16).to_be_bytes();
                let mut header =
                    [&[0x45, 0][..], &length, &[0, 1, 0x40, 0, 64, 6, 0, 0], &source.octets(), &destination.octets()].concat();
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum);
                [&[0x08, 0x00], &header[..]].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = (tcp.len() as u16).to_be_bytes();
                [&[0x86, 0xdd, 0x60, 0, 0, 0][..], &length, &[6, 64], &source.octets(), &destination.octets()].concat()
            }
            _ => panic!("two families"),
        };
        packet.extend(tcp);
        [&self.mac[..], &PEER[..], &self.tags[..], &packet[..]].concat()
    }
}

/// A spoofed source: one of 65,536 hosts in 256 networks.
fn spoofed(number: u32, v6: bool) -> IpAddr {
    let [_, _, network, host] = number.to_be_bytes();
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb9, network.into(), host.into(), 0, 0, 0, 9).into()
    } else {
        Ipv4Addr::new(198, 18, network, host).into()
    }
}

/// Hardware address of the guarded interface.
fn mac(lab: &Lab) -> [u8; 6] {
    let text = lab.inside.run("ip", &["-o", "link", "show", INTERFACE]);
    let (_, rest) = text.split_once("link/ether ").unwrap();
    let bytes: Vec<u8> =
        rest.split_whitespace().next().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Answers what it is told, and ends when it is told "stop!".
fn serve(listener: &TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut word = [0; 5];
        // A client that gave up in the meantime is not the server's trouble.
        if stream.read_exact(&mut word).is_ok() {
            if &word == b"stop!" {
                return;
            }
            let _ = stream.write_all(&word);
        }
    }
}

/// Connects, says a word and reads it back.
fn exchange(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut word = [0; 5];
    stream.read_exact(&mut word)?;
    assert_eq!(&word, b"hello");
    Ok(())
}

/// Begins to connect and does not wait.
fn begin(to: SocketAddr) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
    use std::os::fd::AsRawFd;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    assert_eq!(connect(socket.as_raw_fd(), &SockaddrStorage::from(to)), Err(nix::errno::Errno::EINPROGRESS));
    socket
}

/// Whether a connection has come about by now.
fn established(socket: impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut waiting, PollTimeout::ZERO).unwrap();
    ready == 1 && waiting[0].revents() == Some(PollFlags::POLLOUT)
}

/// Floods until told to stop; `sent` counts.
fn flood(wire: &Wire, frames: &[Vec<u8>], stop: &AtomicBool, sent: &AtomicU32) {
    for frame in frames.iter().cycle() {
        if stop.load(SeqCst) {
            return;
        }
        match wire.try_send(frame) {
            // The queue of the sending device is full: a flood that is held up is a flood still.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::yield_now(),
            sent => sent.unwrap(),
        }
        assert!(sent.fetch_add(1, SeqCst) < FLOOD_MAX, "the flood's end was reached");
    }
}

/// Ends the flood however its test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn real_clients_get_in_during_a_syn_flood_and_without_the_proxy_they_do_not() {
    let Some(lab) = Lab::new("real_clients_get_in_during_a_syn_flood_and_without_the_proxy_they_do_not") else { return };
    // What XDP sends back over a veth arrives only where the other end has a program of its own (or GRO).
    let other = crate::golden::kernel();
    let _receives = lab.outside.inside(|| {
        let index = nix::net::if_::if_nametoindex("out0").unwrap();
        guard::kernel::sys::link_xdp(other.loaded.clock.as_fd(), index, 1 << 2).unwrap()
    });
    let guard = lab.start(&["--mode", "enforce", "--budget", "handshakes=1/1"]);
    let listener = lab.inside.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    let station = mac(&lab);
    let frames: Vec<Vec<u8>> = (0..2000u32).map(|n| Segment::syn(station, spoofed(n * 31, n % 2 == 1), 4000).build()).collect();
    let wire = Wire::new(&lab);
    let servers = [SERVER4, SERVER6].map(|server| SocketAddr::new(ip(server), PORT));
    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        // Not of the scope: a test that fails would wait for it.
        std::thread::spawn(move || serve(&listener));
        scope.spawn(|| flood(&wire, &frames, &stop, &sent));
        until("the flood", || (guard.stats().dropped["rate_strangers"] > 1000).then_some(()));
        // Without the proxy.
        let waiting: Vec<_> = lab.outside.inside(|| (0..CLIENTS).map(|client| begin(servers[client % 2])).collect());
        let before = sent.load(SeqCst);
        until("more of the flood", || (sent.load(SeqCst) > before + 20_000).then_some(()));
        let lucky = waiting.iter().filter(|socket| established(socket)).count();
        assert!(lucky <= CLIENTS / 4, "{lucky} of {CLIENTS} got in");
        assert_eq!(guard.stats().syn_cookies_sent, 0);
        drop(waiting);
        // With it, switched on live.
        guard.ask(&Request::SynProxy { state: "on".into() });
        lab.outside.inside(|| {
            for client in 0..2 * CLIENTS {
                exchange(servers[client % 2]).unwrap_or_else(|error| panic!("client {client}: {error}"));
            }
        });
        drop(stopping);
        lab.inside.inside(|| TcpStream::connect(servers[0]).unwrap().write_all(b"stop!").unwrap());
    });
    let stats = guard.stats();
    assert!(stats.syn_cookies_sent >= CLIENTS as u64, "{}", stats.syn_cookies_sent);
    assert!(stats.dropped["rate_strangers"] >= stats.syn_cookies_sent);
    assert_eq!((stats.syn_proxy.as_str(), stats.syn_cookies_invalid), ("on", 0));
    assert_eq!(lab.inside.run("cat", &["/proc/sys/net/ipv4/tcp_syncookies"]).trim(), "2");
}

/// Sends SYNs until one is answered by the proxy, and not by the kernel within the budget; the answer.
fn answered(guard: &Running, tap: &mut Tap, segment: &mut Segment) -> Vec<u8> {
    until("a SYN above the budget", || {
        segment.port += 1;
        let before = guard.stats().syn_cookies_sent;
        tap.write(&segment.build());
        (guard.stats().syn_cookies_sent > before).then_some(())
    });
    let (tags, port) = (segment.tags.len(), segment.port.to_be_bytes());
    let at = 14 + tags + if segment.source.is_ipv4() { 20 } else { 40 };
    tap.read("the answer", |frame| {
        frame.len() >= at + 20 && frame[at..at + 2] == PORT.to_be_bytes() && frame[at + 2..at + 4] == port
    })
}

#[test]
fn a_cookie_is_a_sound_answer_and_its_ack_gets_in_over_any_budget() {
    let Some((lab, mut tap)) = Tap::lab("a_cookie_is_a_sound_answer_and_its_ack_gets_in_over_any_budget") else { return };
    let guard = lab.start(&["--mode", "enforce", "--syn-proxy", "--budget", "handshakes=1/1,rest=1/1"]);
    assert_eq!((guard.stats().xdp_mode.as_str(), guard.stats().syn_proxy.as_str()), ("native", "on"));
    let listener = lab.inside.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    listener.set_nonblocking(true).unwrap();
    for (family, source) in ["10.77.3.3", "fd77:0:3::3"].map(ip).into_iter().enumerate() {
        let server = ip([SERVER4, SERVER6][family]);
        for tags in [&[][..], &[0x81, 0x00, 0, 7]] {
            let mut segment = Segment { tags: tags.to_vec(), ..Segment::syn(MAC, source, 20_000) };
            let frame = answered(&guard, &mut tap, &mut segment);
            let at = 14 + tags.len() + [20, 40][family];
            let tcp = &frame[at..];
            assert_eq!((&frame[..6], &frame[6..12], &frame[12..12 + tags.len()]), (&PEER[..], &MAC[..], tags));
            assert_eq!(tcp.len(), 24, "one option");
            assert_eq!(checksum(&with_pseudo(server, source, tcp)), [0, 0]);
            if family == 0 {
                assert_eq!(checksum(&frame[14 + tags.len()..at]), [0, 0]);
            }
            assert_eq!((&tcp[8..12], tcp[13]), (&7001u32.to_be_bytes()[..], SYN | ACK));
            assert_eq!(&tcp[20..], [&[2, 4], &[1460u16, 1440][family].to_be_bytes()[..]].concat());
            if !tags.is_empty() {
                continue; // nobody listens behind that tag here
            }
            let cookie = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            complete(&guard, &mut tap, &listener, &mut segment, cookie);
        }
    }
}

/// Acknowledges a wrong cookie, which dies above the budget, and then the right one, which gets in.
fn complete(guard: &Running, tap: &mut Tap, listener: &TcpListener, segment: &mut Segment, cookie: u32) {
    segment.flags = ACK;
    segment.sequence = 7001;
    segment.options = vec![];
    // The budget earns a token a second: wrong ACKs use it up, and the next one is checked.
    segment.acknowledged = cookie.wrapping_add(1) ^ 0x0100_0000;
    let before = guard.stats();
    until("an ACK above the budget", || {
        tap.write(&segment.build());
        (guard.stats().syn_cookies_invalid > before.syn_cookies_invalid).then_some(())
    });
    assert!(guard.stats().dropped["rate_strangers"] > before.dropped["rate_strangers"]);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    segment.acknowledged = cookie.wrapping_add(1);
    tap.write(&segment.build());
    let (_, peer) = until("the connection", || listener.accept().ok());
    assert_eq!(peer.port(), segment.port);
    let after = guard.stats();
    assert!(after.syn_cookies_valid + after.passed["stranger"] > before.syn_cookies_valid + before.passed["stranger"]);
}

#[test]
fn bans_come_first_and_nobody_is_answered_in_shadow_or_in_a_groups_name() {
    let Some((lab, mut tap)) = Tap::lab("bans_come_first_and_nobody_is_answered_in_shadow_or_in_a_groups_name") else { return };
    let guard = lab.start(&["--mode", "enforce", "--syn-proxy=all", "--budget", "handshakes=1/1,syn_source=1/1"]);
    let listener = lab.inside.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    let mut segment = Segment::syn(MAC, ip("10.77.3.3"), 20_000);
    answered(&guard, &mut tap, &mut segment);
    let quiet = |tap: &mut Tap, segment: &Segment| {
        let before = guard.stats().syn_cookies_sent;
        (0..50).for_each(|_| tap.write(&segment.build()));
        assert_eq!(guard.stats().syn_cookies_sent, before);
    };
    guard.ban("10.77.3.3", 600_000, types::Offence::Manual);
    quiet(&mut tap, &segment);
    assert_eq!(guard.stats().dropped["banned_manual"], 50);
    let other = |mac, flags| Segment { flags, ..Segment::syn(mac, ip("10.77.3.4"), 20_000) };
    quiet(&mut tap, &other([0xff; 6], SYN));
    quiet(&mut tap, &other(MAC, SYN | ACK));
    guard.ask(&Request::Mode { mode: "shadow".into() });
    quiet(&mut tap, &other(MAC, SYN));
    guard.ask(&Request::Mode { mode: "enforce".into() });
    // `on` leaves an address's own budget alone, `all` does not.
    guard.ask(&Request::Budget { name: "handshakes".into(), rate: 0, burst: 0, for_ms: None });
    answered(&guard, &mut tap, &mut other(MAC, SYN));
    guard.ask(&Request::SynProxy { state: "on".into() });
    quiet(&mut tap, &other(MAC, SYN));
    assert_eq!(guard.refusal(&Request::SynProxy { state: "yes".into() }).0, ErrorCode::BadRequest);
    // Nobody listens: nobody is answered, once the listener is asked for again.
    guard.ask(&Request::SynProxy { state: "all".into() });
    drop(listener);
    until("silence", || {
        let before = guard.stats();
        tap.write(&other(MAC, SYN).build());
        let after = guard.stats();
        (after.dropped["rate_source"] > before.dropped["rate_source"] && after.syn_cookies_sent == before.syn_cookies_sent)
            .then_some(())
    });
    guard.ask(&Request::SynProxy { state: "off".into() });
    assert_eq!(guard.stats().syn_proxy, "off");
}

#[test]
fn the_proxy_outlives_its_guard_and_is_adopted() {
    let Some((lab, mut tap)) = Tap::lab("the_proxy_outlives_its_guard_and_is_adopted") else { return };
    let mut guard = lab.start(&["--mode", "enforce", "--syn-proxy", "--budget", "handshakes=1/1"]);
    let _listener = lab.inside.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    // Nobody answers for 10.77.3.3 on the link, so the kernel's own answers never leave: what comes back is XDP's.
    let mut segment = Segment::syn(MAC, ip("10.77.3.3"), 20_000);
    (0..50).for_each(|_| tap.write(&segment.build()));
    let answer =
        tap.read("an answer without a guard", |frame| frame.len() == 58 && frame[12..14] == [0x08, 0x00] && frame[23] == 6);
    assert_eq!((&answer[..6], answer[47]), (&PEER[..], SYN | ACK));
    let guard = lab.start(&[]);
    let stats = guard.stats();
    assert_eq!((stats.adopted, stats.mode.as_str(), stats.syn_proxy.as_str()), (true, "enforce", "on"));
    assert!(stats.syn_cookies_sent > 0);
    answered(&guard, &mut tap, &mut segment);
}
