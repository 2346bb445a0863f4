//! The Unix socket: one thread a connection, few connections, every caller known by his uid.

use super::{
    access::{Access, Caller},
    events::Hub,
    guard::{Guard, listing},
    incoming::{Incoming, Text, hung_up},
    seats::Seats,
};
use crate::protocol::{ErrorCode, LINE_BYTES_MAX, Request, Response};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::{
    fs,
    io::{self, BufRead, BufReader, IoSlice, Read, Write},
    os::fd::{AsRawFd, RawFd},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

/// A caller that takes no answer for so long is hung up on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A caller who may only read and asks nothing for so long is hung up on.
const GUEST_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Where no events come, a subscriber's hanging up is noticed after so long.
const HANG_UP_SEEN_AFTER: Duration = Duration::from_secs(1);

/// What `reload` does.
pub type Reload = dyn Fn(&Shared) -> Response + Send + Sync;

/// What the connections share.
pub struct Shared {
    /// The guard.
    pub guard: Mutex<Guard>,
    /// Event subscribers.
    pub hub: Arc<Hub>,
    /// Who may write.
    pub access: RwLock<Access>,
    /// Reads the configuration again; the answer to `reload`.
    pub reload: Box<Reload>,
    /// Set when a caller asks for the end.
    pub stop: AtomicBool,
    /// Held while a list is read: one at a time, so that their memory has a limit.
    pub loading: Mutex<()>,
    /// Who has a connection.
    pub seats: Arc<Seats>,
}

/// Opens the socket. A stale one is replaced; one that somebody answers on is an error. Anybody may connect: what a caller may do
/// depends on his uid.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another guard answers on this socket"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Accepts for ever; the process ends the thread.
pub fn serve(listener: UnixListener, shared: Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(caller) = Caller::of(&stream) else { continue };
        let guest = !may_write(&shared, &caller);
        let Some(seat) = shared.seats.take(guest) else { continue };
        let of_thread = shared.clone();
        let conversation = move || {
            let _seat = seat;
            let silence = guest.then_some(GUEST_SILENCE_MAX);
            if let Err(error) = stream.set_read_timeout(silence).and_then(|()| converse(&stream, &caller, &of_thread)) {
                tracing::debug!(%error, "a client hung up");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("guard-client".into()).spawn(conversation) {
            tracing::warn!(%error, "a client can't be served");
        }
    }
}

fn converse(stream: &UnixStream, caller: &Caller, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(Incoming::new(stream));
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let request = match serde_json::from_slice::<Request>(&line) {
            Err(error) => {
                send(stream, &refusal(ErrorCode::BadRequest, error.to_string()), &[])?;
                if line.last() != Some(&b'\n') {
                    return Ok(()); // too long: there is no telling where the next request starts
                }
                continue;
            }
            Ok(request) if request.is_write() && !may_write(shared, caller) => {
                send(stream, &refusal(ErrorCode::Forbidden, format!("uid {} may not change anything here", caller.uid)), &[])?;
                continue;
            }
            Ok(request) => request,
        };
        if request == (Request::Events {}) {
            return stream_events(stream, shared);
        }
        if request == (Request::Reload {}) {
            send(stream, &(shared.reload)(shared), &[])?;
            continue;
        }
        if let Request::ListLoad { name, ttl_ms, skip_bad } = &request {
            let text = reader.get_mut().take_descriptor().map(|descriptor| Text::new(descriptor, stream));
            send(stream, &load_list(shared, name, *ttl_ms, *skip_bad, text), &[])?;
            continue;
        }
        let (response, descriptors) = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
        let refused = matches!(response, Response::Error { .. });
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        send(stream, &response, &raw)?;
        if !refused && matches!(request, Request::Shutdown {} | Request::Detach {}) {
            shared.stop.store(true, SeqCst);
        }
    }
}

fn may_write(shared: &Shared, caller: &Caller) -> bool {
    shared.access.read().unwrap_or_else(PoisonError::into_inner).allows(caller)
}

/// Reads a list without the guard's lock, and puts it in force under it.
fn load_list(shared: &Shared, name: &str, ttl_ms: u64, skip_bad: bool, text: Option<Text<'_>>) -> Response {
    let Ok(_only) = shared.loading.try_lock() else {
        return refusal(ErrorCode::Limit, "another list is being read; try again when it is in force".to_string());
    };
    let floor = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).floor().to_vec();
    match listing::read(name, ttl_ms, skip_bad, text, &floor) {
        Ok(prepared) => shared.guard.lock().unwrap_or_else(PoisonError::into_inner).install(prepared),
        Err(response) => response,
    }
}

fn refusal(code: ErrorCode, message: String) -> Response {
    Response::Error { code, message }
}

/// Sends an answer; descriptors go with its first byte.
fn send(mut stream: &UnixStream, response: &Response, descriptors: &[RawFd]) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    let mut sent = 0;
    if !descriptors.is_empty() {
        let rights = [ControlMessage::ScmRights(descriptors)];
        sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&line)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    }
    stream.write_all(&line[sent..])
}

/// Relays events until the client hangs up.
fn stream_events(mut stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let Some(mailbox) = shared.hub.subscribe() else {
        return send(stream, &refusal(ErrorCode::Full, "too many subscribers".to_string()), &[]);
    };
    send(stream, &Response::Done {}, &[])?;
    loop {
        match mailbox.next(HANG_UP_SEEN_AFTER) {
            Some(line) => stream.write_all(line.as_bytes())?,
            None if hung_up(stream) => return Ok(()),
            None => {}
        }
    }
}
