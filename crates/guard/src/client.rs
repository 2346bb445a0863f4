//! The socket's client: blocking, one request at a time. In async code run it on a thread of its own.

use crate::{
    Maps, ReaderError,
    protocol::{BanInfo, EventInfo, FlowInfo, LINE_BYTES_MAX, ListInfo, MapInfo, ROWS_PER_ANSWER, Request, Response, Stats},
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
/// Bytes received at once.
const CHUNK_BYTES: usize = 8192;
/// Bytes of a line that is too long that are read to find its end.
const PASSED_OVER_MAX: usize = 64 << 20;
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
    /// The line is longer than the protocol allows. It was read to its end: the connection can be asked again.
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

    /// All counters (`rows` false leaves the rows out). Rows are asked for page by page; the rest is as of the first.
    pub fn stats(&mut self, rows: bool) -> Result<Stats, ClientError> {
        let mut stats = self.page_of_stats(&if rows { Request::Stats { from: 0 } } else { Request::Status {} })?;
        let mut page = stats.rows.len();
        while rows && page >= ROWS_PER_ANSWER {
            let from = stats.rows.last().map_or(0, |row| row.row.saturating_add(1));
            let more = self.page_of_stats(&Request::Stats { from })?.rows;
            page = more.len();
            stats.rows.extend(more);
        }
        Ok(stats)
    }

    fn page_of_stats(&mut self, request: &Request) -> Result<Stats, ClientError> {
        match self.ask(request)? {
            Response::Stats(stats) => Ok(*stats),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// All bans, in the order of addresses.
    pub fn bans(&mut self) -> Result<Vec<BanInfo>, ClientError> {
        let page = |answer| match answer {
            Response::Bans { bans, total } => Some((bans, total)),
            _ => None,
        };
        self.pages(|skip| Request::Bans { skip }, page, |ban| ban.address)
    }

    /// All flows, in the order of protocol, address, port.
    pub fn flows(&mut self) -> Result<Vec<FlowInfo>, ClientError> {
        let page = |answer| match answer {
            Response::Flows { flows, total } => Some((flows, total)),
            _ => None,
        };
        self.pages(|skip| Request::Flows { skip }, page, |flow| (flow.protocol, flow.address, flow.port))
    }

    /// What comes in pages, in the order of its keys. What comes and goes meanwhile may be missing; nothing is listed twice.
    fn pages<T, K: Ord>(
        &mut self,
        request: impl Fn(u32) -> Request,
        page: impl Fn(Response) -> Option<(Vec<T>, u64)>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, ClientError> {
        let (mut all, mut skip): (Vec<T>, u32) = (Vec::new(), 0);
        loop {
            let (more, total) = page(self.ask(&request(skip))?).ok_or(ClientError::Unexpected)?;
            skip = skip.saturating_add(more.len() as u32);
            let (last, ends) = (all.last().map(&key), more.is_empty() || u64::from(skip) >= total);
            all.extend(more.into_iter().filter(|each| Some(key(each)) > last));
            if ends {
                return Ok(all);
            }
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
                self.pass_over_line()?;
                return Err(ClientError::TooLong);
            }
            self.receive()?;
        }
    }

    /// Reads to the end of a line that is too long, and keeps nothing of it: the next answer begins behind it.
    fn pass_over_line(&mut self) -> Result<(), ClientError> {
        for _ in 0..PASSED_OVER_MAX / CHUNK_BYTES {
            self.buffer.clear();
            self.receive()?;
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                self.buffer.drain(..=end);
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end").into())
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        let mut chunk = [0u8; CHUNK_BYTES];
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// A guard that gives these answers, one a request.
    fn answered_by(answers: Vec<Vec<u8>>) -> (Client, std::thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guard = std::thread::spawn(move || {
            let mut requests = BufReader::new(theirs.try_clone().unwrap()).lines();
            for answer in answers {
                requests.next().unwrap().unwrap();
                theirs.write_all(&answer).unwrap();
            }
        });
        (Client { stream: ours, buffer: Vec::new(), descriptors: VecDeque::new() }, guard)
    }

    fn line(response: &Response) -> Vec<u8> {
        let mut line = serde_json::to_vec(response).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn an_answer_that_is_too_long_leaves_the_connection_in_step() {
        let mut long = vec![b' '; 3 * LINE_BYTES_MAX];
        long.extend(b"{}\n");
        let (mut client, guard) = answered_by(vec![long, line(&Response::Done {})]);
        assert!(matches!(client.ask(&Request::Lists {}), Err(ClientError::TooLong)));
        assert_eq!(client.ask(&Request::Heartbeat {}).unwrap(), Response::Done {});
        guard.join().unwrap();
    }

    #[test]
    fn bans_that_move_between_pages_are_listed_once() {
        let ban = |host: u8| BanInfo {
            address: crate::Prefix::host(std::net::Ipv4Addr::new(10, 0, 0, host).into()),
            offence: types::Offence::Manual,
            since_unix_ms: 0,
            until_unix_ms: 1,
            hits: 0,
            note: String::new(),
        };
        let page = |hosts: &[u8], total| line(&Response::Bans { bans: hosts.iter().copied().map(ban).collect(), total });
        let listed = |pages: Vec<Vec<u8>>| {
            let (mut client, guard) = answered_by(pages);
            let bans = client.bans().unwrap();
            guard.join().unwrap();
            bans
        };
        // One came in front after the first page; then one went, and the last page is empty.
        assert_eq!(listed(vec![page(&[2, 3], 4), page(&[3, 4], 5), page(&[5], 5)]), [2, 3, 4, 5].map(ban));
        assert_eq!(listed(vec![page(&[2, 3], 4), page(&[5], 4), page(&[], 3)]), [2, 3, 5].map(ban));
        assert_eq!(listed(vec![page(&[], 0)]), []);
    }
}
