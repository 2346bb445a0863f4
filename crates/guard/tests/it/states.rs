//! A connection's state in its peer's row, from its beginning to each of its ends.

use crate::{
    egress::Group,
    probes::{Server, row},
    support::{Lab, PATIENCE, PORT, Running, SERVER4, SUSPECT4, flow_of, until},
};
use guard::{FlowKind, Protocol, TcpState, TcpTruth};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
};

/// A server in the guarded control group that does what it is told, and says so.
const SERVER: &str = r"
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('listening', flush=True)
for word in map(str.strip, sys.stdin):
    if word == 'accept':
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    elif word == 'send':
        peer.sendall(b'!')
    elif word == 'shutdown':
        peer.shutdown(socket.SHUT_WR)
    elif word == 'close':
        peer.close()
    print(word, flush=True)
";

/// In the order in which it ends: a group goes when nobody is in it.
struct Scene {
    client: TcpStream,
    server: Server,
    guard: Running,
    group: Group,
}

impl Scene {
    /// A connection whose peer has a row, and whose first figures are there.
    fn new(test: &str) -> Option<Scene> {
        let group = Group::new(test)?;
        let guard = group.lab.start(&["--mode", "enforce", "--cgroup", group.path.to_str().unwrap()]);
        let mut server = Server::start(&group, SERVER);
        let client = connect(&group.lab);
        server.obey("accept");
        announce(&guard, &client);
        let mut scene = Scene { client, server, guard, group };
        scene.hear();
        scene.until(TcpState::Established);
        Some(scene)
    }

    /// A byte from the server, which the client acknowledges.
    fn hear(&mut self) {
        self.server.obey("send");
        self.client.read_exact(&mut [0]).unwrap();
    }

    fn until(&self, state: TcpState) -> TcpTruth {
        until(state.as_str(), || row(&self.guard, "peer").tcp.filter(|truth| truth.state == state))
    }

    fn wire(&self, is: &str) {
        self.group.lab.outside.run("ip", &["link", "set", "out0", is]);
    }

    /// The state that `peers` prints, and the one in its JSON.
    fn printed(&self) -> [String; 2] {
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
            let output = command.arg("peers").arg("--socket").arg(self.group.lab.socket()).args(arguments).output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        let table = run(&[]);
        let line = table.lines().find(|line| line.contains(" peer ")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
        let state = json[0]["tcp"]["state"].as_str().unwrap();
        [line.split_whitespace().find(|word| *word == state).unwrap_or(line).to_string(), state.to_string()]
    }
}

fn connect(lab: &Lab) -> TcpStream {
    let client = lab.outside.inside(|| TcpStream::connect((SERVER4, PORT)).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn announce(guard: &Running, client: &TcpStream) {
    let port = client.local_addr().unwrap().port();
    guard.ask(&flow_of(Protocol::Tcp, SUSPECT4, port, FlowKind::Known, "peer"));
}

#[test]
fn the_peer_closes_first() {
    let Some(mut scene) = Scene::new("the_peer_closes_first") else { return };
    assert_eq!(scene.printed(), ["established"; 2]);
    scene.client.shutdown(Shutdown::Write).unwrap();
    let heard = scene.until(TcpState::CloseWait).bytes_acked;
    // The server may speak on: the state stays, the figures go on.
    scene.hear();
    let later = until("its acknowledgement", || row(&scene.guard, "peer").tcp.filter(|truth| truth.bytes_acked > heard));
    assert_eq!(later.state, TcpState::CloseWait);
    assert_eq!(scene.printed(), ["close_wait"; 2]);
    scene.wire("down");
    scene.server.obey("close");
    scene.until(TcpState::LastAck);
    scene.wire("up");
    scene.until(TcpState::Closed);
    assert_eq!(scene.printed(), ["closed"; 2]);
}

#[test]
fn the_server_closes_first() {
    let Some(mut scene) = Scene::new("the_server_closes_first") else { return };
    scene.wire("down");
    scene.server.obey("shutdown");
    scene.until(TcpState::FinWait1);
    scene.wire("up");
    scene.until(TcpState::FinWait2);
    assert_eq!(scene.printed(), ["fin_wait2"; 2]);
    assert_eq!(scene.client.read(&mut [0]).unwrap(), 0);
    // The client's end: what waits for stray segments then is no connection any more.
    scene.client.shutdown(Shutdown::Write).unwrap();
    scene.until(TcpState::Closed);
}

#[test]
fn a_reset_and_a_second_connection() {
    let Some(mut scene) = Scene::new("a_reset_and_a_second_connection") else { return };
    let second = connect(&scene.group.lab);
    announce(&scene.guard, &second);
    let port = second.local_addr().unwrap().port();
    // The row is the peer's: it tells of the connection that was heard of last.
    scene.server.obey("accept");
    let first = std::mem::replace(&mut scene.client, second);
    scene.hear();
    until("the second connection", || row(&scene.guard, "peer").tcp.filter(|truth| truth.remote_port == port));
    let updated = scene.until(TcpState::Established).updated_ns;
    // The first one's end is not the peer's. Whatever the kernel says after it, it says of the second.
    nix::sys::socket::setsockopt(&first, nix::sys::socket::sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(first);
    scene.hear();
    let truth = until("a word after that", || row(&scene.guard, "peer").tcp.filter(|truth| truth.updated_ns > updated));
    assert_eq!((truth.state, truth.remote_port), (TcpState::Established, port));
    // The second ends at once, too, by a reset.
    scene.client.write_all(b"unread").unwrap();
    nix::sys::socket::setsockopt(&scene.client, nix::sys::socket::sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })
        .unwrap();
    scene.client = connect(&scene.group.lab);
    assert_eq!(scene.until(TcpState::Closed).remote_port, port);
}
