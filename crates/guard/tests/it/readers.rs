//! Known truth: a reader that is stopped moves its own latencies, and nobody else's.

use crate::{
    egress::Group,
    probes::row,
    support::{Lab, MARKER4, PATIENCE, PORT, Running, SERVER4, SUSPECT4, ip, until},
};
use guard::{FlowKind, Protocol, Request};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// How long the slow reader stops.
const PAUSE: Duration = Duration::from_millis(50);
/// Packets of the quick peer, before and after.
const PACKETS: u32 = 20;

fn log2(time: Duration) -> usize {
    time.as_nanos().ilog2() as usize
}

/// The bucket of a row's slowest packet.
fn highest(guard: &Running, label: &str) -> usize {
    let latency = row(guard, label).latency;
    assert!(!latency.is_empty(), "{label} was never measured");
    latency.len() - 1
}

/// The slow reader's one packet waited between these times; no packet of the quick peer waited longer than its bound.
fn judge(guard: &Running, (least, most): (Duration, Duration), quick: Duration) {
    let slow = row(guard, "slow").latency;
    assert!((log2(least)..=log2(most)).contains(&highest(guard, "slow")), "{slow:?} in {least:?} to {most:?}");
    let others = row(guard, "quick").latency;
    assert!(highest(guard, "quick") <= log2(quick), "{others:?} below {quick:?}");
    assert_eq!(slow.iter().sum::<u64>(), 1);
    let told = row(guard, "slow");
    assert_eq!((told.latency_p50_ns, told.latency_p99_ns), (Some(2 << (slow.len() - 1)), Some(2 << (slow.len() - 1))));
}

fn announce(guard: &Running, protocol: Protocol, from: SocketAddr, label: &str) {
    let (address, port, class) = (from.ip(), from.port(), FlowKind::Known);
    guard.ask(&Request::FlowAdd { protocol, address, port, class, label: label.into(), stake_ppm: None });
}

/// Waits until a packet waits in the socket, without reading it.
fn arrived(reader: &impl AsFd) {
    let mut ready = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)];
    let patience = nix::poll::PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(nix::poll::poll(&mut ready, patience).unwrap(), 1);
}

