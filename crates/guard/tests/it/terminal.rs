//! `ebpf-guard top` in a terminal: a pseudo-terminal, and a screen that understands what is written to it.

use crate::support::{INTERFACE, Lab, PATIENCE, Running, SUSPECT4, until};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{self, Winsize},
    sys::{signal::Signal, termios},
};
use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read, Write},
    num::NonZeroU16,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Instant,
};

/// Lines and columns.
pub type Size = (u16, u16);
fn grid((rows, columns): Size) -> (NonZeroU16, NonZeroU16) {
    (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap())
}

/// What a program may change of a terminal.
type Settings = (termios::LocalFlags, termios::InputFlags, termios::OutputFlags);

const WIDE: Size = (40, 120);
const SMALL: Size = (24, 80);

/// Both ends of a new pseudo-terminal. No program that another test starts at this moment inherits one: the reader would wait for its end, too.
pub fn pair(size: Size) -> (File, File) {
    let ours = pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let path = pty::ptsname_r(&ours).unwrap();
    let line = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path).unwrap();
    let ours = File::from(std::os::fd::OwnedFd::from(ours));
    set_size(&ours, size);
    (ours, line)
}

fn set_size(ours: &File, size: Size) {
    let window = window(size);
    // SAFETY: the argument is a window size, as this call wants, and outlives it.
    let done = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSWINSZ, &raw const window) };
    assert_eq!(done, 0);
}

const fn window((rows, columns): Size) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn settings(line: &File) -> Settings {
    let settings = termios::tcgetattr(line.as_fd()).unwrap();
    (settings.local_flags, settings.input_flags, settings.output_flags)
}

/// A terminal with `top` in it.
struct Terminal {
    child: Child,
    /// Our end: keys in.
    keys: File,
    /// The other end, whose settings a program may change and has to put back.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    /// Closed, it ends the reader.
    stop: Option<PipeWriter>,
    before: Settings,
}

/// Shows what is written, until the last program has closed the other end, or `stop` is closed.
fn show(mut output: File, stop: PipeReader, screen: &Mutex<vt100::Parser>) {
    let mut buffer = [0; 4096];
    loop {
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::empty())];
        poll(&mut ready, PollTimeout::NONE).unwrap();
        if ready[1].any().unwrap() {
            return;
        }
        match output.read(&mut buffer) {
            Ok(length @ 1..) => screen.lock().unwrap().process(&buffer[..length]),
            _ => return,
        }
    }
}

/// Whether the terminal is its program's controlling one: only then its end is told by a signal, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Controlling,
    Other,
}

impl Terminal {
    fn start(lab: &Lab, size: Size) -> Terminal {
        Terminal::start_as(lab, size, Role::Controlling)
    }

