//! The socket's client: blocking, one request at a time. In async code run it on a thread of its own.

use crate::{
    Maps, ReaderError,
    protocol::{EventInfo, LINE_BYTES_MAX, ListInfo, MapInfo, Request, Response},
};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Write},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Descriptors accepted with one answer.
const DESCRIPTORS_MAX: usize = 16;
/// How long an answer may take unless the caller says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What can go wrong on the client's side.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No guard listens there.
    #[error("no guard answers at {path}")]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the answer took too long.
    #[error("connection to the guard broke")]
    Io(#[from] io::Error),
    /// The answer is no answer.
    #[error("the guard's answer can't be read")]
    Format(#[from] serde_json::Error),
    /// The line is longer than the protocol allows.
    #[error("the guard's answer is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The answer is one to another question.
    #[error("the guard answered another question")]
    Unexpected,
    /// The guard refused.
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: crate::ErrorCode,
        /// For people.
        message: String,
    },
    /// The maps can't be read.
    #[error("the guard's maps can't be read")]
    Maps(#[from] ReaderError),
}

/// A connection to the guard.
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Client {
    /// Connects. Answers that take longer than 10 s are errors; see [`Client::set_timeout`].
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream =
            UnixStream::connect(path).map_err(|source| ClientError::Connect { path: path.display().to_string(), source })?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Client { stream, buffer: Vec::new(), descriptors: VecDeque::new() })
    }

    /// How long an answer may take; `None` = for ever (event streams).
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Asks, and returns the answer; a refusal is [`ClientError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        match serde_json::from_slice(&self.line()?)? {
            Response::Error { code, message } => Err(ClientError::Refused { code, message }),
            response => Ok(response),
        }
    }

    /// Loads a list from a file or pipe, which the guard reads itself. Waits until the list is in force.
    pub fn load_list(&mut self, request: &Request, text: BorrowedFd<'_>) -> Result<ListInfo, ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let descriptors = [text.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(&line)], &rights, MsgFlags::MSG_NOSIGNAL, None);
        let sent = sent.map_err(io::Error::from)?;
        self.stream.write_all(line.get(sent..).unwrap_or_default())?;
        self.set_timeout(None)?;
        let answer = serde_json::from_slice(&self.line()?)?;
        self.set_timeout(Some(ANSWER_TIMEOUT))?;
        match answer {
            Response::Listed { list } => Ok(list),
            Response::Error { code, message } => Err(ClientError::Refused { code, message }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// All counters (`rows` false leaves the rows out).
    pub fn stats(&mut self, rows: bool) -> Result<crate::protocol::Stats, ClientError> {
        match self.ask(&if rows { Request::Stats {} } else { Request::Status {} })? {
            Response::Stats(stats) => Ok(*stats),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The maps, mapped for reading.
    pub fn maps(&mut self) -> Result<Maps, ClientError> {
        let (infos, descriptors, cpus, abi_hash) = self.map_descriptors()?;
        Ok(Maps::new(infos, descriptors, cpus, &abi_hash)?)
    }

    /// The maps' descriptors as they come: names and descriptors in the same order, CPUs, ABI hash.
    pub fn map_descriptors(&mut self) -> Result<(Vec<MapInfo>, Vec<OwnedFd>, u32, String), ClientError> {
        self.descriptors.clear();
        match self.ask(&Request::Maps {})? {
            Response::Maps { maps, cpus, abi_hash } => {
                let descriptors: Vec<OwnedFd> = self.descriptors.drain(..).collect();
                if descriptors.len() != maps.len() {
                    return Err(ClientError::Unexpected);
                }
                Ok((maps, descriptors, cpus, abi_hash))
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Starts the event stream: afterwards only [`Client::event`] makes sense.
    pub fn subscribe(&mut self) -> Result<(), ClientError> {
        match self.ask(&Request::Events {})? {
            Response::Done {} => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The next event; waits as long as the timeout allows.
    pub fn event(&mut self) -> Result<EventInfo, ClientError> {
        match serde_json::from_slice(&self.line()?)? {
            Response::Event(event) => Ok(event),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The next line, with whatever descriptors came beside it.
    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut scanned = 0;
        loop {
            if let Some(end) = self.buffer[scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=scanned + end).collect();
                line.pop();
                return Ok(line);
            }
            scanned = self.buffer.len();
            if scanned > LINE_BYTES_MAX {
                return Err(ClientError::TooLong);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        let mut chunk = [0u8; 8192];
        let mut space = nix::cmsg_space!([i32; DESCRIPTORS_MAX]);
        let length = {
            let mut slices = [IoSliceMut::new(&mut chunk)];
            let message = loop {
                match recvmsg::<()>(self.stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(errno) => return Err(io::Error::from(errno).into()),
                    Ok(message) => break message,
                }
            };
            for control in message.cmsgs().map_err(io::Error::from)? {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    // SAFETY: the kernel has just opened them for us, and nobody else owns them.
                    self.descriptors.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            message.bytes
        };
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(())
    }
}
