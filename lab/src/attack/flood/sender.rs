//! Frames onto a wire at a steady rate: a packet socket, many frames a system call, on one CPU.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::frames::Frames;
use crate::fabric::INTERFACE;
use crate::{namespace, process};

/// Most frames in one system call.
const BURST_MAX: usize = 512;
/// How often frames are due.
const TICK: Duration = Duration::from_millis(2);

/// What was sent, and what it cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames that the kernel took.
    pub frames: u64,
    /// QUIC connections that frames opened.
    pub opened: u64,
    /// For how long.
    pub seconds: f64,
    /// CPU of the sending thread, the stack's work on its behalf included, in seconds.
    pub cpu_seconds: f64,
}

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Sent>>,
}

impl Flood {
    /// Starts one from inside a namespace, on the machine's last CPU: at this many frames a second, for at most so long.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(netns: &Path, frames: Frames, rate: u32, at_most: Duration) -> Result<Flood> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, netns): (_, PathBuf) = (Arc::clone(&stop), netns.to_path_buf());
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            namespace::within(&netns, || {
                let wire = Wire::open()?;
                pin_to_last_cpu()?;
                send(&wire, frames, rate, at_most, &stopped)
            })
        });
        Ok(Flood { stop, thread: thread.context("start the flood")? })
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it could not be sent.
    pub fn stop(self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    }
}

fn pin_to_last_cpu() -> Result<()> {
    let cpus = std::thread::available_parallelism().context("count the CPUs")?.get();
    let mut set = CpuSet::new();
    set.set(cpus - 1).context("choose a CPU")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("stay on a CPU")
}

/// What is not sent in time is left out: a slow machine gets a smaller flood, not a later one.
fn send(wire: &Wire, mut frames: Frames, rate: u32, at_most: Duration, stop: &AtomicBool) -> Result<Sent> {
    let mut burst: Vec<Vec<u8>> = Vec::new();
    burst.resize_with(BURST_MAX, Vec::new);
    let (start, cpu) = (Instant::now(), process::thread_cpu_us());
    let (mut sent, mut asked) = (0u64, 0u64);
    while !stop.load(Ordering::Relaxed) && start.elapsed() < at_most {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let now = usize::try_from(due - asked).unwrap_or(BURST_MAX).min(BURST_MAX);
        asked = due;
        for frame in &mut burst[..now] {
            if !frames.next(frame) {
                bail!("nobody to flood");
            }
        }
        sent += wire.send(&burst[..now])? as u64;
        std::thread::sleep(TICK);
    }
    let cpu_seconds = (process::thread_cpu_us() - cpu) as f64 / 1e6;
    Ok(Sent { frames: sent, opened: frames.opened(), seconds: start.elapsed().as_secs_f64(), cpu_seconds })
}

/// A packet socket on the guest's interface.
#[derive(Debug)]
struct Wire(OwnedFd);

impl Wire {
    fn open() -> Result<Wire> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).context("open a packet socket");
        }
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(nix::net::if_::if_nametoindex(INTERFACE).context("find the own interface")?)?;
        // SAFETY: the address is valid for its length.
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t) };
        if bound < 0 {
            return Err(std::io::Error::last_os_error()).context("bind a packet socket");
        }
        Ok(Wire(fd))
    }

    /// Sends frames; how many the kernel took. A full queue is no error: the rest is lost, as on any wire.
    fn send(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut parts: Vec<libc::iovec> =
            frames.iter().map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() }).collect();
        let header = |part: &mut libc::iovec| {
            // SAFETY: all zeros is a valid header.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header
        };
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().map(header).collect();
        if headers.is_empty() {
            return Ok(0);
        }
        // SAFETY: headers, parts and frames live until the call returns, and the kernel only reads the frames.
        let taken = unsafe { libc::sendmmsg(self.0.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0) };
        match usize::try_from(taken) {
            Ok(taken) => Ok(taken),
            Err(_) => match std::io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => Ok(0),
                error => Err(error).context("send frames"),
            },
        }
    }
}
