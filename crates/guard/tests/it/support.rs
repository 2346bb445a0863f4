//! A laboratory per test: two network namespaces, a veth pair between them, a guard at one end.
//!
//! Namespaces have no names (they live as long as a descriptor does) and mounts happen in a mount namespace of the test's
//! thread: a test that dies leaves nothing behind.

use guard::{Client, Protocol, Request, Response, protocol::Stats};
use std::{
    fs::File,
    io::Read,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The protected port.
pub const PORT: u16 = 9000;
/// How long an event may take before the test fails. Nothing is measured with it.
pub const PATIENCE: Duration = Duration::from_secs(20);

static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// Whether this machine lets us load BPF programs and make namespaces. If not, says so, with a count; in CI as root that is a failure.
pub fn privileged(test: &str) -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        "not root".to_string()
    } else if let Err(error) = std::thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)).join().unwrap() {
        format!("no network namespaces: {error}")
    } else {
        return true;
    };
    count_skip(test, &reason);
    assert!(!(in_ci() && nix::unistd::geteuid().is_root()), "{test} was skipped in CI: {reason}");
    false
}

/// Something that this machine lacks and setup installs: said, with a count; in CI a failure.
pub fn skip(test: &str, reason: &str) {
    count_skip(test, reason);
    assert!(!in_ci(), "{test} was skipped in CI: {reason}");
}

