//! A guard that does nothing but remember what it was asked: its maps are zeros.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use guard::protocol::{ErrorCode, MapInfo, Request, Response};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const PATIENCE: Duration = Duration::from_secs(60);
const CPUS: u32 = 1;
/// The row that it gives everybody.
pub const ROW: u32 = 7;
/// Its generation.
pub const GENERATION: u32 = 3;

/// See the module.
pub struct FakeGuard {
    /// Where it listens.
    pub socket: PathBuf,
    asked: Receiver<Request>,
}

impl FakeGuard {
    pub fn start(folder: &Path) -> FakeGuard {
        let socket = folder.join("guard.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.unwrap(), &sender);
            }
        });
        FakeGuard { socket, asked }
    }

    /// The next request that changes something.
    pub fn next(&self) -> Request {
        self.asked.recv_timeout(PATIENCE).expect("a request in time")
    }

    /// The next request that `pick` takes; what comes before is passed over.
    pub fn until<T>(&self, mut pick: impl FnMut(Request) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }
}

fn serve(stream: &UnixStream, asked: &Sender<Request>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Request = serde_json::from_str(&line).unwrap();
        let (response, descriptors) = answer(&request);
        if !matches!(
            request,
            Request::Maps {} | Request::Heartbeat {} | Request::Status {} | Request::Bans {} | Request::FlowsClear {}
        ) {
            let _ = asked.send(request);
        }
        let mut bytes = serde_json::to_vec(&response).unwrap();
        bytes.push(b'\n');
        let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let beside: &[ControlMessage] = if raw.is_empty() { &[] } else { &[ControlMessage::ScmRights(&raw)] };
        if sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], beside, MsgFlags::empty(), None).is_err() {
            return;
        }
    }
}

fn answer(request: &Request) -> (Response, Vec<OwnedFd>) {
    let response = match request {
        Request::Maps {} => {
            let (mut maps, mut descriptors) = (Vec::new(), Vec::new());
            for (name, bytes) in guard::reader::mapped_bytes(CPUS) {
                let memory = memfd_create(c"map", MFdFlags::empty()).unwrap();
                nix::unistd::ftruncate(&memory, bytes as i64).unwrap();
                maps.push(MapInfo { name: name.into(), mappable: true, bytes: bytes as u64 });
                descriptors.push(memory);
            }
            let abi_hash = format!("{:016x}", kernel_shared::abi::abi_hash(CPUS));
            return (Response::Maps { maps, cpus: CPUS, abi_hash }, descriptors);
        }
        Request::FlowAdd { .. } => Response::Flow { row: Some(ROW), generation: GENERATION },
        Request::Status {} | Request::Bans {} => Response::Error { code: ErrorCode::Kernel, message: "a fake".into() },
        _ => Response::Done {},
    };
    (response, Vec::new())
}