    fn start_as(lab: &Lab, size: Size, role: Role) -> Terminal {
        let (keys, line) = pair(size);
        let before = settings(&line);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
        command.args(["top", "--socket"]).arg(lab.socket()).env("TERM", "xterm-256color").env_remove("COLUMNS").env_remove("LINES");
        let end = || line.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        let descriptor = line.as_raw_fd();
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let failed = libc::setsid() < 0 || (role == Role::Controlling && libc::ioctl(descriptor, libc::TIOCSCTTY, 0) < 0);
                if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn().unwrap();
        let (rows, columns) = grid(size);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (output, shown) = (keys.try_clone().unwrap(), screen.clone());
        let (stopped, stop) = std::io::pipe().unwrap();
        let reader = std::thread::spawn(move || show(output, stopped, &shown));
        Terminal { child, keys, line, screen, reader: Some(reader), stop: Some(stop), before }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    fn resize(&self, size: Size) {
        let (rows, columns) = grid(size);
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        set_size(&self.keys, size);
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen fits.
    fn shows(&self, what: &str, mut fits: impl FnMut(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let text = self.text();
            if fits(&text) {
                return text;
            }
            assert!(begin.elapsed() < PATIENCE, "{what} is not shown:\n{text}");
            std::thread::yield_now();
        }
    }

    fn on_its_own_screen(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    /// Waits for the program's end: it must have succeeded, and have left the terminal as it was.
    fn ends(mut self) {
        let status = until("its end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        assert_eq!(settings(&self.line), self.before);
        // Without this end of ours open, the reader reads to the end of what was written.
        self.line = File::open("/dev/null").unwrap();
        self.reader.take().unwrap().join().unwrap();
        assert!(!self.on_its_own_screen(), "the shell's screen is back");
        assert!(!self.screen.lock().unwrap().screen().hide_cursor(), "so is the cursor");
    }

    /// Closes our end, as a broken connection does: the program must end, with nobody to tell.
    fn hang_up(mut self) {
        self.line = File::open("/dev/null").unwrap();
        self.keys = File::open("/dev/null").unwrap();
        drop(self.stop.take());
        self.reader.take().unwrap().join().unwrap();
        until("its end", || self.child.try_wait().unwrap());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A guard that has dropped something, and somebody's terminal.
fn scene(test: &str, size: Size) -> Option<(Lab, Running, Terminal)> {
    let lab = Lab::new(test)?;
    let guard = lab.start(&["--mode", "enforce", "--event-shift", "0"]);
    guard.ban(SUSPECT4, 600_000, types::Offence::Replay);
    assert_eq!(lab.line4().send(5), 0);
    let terminal = Terminal::start(&lab, size);
    terminal.shows("the head", |text| text.contains(INTERFACE) && text.contains("ENFORCE"));
    assert!(terminal.on_its_own_screen());
    assert_ne!(settings(&terminal.line), terminal.before, "keys come one by one");
    Some((lab, guard, terminal))
}

#[test]
fn keys_sizes_and_the_end() {
    let Some((lab, _guard, mut terminal)) = scene("keys_sizes_and_the_end", WIDE) else { return };
    terminal.shows("all panes", |text| {
        ["Verdicts", "Sources", "Peers", "Bans", "banned_replay"].iter().all(|part| text.contains(part))
    });
    // What is dropped while somebody looks appears as an event, and in the count.
    let mut line = lab.line4();
    terminal.shows("a source", |text| {
        line.send(1);
        text.lines().any(|line| line.contains(SUSPECT4) && line.contains('%'))
    });
    terminal.press(b"?");
    terminal.shows("help", |text| text.contains("these lines"));
    terminal.press(b"\x1b");
    terminal.shows("no help", |text| !text.contains("these lines"));
    terminal.resize(SMALL);
    // The last line is the program's word that it has seen the new size.
    let small = terminal.shows("one pane", |text| {
        text.lines().nth(SMALL.0 as usize - 1).is_some_and(|last| last.contains("1 Verdicts")) && !text.contains("─ Bans")
    });
    assert!(
        small.lines().count() <= SMALL.0 as usize && small.lines().all(|line| line.chars().count() <= SMALL.1 as usize),
        "{small}"
    );
    let banned = |text: &str| text.lines().any(|line| line.contains(SUSPECT4) && line.contains("replay") && !line.contains('%'));
    terminal.press(b"4");
    terminal.shows("bans", banned);
    // Backwards, by the key that sends more than one byte.
    terminal.press(b"\x1b[Z");
    terminal.shows("peers", |text| text.contains("p99") && !banned(text));
    terminal.resize(WIDE);
    terminal.shows("all panes again", |text| text.contains("p99") && text.contains("Verdicts") && banned(text));
    terminal.press(b"q");
    terminal.ends();
}

#[test]
fn control_c_and_signals_give_the_terminal_back() {
    let Some((lab, _guard, mut terminal)) = scene("control_c_and_signals_give_the_terminal_back", SMALL) else { return };
    terminal.press(b"\x03");
    terminal.ends();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let terminal = Terminal::start(&lab, SMALL);
        terminal.shows("the head", |text| text.contains("ENFORCE"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(terminal.child.id() as i32), signal).unwrap();
        terminal.ends();
    }
}

#[test]
fn a_terminal_that_hangs_up_ends_it() {
    let Some((lab, _guard, terminal)) = scene("a_terminal_that_hangs_up_ends_it", SMALL) else { return };
    terminal.hang_up();
    let terminal = Terminal::start_as(&lab, SMALL, Role::Other);
    terminal.shows("the head", |text| text.contains("ENFORCE"));
    terminal.hang_up();
}

#[test]
fn a_guard_that_goes_and_comes_back() {
    let Some((lab, mut guard, mut terminal)) = scene("a_guard_that_goes_and_comes_back", SMALL) else { return };
    guard.signal(Signal::SIGKILL);
    terminal.shows("that nobody answers", |text| text.contains("no guard answers"));
    let _guard = lab.start(&["--mode", "shadow"]);
    terminal.shows("the new one", |text| text.contains("SHADOW") && !text.contains("no guard answers"));
    terminal.press(b"q");
    terminal.ends();
    lab.detach();
}
