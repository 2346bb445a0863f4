//! A guard that does nothing but remember what it was asked: its maps are zeros.

use std::fs::{File, rename};
use std::io::{BufRead, BufReader, IoSlice};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
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
    /// Whom it serves.
    stream: Arc<Mutex<Option<UnixStream>>>,
    maps: Arc<Vec<(&'static str, File)>>,
}

impl FakeGuard {
    pub fn start(folder: &Path) -> FakeGuard {
        let socket = folder.join("guard.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, asked) = channel();
        let memory = |(name, bytes): (&'static str, usize)| {
            let memory = File::from(memfd_create(c"map", MFdFlags::empty()).unwrap());
            memory.set_len(bytes as u64).unwrap();
            (name, memory)
        };
        let maps: Arc<Vec<_>> = Arc::new(guard::reader::mapped_bytes(CPUS).into_iter().map(memory).collect());
        let stream = Arc::new(Mutex::new(None));
        let (of_server, served) = (Arc::clone(&maps), Arc::clone(&stream));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                *served.lock().unwrap() = Some(stream.try_clone().unwrap());
                serve(&stream, &sender, &of_server);
            }
        });
        FakeGuard { socket, asked, stream, maps }
    }

    /// Ends its connection, and takes no other until [`FakeGuard::come_back`].
    pub fn go_away(&self) {
        rename(&self.socket, self.socket.with_extension("away")).unwrap();
        self.stream.lock().unwrap().take().unwrap().shutdown(Shutdown::Both).unwrap();
    }

    /// Listens again.
    pub fn come_back(&self) {
        rename(self.socket.with_extension("away"), &self.socket).unwrap();
    }

    /// Writes a map's words, as the kernel would.
    pub fn write(&self, map: &str, at: usize, words: &[u64]) {
        let (_, memory) = self.maps.iter().find(|(name, _)| *name == map).unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        memory.write_all_at(&bytes, at as u64).unwrap();
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

fn serve(stream: &UnixStream, asked: &Sender<Request>, files: &[(&'static str, File)]) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Request = serde_json::from_str(&line).unwrap();
        let response = answer(&request, files);
        if !matches!(
            request,
            Request::Maps {} | Request::Heartbeat {} | Request::Status {} | Request::Bans { .. } | Request::FlowsClear {}
        ) {
            let _ = asked.send(request);
        }
        let mut bytes = serde_json::to_vec(&response).unwrap();
        bytes.push(b'\n');
        let raw: Vec<i32> = files.iter().map(|(_, file)| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let beside = if matches!(response, Response::Maps { .. }) { &rights[..] } else { &[] };
        if sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], beside, MsgFlags::empty(), None).is_err() {
            return;
        }
    }
}

fn answer(request: &Request, files: &[(&'static str, File)]) -> Response {
    match request {
        Request::Maps {} => {
            let bytes = |file: &File| file.metadata().unwrap().len();
            let map = |(name, file): &(&'static str, File)| MapInfo { name: (*name).into(), mappable: true, bytes: bytes(file) };
            let abi_hash = format!("{:016x}", kernel_shared::abi::abi_hash(CPUS));
            Response::Maps { maps: files.iter().map(map).collect(), cpus: CPUS, abi_hash }
        }
        Request::FlowAdd { .. } => Response::Flow { row: Some(ROW), generation: GENERATION },
        Request::Status {} | Request::Bans { .. } => Response::Error { code: ErrorCode::Kernel, message: "a fake".into() },
        _ => Response::Done {},
    }
}
