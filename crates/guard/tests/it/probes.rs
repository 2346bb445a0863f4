//! What the kernel says about connections and about its own drops, against traffic whose truth the test knows.

use crate::{
    egress::Group,
    support::{Lab, PORT, Running, SERVER4, SUSPECT4, Wire, ban, flow, ip, segment, until},
};
use guard::{FlowKind, Protocol, Request, TcpState, TcpTruth, protocol::RowInfo};
use kernel_shared::abi::{SLOT_TCP_RETRANSMITS, SLOT_TCP_RTT, SLOT_TCP_TIMEOUTS};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

/// A server in the guarded control group: echoes what it receives; a line on its input makes it send a byte by itself.
const SERVER: &str = r"
import selectors, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('listening', flush=True)
peer, _ = listener.accept()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
ready = selectors.DefaultSelector()
ready.register(peer, selectors.EVENT_READ)
ready.register(sys.stdin, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is peer:
            data = peer.recv(4096)
            if not data:
                peer.close()
                print('closed', flush=True)
                sys.exit()
            peer.sendall(data)
        elif sys.stdin.readline():
            peer.sendall(b'!')
        else:
            ready.unregister(sys.stdin)
";

/// A client in the guarded control group, from a port of the kernel's choice: says which, then sends what it is told to by lines.
const CLIENT: &str = r"
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(peer.getsockname()[1], flush=True)
for line in sys.stdin:
    peer.sendall(line.encode())
    peer.recv(4096)
print('closed', flush=True)
";

pub struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Server {
    /// Starts this script in the control group, and waits until it listens.
    pub fn start(group: &Group, script: &str) -> Server {
        let mut server = Server::run(group, script, SERVER4, PORT);
        server.wait_for("listening");
        server
    }

    /// Runs a program in the group.
    fn run(group: &Group, program: &str, address: &str, port: u16) -> Server {
        let members = group.path.join("cgroup.procs");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", group.lab.inside.path())).args(["python3", "-c", program, address, &port.to_string()]);
        // SAFETY: one write to a file by its path; the child is single-threaded by then, and allocates as any test's child does.
        unsafe { command.pre_exec(move || fs::write(&members, "0")) };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Server { child, said }
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_string()
    }

    fn wait_for(&mut self, word: &str) {
        assert_eq!(self.says(), word);
    }

    /// Gives the script a word, and waits until it says that it has done so.
    pub fn obey(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        self.wait_for(word);
    }

    fn send_a_byte(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn row(guard: &Running, label: &str) -> RowInfo {
    guard.stats().rows.into_iter().find(|row| row.label == label).unwrap()
}

fn exchange(client: &mut TcpStream) {
    client.write_all(&[7; 100]).unwrap();
    client.read_exact(&mut [0; 100]).unwrap();
}

/// Waits until the connection's figures fit.
fn truth_that(guard: &Running, what: &str, fits: impl Fn(&TcpTruth) -> bool) -> TcpTruth {
    until(what, || row(guard, "peer").tcp.filter(&fits))
}

#[test]
fn a_peers_connection_is_told_as_the_kernel_knows_it() {
    let Some(group) = Group::new("a_peers_connection_is_told_as_the_kernel_knows_it") else { return };
    let guard = group.lab.start(&["--mode", "enforce", "--cgroup", group.path.to_str().unwrap()]);
    let line = guard.stats().probes["tcp_truth"].clone();
    assert!(line.starts_with("sock_ops of "), "{line}");
    let mut server = Server::start(&group, SERVER);
    let mut client = group.lab.outside.inside(|| TcpStream::connect((SERVER4, PORT)).unwrap());
    client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let began = Instant::now();
    client.set_nodelay(true).unwrap();
    exchange(&mut client);
    // The node announces a flow after its handshake: what the kernel says next finds it.
    let port = client.local_addr().unwrap().port();
    let announce = |protocol, address: &str, port, label: &str| {
        guard.ask(&Request::FlowAdd {
            protocol,
            address: ip(address),
            port,
            class: FlowKind::Known,
            label: label.into(),
            stake_ppm: None,
        })
    };
    announce(Protocol::Tcp, SUSPECT4, port, "peer");
    announce(Protocol::Udp, SUSPECT4, port, "quic");
    assert_eq!(row(&guard, "peer").tcp, None);
    let mut exchanged = 100;
    let truth = until("the first figures", || {
        exchange(&mut client);
        exchanged += 100;
        row(&guard, "peer").tcp
    });
    assert_eq!((truth.state, truth.remote_port, truth.local_port, truth.retransmits), (TcpState::Established, port, PORT, 0));
    assert!(truth.bytes_received <= exchanged && truth.bytes_acked <= exchanged && truth.bytes_received > 0, "{truth:?}");
    let (smooth, least) = (truth.srtt_us.unwrap(), truth.min_rtt_us.unwrap());
    assert!(least <= smooth && (smooth as u128) <= began.elapsed().as_micros(), "{truth:?}");
    // No peer acknowledges faster than its timeout's floor, which is 200 ms.
    assert!(truth.rto_us.unwrap() >= 200_000, "{truth:?}");
    // What a descriptor's holder maps is what the socket's answer says.
    let maps = guard.client().maps().unwrap();
    let peer = row(&guard, "peer");
    assert_eq!(maps.truth(peer.row, peer.generation), peer.tcp);
    assert_eq!(maps.truth(peer.row, peer.generation + 1), None);
    // Over QUIC nothing is visible, and nothing is not 0.
    let quic = row(&guard, "quic");
    assert_eq!(quic.tcp, None);
    assert!(serde_json::to_value(&quic).unwrap()["tcp"].is_null());
    // The wire is cut: the byte is sent again and again, each time after twice as long.
    group.lab.outside.run("ip", &["link", "set", "out0", "down"]);
    server.send_a_byte();
    let lost = truth_that(&guard, "a second retransmission", |truth| truth.retransmits >= 2);
    assert!(lost.rto_us.unwrap() >= 2 * 200_000, "{lost:?}");
    let total = |slot| guard.client().maps().unwrap().slot(slot);
    assert!(total(SLOT_TCP_RETRANSMITS).packets >= 2 && total(SLOT_TCP_TIMEOUTS).packets >= 2);
    assert!(total(SLOT_TCP_RTT).packets > 0 && total(SLOT_TCP_RTT).bytes >= total(SLOT_TCP_RTT).packets);
    group.lab.outside.run("ip", &["link", "set", "out0", "up"]);
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    server.wait_for("closed");
    truth_that(&guard, "the end", |truth| truth.state == TcpState::Closed);
}

/// A connection that the node opened ends at a port that nobody protects: it has a row all the same, and no packet is taken for its.
#[test]
fn a_dialed_peers_connection_is_told_and_its_name_opens_nothing() {
    let Some(group) = Group::new("a_dialed_peers_connection_is_told_and_its_name_opens_nothing") else { return };
    let guard = group.lab.start(&["--mode", "enforce", "--cgroup", group.path.to_str().unwrap()]);
    let listener = group.lab.outside.inside(|| TcpListener::bind((SUSPECT4, 4000)).unwrap());
    let mut client = Server::run(&group, CLIENT, SUSPECT4, 4000);
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let port: u16 = client.says().parse().unwrap();
    let (address, class, stake_ppm) = (ip(SUSPECT4), FlowKind::Dialed, Some(250_000));
    guard.ask(&Request::FlowAdd { protocol: Protocol::Tcp, address, port: 4000, class, label: "peer".into(), stake_ppm });
    let truth = until("the first figures", || {
        client.child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        peer.read_exact(&mut [0; 6]).unwrap();
        peer.write_all(b"hello").unwrap();
        row(&guard, "peer").tcp
    });
    assert_eq!((truth.state, truth.remote_port, truth.local_port), (TcpState::Established, 4000, port));
    assert!(truth.srtt_us.unwrap() > 0, "{truth:?}");
    // To the protected port, the same source is a stranger; but the address is a validator's, and can't be banned.
    let wire = Wire::new(&group.lab);
    (0..5).for_each(|_| wire.send(&segment([10, 77, 0, 1], 0x10)));
    until("the segments' verdict", || (guard.stats().passed["stranger"] >= 5).then_some(()));
    assert_eq!((guard.stats().passed["floor"], row(&guard, "peer").packets), (0, 0));
    assert_eq!(guard.refusal(&ban(SUSPECT4, 60_000, types::Offence::Rate)).0, guard::ErrorCode::Floor);
    drop(client.child.stdin.take());
    client.wait_for("closed");
}

#[test]
fn without_a_control_group_nothing_is_told_and_nothing_fails() {
    let Some(lab) = Lab::new("without_a_control_group_nothing_is_told_and_nothing_fails") else { return };
    let guard = lab.start(&[]);
    guard.ask(&flow(SUSPECT4, 4000, FlowKind::Known, "peer"));
    assert!(guard.stats().probes["tcp_truth"].starts_with("off: "));
    assert_eq!(row(&guard, "peer").tcp, None);
    assert_eq!(row(&guard, "peer").endpoints[0].port, 4000);
}

#[test]
fn a_killed_guards_probe_goes_on_and_is_taken_over() {
    let Some(group) = Group::new("a_killed_guards_probe_goes_on_and_is_taken_over") else { return };
    let arguments = ["--cgroup", group.path.to_str().unwrap()];
    let mut guard = group.lab.start(&arguments);
    let mut server = Server::start(&group, SERVER);
    let mut client = group.lab.outside.inside(|| TcpStream::connect((SERVER4, PORT)).unwrap());
    client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let port = client.local_addr().unwrap().port();
    let announce = crate::support::flow_of(Protocol::Tcp, SUSPECT4, port, FlowKind::Known, "peer");
    guard.ask(&announce);
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    exchange(&mut client);
    let guard = group.lab.start(&arguments);
    guard.ask(&announce);
    let truth = until("figures of the same connection", || {
        exchange(&mut client);
        row(&guard, "peer").tcp
    });
    assert_eq!((truth.remote_port, truth.state), (port, TcpState::Established));
    drop(client);
    server.wait_for("closed");
    drop(guard);
    group.lab.detach();
}

/// A UDP datagram to the protected port whose checksum is wrong, in an IPv4 packet whose is right.
fn datagram_with_a_wrong_checksum() -> Vec<u8> {
    let mut frame = segment([10, 77, 0, 1], 0);
    frame.truncate(34);
    frame[16..18].copy_from_slice(&32u16.to_be_bytes());
    frame[23] = 17;
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]) as u32);
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame.extend(4000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(12u16.to_be_bytes());
    frame.extend([0xde, 0xad, 1, 2, 3, 4]);
    frame
}

#[test]
fn drops_of_the_kernels_own_are_counted_by_its_reason() {
    let Some(lab) = Lab::new("drops_of_the_kernels_own_are_counted_by_its_reason") else { return };
    let guard = lab.start(&[]);
    let line = guard.stats().probes["kernel_drops"].clone();
    if line.starts_with("none") {
        eprintln!("not counted here: {line}");
        return;
    }
    assert_eq!(guard.stats().kernel_drops.len(), 0);
    let counted = |reason: &str| guard.stats().kernel_drops.get(reason).copied().unwrap_or(0);
    // Nobody listens: what goes to a port that is not protected is not counted, and the queue keeps its order.
    let sender: UdpSocket = lab.outside.udp((ip(SUSPECT4), 4000));
    for (port, packets) in [(2222, 5), (PORT, 3)] {
        for _ in 0..packets {
            // The port's unreachable comes back as an error of a later send; the datagram is sent the next time.
            until("sending", || sender.send_to(b"anybody?", (SERVER4, port)).ok());
        }
    }
    until("three drops for want of a socket", || (counted("NO_SOCKET") >= 3).then_some(()));
    let wire = Wire::new(&lab);
    for _ in 0..2 {
        wire.send(&datagram_with_a_wrong_checksum());
    }
    until("two drops for a wrong checksum", || (counted("UDP_CSUM") >= 2).then_some(()));
    // An IPv4 header without a checksum.
    wire.send(&segment([10, 77, 0, 1], 0x10));
    until("a drop for a wrong header", || (counted("IP_CSUM") >= 1).then_some(()));
    let drops = guard.stats().kernel_drops;
    assert_eq!((drops["NO_SOCKET"], drops["UDP_CSUM"], drops["IP_CSUM"]), (3, 2, 1), "{drops:?}");
    let maps = guard.client().maps().unwrap();
    let by_port: u64 = maps.kernel_drops_by_port().iter().map(|(_, _, count)| count).sum();
    assert_eq!(by_port, drops.values().sum::<u64>());
    assert!(maps.kernel_drops_by_port().iter().all(|(port, _, _)| *port < 2), "tcp/9000 and udp/9000 have slots of their own");
    assert_eq!(maps.kernel_drops().iter().map(|(_, count)| count).sum::<u64>(), drops.values().sum::<u64>());
}