/// A connection to the protected port from one of the outside's addresses, announced under `label`: the peer's end and the reader's.
fn connection(lab: &Lab, guard: &Running, from: &str, label: &str) -> (TcpStream, TcpStream) {
    let listener = lab.inside.inside(|| TcpListener::bind((SERVER4, PORT)).unwrap());
    let socket = lab.outside.inside(|| {
        let fd = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let local: nix::sys::socket::SockaddrIn = format!("{from}:0").parse().unwrap();
        nix::sys::socket::bind(fd.as_raw_fd(), &local).unwrap();
        let remote: nix::sys::socket::SockaddrIn = format!("{SERVER4}:{PORT}").parse().unwrap();
        nix::sys::socket::connect(fd.as_raw_fd(), &remote).unwrap();
        TcpStream::from(fd)
    });
    let (reader, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    announce(guard, Protocol::Tcp, socket.local_addr().unwrap(), label);
    (socket, reader)
}

#[test]
fn over_tcp() {
    let Some(lab) = Lab::new("a stopped reader over TCP") else { return };
    let guard = lab.start(&["--latency-shift", "0"]);
    if guard.stats().latency_tcp.source.starts_with("none") {
        eprintln!("not measured here: {}", guard.stats().latency_tcp.source);
        return;
    }
    let (mut slow, mut slow_reader) = connection(&lab, &guard, SUSPECT4, "slow");
    let (mut quick, mut quick_reader) = connection(&lab, &guard, MARKER4, "quick");
    // One packet waits for its reader: at least the first, at most the second, by the test's own clock.
    let wait = |pause: Duration, sender: &mut TcpStream, reader: &mut TcpStream| {
        let sent = Instant::now();
        sender.write_all(&[7; 40]).unwrap();
        arrived(reader);
        let waits = Instant::now();
        std::thread::sleep(pause);
        let least = waits.elapsed();
        reader.read_exact(&mut [0; 40]).unwrap();
        (least, sent.elapsed())
    };
    let mut bound = Duration::ZERO;
    for _ in 0..PACKETS {
        bound = bound.max(wait(Duration::ZERO, &mut quick, &mut quick_reader).1);
    }
    let bounds = wait(PAUSE, &mut slow, &mut slow_reader);
    for _ in 0..PACKETS {
        bound = bound.max(wait(Duration::ZERO, &mut quick, &mut quick_reader).1);
    }
    judge(&guard, bounds, bound);
    let (maps, quick) = (guard.client().maps().unwrap(), row(&guard, "quick"));
    let others = quick.latency.clone();
    assert_eq!(
        (maps.row_latency(quick.row, quick.generation), maps.row_latency(quick.row, quick.generation + 1)),
        (others, vec![])
    );
}

/// Two sockets on the protected port, each connected to one peer, and the peers' own.
struct Pair {
    peer: UdpSocket,
    reader: UdpSocket,
}

impl Pair {
    fn new(lab: &Lab, guard: &Running, from: &str, label: &str) -> Pair {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
        let peer = lab.outside.udp((ip(from), 0));
        peer.connect((SERVER4, PORT)).unwrap();
        let reader = lab.inside.inside(|| {
            let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
            let local: SockaddrIn = format!("{SERVER4}:{PORT}").parse().unwrap();
            bind(fd.as_raw_fd(), &local).unwrap();
            UdpSocket::from(fd)
        });
        reader.connect(peer.local_addr().unwrap()).unwrap();
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        announce(guard, Protocol::Udp, peer.local_addr().unwrap(), label);
        Pair { peer, reader }
    }

    /// One datagram goes and is read at once; how long that took at most.
    fn exchange(&self) -> Duration {
        let sent = Instant::now();
        self.peer.send(&[7; 40]).unwrap();
        assert_eq!(self.reader.recv(&mut [0; 64]).unwrap(), 40);
        sent.elapsed()
    }
}

#[test]
fn over_udp_of_connected_sockets() {
    let Some(lab) = Lab::new("a stopped reader over UDP, connected sockets") else { return };
    let guard = lab.start(&["--latency-shift", "0"]);
    if guard.stats().latency_udp.source.starts_with("none") {
        eprintln!("not measured here: {}", guard.stats().latency_udp.source);
        return;
    }
    let (slow, quick) = (Pair::new(&lab, &guard, SUSPECT4, "slow"), Pair::new(&lab, &guard, MARKER4, "quick"));
    let mut bound = (0..PACKETS).map(|_| quick.exchange()).max().unwrap();
    let sent = Instant::now();
    slow.peer.send(&[7; 20]).unwrap();
    arrived(&slow.reader);
    let waits = Instant::now();
    // The other reader of the same port reads on, and longer datagrams than the one that waits.
    while waits.elapsed() < PAUSE {
        bound = bound.max(quick.exchange());
    }
    let least = waits.elapsed();
    assert_eq!(slow.reader.recv(&mut [0; 64]).unwrap(), 20);
    let most = sent.elapsed();
    for _ in 0..PACKETS {
        bound = bound.max(quick.exchange());
    }
    judge(&guard, (least, most), bound);
}

/// A server in the guarded control group with one socket for all: each line on its input makes it read one datagram and say how long it was.
const SERVER: &str = r"
import socket, sys
server = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
for _ in sys.stdin:
    print(len(server.recvfrom(4096)[0]), flush=True)
";

struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(group: &Group, address: &str) -> Server {
        let members = group.path.join("cgroup.procs");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", group.lab.inside.path())).args(["python3", "-c", SERVER, address, &PORT.to_string()]);
        // SAFETY: one write to a file by its path; the child is single-threaded by then, and allocates as any test's child does.
        unsafe { command.pre_exec(move || fs::write(&members, "0")) };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server { child, said };
        assert_eq!(server.line(), "ready");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_string()
    }

    /// Reads one datagram of this length.
    fn read(&mut self, length: usize) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert_eq!(self.line(), length.to_string());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer that waits for a stopped reader, and one that comes later, on one socket of a process in the control group.
fn one_socket_for_all(listen: &str, server: &str, slow: &str, quick: &str) {
    let Some(group) = Group::new(&format!("stopped-reader-{}", listen.replace([':', '.'], "-"))) else { return };
    let guard = group.lab.start(&["--latency-shift", "0", "--cgroup", group.path.to_str().unwrap()]);
    let source = guard.stats().latency_udp.source;
    if !source.contains("recvmsg4") {
        eprintln!("not measured by sender here: {source}");
        return;
    }
    let mut reader = Server::start(&group, listen);
    let peer = |from: &str, label: &str| {
        let socket = group.lab.outside.udp((ip(from), 0));
        socket.connect((ip(server), PORT)).unwrap();
        announce(&guard, Protocol::Udp, socket.local_addr().unwrap(), label);
        socket
    };
    let (slow, quick) = (peer(slow, "slow"), peer(quick, "quick"));
    let stamped = |count: u64| until("the stamp", || (guard.stats().latency_stamped >= count).then(Instant::now));
    let before = Instant::now();
    quick.send(&[7; 30]).unwrap();
    reader.read(30);
    let mut bound = before.elapsed();
    let sent = Instant::now();
    slow.send(&[7; 40]).unwrap();
    let waits = stamped(2);
    std::thread::sleep(PAUSE);
    let late = Instant::now();
    quick.send(&[7; 50]).unwrap();
    stamped(3);
    let least = waits.elapsed();
    reader.read(40);
    let most = sent.elapsed();
    assert_eq!(row(&guard, "quick").latency.iter().sum::<u64>(), 1, "the read of one peer's datagram is not another's");
    reader.read(50);
    bound = bound.max(late.elapsed());
    judge(&guard, (least, most), bound);
    assert_eq!(row(&guard, "quick").latency.iter().sum::<u64>(), 2);
}

#[test]
fn over_udp_of_one_socket_for_all() {
    one_socket_for_all(SERVER4, SERVER4, SUSPECT4, MARKER4);
}

#[test]
fn over_udp_of_one_socket_for_both_families() {
    one_socket_for_all("::", SERVER4, SUSPECT4, MARKER4);
}

#[test]
fn over_udp_of_one_ipv6_socket() {
    use crate::support::{MARKER6, SERVER6, SUSPECT6};
    one_socket_for_all(SERVER6, SERVER6, SUSPECT6, MARKER6);
}