fn count_skip(test: &str, reason: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::SeqCst) + 1;
    eprintln!("skipped ({count}): {test}: {reason}");
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Gives this thread a mount namespace of its own, nothing shared with the host.
pub fn private_mounts() {
    use nix::{mount::MsFlags, sched::CloneFlags};
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// A network namespace without a name.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Namespace {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Namespace(made.join().unwrap())
    }

    /// A path that other processes can open while this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a program inside; its output. Fails if the program does.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program).args(arguments);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a closure on a thread inside: sockets that it makes stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(self.0.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    pub fn udp(&self, address: impl Into<SocketAddr>) -> UdpSocket {
        let address = address.into();
        let socket = self.inside(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// Two namespaces and what connects them: `outside` sends, `inside` is guarded.
pub struct Lab {
    pub outside: Namespace,
    pub inside: Namespace,
    pub folder: tempfile::TempDir,
}

/// The guarded end's interface.
pub const INTERFACE: &str = "guarded0";
pub const SERVER4: &str = "10.77.0.2";
pub const SERVER6: &str = "fd77::2";
/// The sender that gets into trouble.
pub const SUSPECT4: &str = "10.77.0.1";
pub const SUSPECT6: &str = "fd77:0:1::1";
/// The sender that never does: its packets mark how far the queue has come.
pub const MARKER4: &str = "10.77.0.9";
pub const MARKER6: &str = "fd77::9";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Lab {
    /// A laboratory, or `None` (said aloud) where it can't be built.
    pub fn new(test: &str) -> Option<Lab> {
        if !privileged(test) {
            return None;
        }
        private_mounts();
        let (outside, inside) = (Namespace::new(), Namespace::new());
        outside.run("ip", &["link", "add", "out0", "type", "veth", "peer", "name", INTERFACE, "netns", &inside.path()]);
        for (namespace, device, addresses) in [
            (&outside, "out0", &["10.77.0.1/24", "10.77.0.9/24", "fd77:0:1::1/32", "fd77::9/32"][..]),
            (&inside, INTERFACE, &["10.77.0.2/24", "fd77::2/32"]),
        ] {
            for address in addresses {
                let family = if address.contains(':') { &["nodad"][..] } else { &[] };
                namespace.run("ip", &[&["addr", "add", address, "dev", device], family].concat());
            }
            namespace.run("ip", &["link", "set", "lo", "up"]);
            namespace.run("ip", &["link", "set", device, "up"]);
        }
        Some(Lab { outside, inside, folder: tempfile::tempdir().unwrap() })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("guard.sock")
    }

    pub fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    /// The binary, with the arguments that every `run` has here.
    pub fn command(&self, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        command.env("NO_COLOR", "1"); // logs are read by tests
        command.args(["run", "--netns", &self.inside.path(), "--protect", "tcp/9000,udp/9000"]);
        command.arg("--socket").arg(self.socket()).arg("--bpffs").arg(self.bpffs());
        command.arg("--state").arg(self.folder.path().join("state"));
        for (option, value) in [("--iface", INTERFACE), ("--instance", "lab")] {
            if !extra.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(extra);
        command
    }

    /// Starts a guard and waits until it says that it is ready.
    pub fn start(&self, extra: &[&str]) -> Running {
        self.launch(self.command(extra))
    }

    /// Starts this command, a `run` whose socket is the lab's, and waits until it says that it is ready.
    pub fn launch(&self, mut command: Command) -> Running {
        let (mut reader, writer) = std::io::pipe().unwrap();
        ready_to(&mut command, &writer);
        let log = self.folder.path().join("guard.log");
        command.stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        drop(writer);
        let mut word = String::new();
        reader.read_to_string(&mut word).unwrap();
        if word != "ready\n" {
            let _ = child.wait();
            panic!("the guard did not start: {}", std::fs::read_to_string(log).unwrap());
        }
        Running { child, socket: self.socket() }
    }

    /// Starts a guard that must fail; what it says.
    pub fn start_fails(&self, extra: &[&str]) -> String {
        let output = self.command(extra).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs `ebpf-guard detach` for the instance `lab`.
    pub fn detach(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        command.args(["detach", "--instance", "lab"]).arg("--socket").arg(self.socket()).arg("--bpffs").arg(self.bpffs());
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
    }

    /// The id of the XDP program on the guarded interface, as `ip -d link` shows it.
    pub fn program_id(&self) -> Option<u32> {
        let text = self.inside.run("ip", &["-d", "link", "show", INTERFACE]);
        let (_, rest) = text.split_once("prog/xdp id ")?;
        Some(rest.split_whitespace().next()?.parse().unwrap())
    }

    /// A line of packets from suspect and marker to the protected port.
    pub fn line(&self, suspect: &str, marker: &str, server: &str) -> Line {
        let server_address = SocketAddr::new(ip(server), PORT);
        Line {
            server: self.inside.udp(server_address),
            suspect: self.outside.udp((ip(suspect), 4000)),
            marker: self.outside.udp((ip(marker), 4001)),
            to: server_address,
            sequence: 0,
        }
    }

    pub fn line4(&self) -> Line {
        self.line(SUSPECT4, MARKER4, SERVER4)
    }
}

/// UDP from a suspect and from a marker to the guarded server. The queue of a veth keeps its order, so once the marker has
/// arrived, everything sent before it has been judged: no waiting, no guessing.
pub struct Line {
    server: UdpSocket,
    suspect: UdpSocket,
    marker: UdpSocket,
    to: SocketAddr,
    sequence: u32,
}

impl Line {
    /// Sends `count` packets from the suspect; how many of them arrived.
    pub fn send(&mut self, count: u32) -> u32 {
        for _ in 0..count {
            self.suspect.send_to(b"suspect", self.to).unwrap();
        }
        self.sequence += 1;
        let mark = format!("marker {}", self.sequence);
        self.marker.send_to(mark.as_bytes(), self.to).unwrap();
        let mut arrived = 0;
        let mut buffer = [0; 64];
        loop {
            let (length, _) = self.server.recv_from(&mut buffer).expect("the marker must arrive");
            if &buffer[..length] == mark.as_bytes() {
                return arrived;
            }
            arrived += 1;
        }
    }
}

/// Has a `run` say to this pipe that it is ready.
pub fn ready_to(command: &mut Command, pipe: &std::io::PipeWriter) {
    command.args(["--ready-fd", "3"]);
    let descriptor = pipe.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || if libc::dup2(descriptor, 3) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
}

/// A running guard.
pub struct Running {
    pub child: Child,
    socket: PathBuf,
}

impl Running {
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    pub fn ask(&self, request: &Request) -> Response {
        self.client().ask(request).unwrap()
    }

    /// What the guard says when it refuses.
    pub fn refusal(&self, request: &Request) -> (guard::ErrorCode, String) {
        match self.client().ask(request) {
            Err(guard::ClientError::Refused { code, message }) => (code, message),
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn stats(&self) -> Stats {
        self.client().stats(true).unwrap()
    }

    pub fn ban(&self, address: &str, ttl_ms: u64, offence: types::Offence) -> Response {
        self.ask(&ban(address, ttl_ms, offence))
    }

    pub fn signal(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn ban(address: &str, ttl_ms: u64, offence: types::Offence) -> Request {
    Request::Ban { address: address.parse().unwrap(), ttl_ms, offence, note: "test".into(), escalate: false }
}

pub fn flow(address: &str, port: u16, class: guard::FlowKind, label: &str) -> Request {
    flow_of(Protocol::Udp, address, port, class, label)
}

pub fn flow_of(protocol: Protocol, address: &str, port: u16, class: guard::FlowKind, label: &str) -> Request {
    Request::FlowAdd { protocol, address: ip(address), port, class, label: label.into(), stake_ppm: None }
}

/// Tries until it happens; fails when patience ends.
pub fn until<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, attempt)
}

/// The same with another patience.
pub fn within<T>(patience: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < patience, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Directories of pins, as names.
pub fn pins(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default();
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // The kernel itself keeps two files of its own in every bpf file system.
    names.filter(|name| !name.ends_with(".debug")).collect()
}

/// Frames put on the outside end's wire as they are, whatever source they name.
pub struct Wire {
    socket: std::os::fd::OwnedFd,
    interface: libc::sockaddr_ll,
}

impl Wire {
    pub fn new(lab: &Lab) -> Wire {
        use std::os::fd::FromRawFd;
        lab.outside.inside(|| {
            // SAFETY: plain system calls; the descriptor is new and owned by nobody else.
            let socket = unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
                assert!(fd >= 0, "{}", std::io::Error::last_os_error());
                std::os::fd::OwnedFd::from_raw_fd(fd)
            };
            // SAFETY: all zeros is a valid address.
            let mut interface: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            interface.sll_family = libc::AF_PACKET as u16;
            interface.sll_ifindex = nix::net::if_::if_nametoindex("out0").unwrap() as i32;
            Wire { socket, interface }
        })
    }

    pub fn send(&self, frame: &[u8]) {
        self.try_send(frame).unwrap();
    }

    /// Fails where the device's queue is full.
    pub fn try_send(&self, frame: &[u8]) -> std::io::Result<()> {
        let address = (&raw const self.interface).cast();
        // SAFETY: frame and address are valid for their lengths.
        let sent = unsafe {
            let length = size_of::<libc::sockaddr_ll>() as u32;
            libc::sendto(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, address, length)
        };
        if sent == frame.len() as isize { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// A TCP segment to the protected port from this address, with these flags. It is sent to everybody's hardware address, so no stack answers.
pub fn segment(source: [u8; 4], flags: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source);
    frame.extend([10, 77, 0, 2]);
    frame.extend(4000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
