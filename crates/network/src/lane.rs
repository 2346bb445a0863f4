//! What runs on a lane's substream: the hello, then a reader and a writer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use tokio::time::timeout;
use types::{ChainId, Hello, Lane, Message, Offence, PublicKey};

use crate::config::Limits;
use crate::event::{Refusal, add};
use crate::frame::{Frame, FrameError, PREFIX_BYTES, read_length, read_payload};
use crate::hello::{HELLO_BYTES_MAX, HelloError, judge};
use crate::inbox::Inbox;
use crate::peers::Peer;
use crate::rate::Allowance;

/// Small frames are gathered up to so many bytes for one write.
const GATHER_BYTES: usize = 32 * 1024;
/// Read ahead, so that a small frame is one read.
const READ_BYTES: usize = 16 * 1024;

/// How long a refused peer may take to read our hello and close.
const LINGER: Duration = Duration::from_secs(1);

/// What every connection shares.
pub(crate) struct Shared {
    pub hello: Frame,
    pub chain: ChainId,
    pub limits: Limits,
    pub inbox: Inbox,
}

impl Shared {
    /// # Errors
    /// [`FrameError`] never, as a hello is small.
    pub(crate) fn new(hello: &Hello, limits: Limits, inbox: Inbox) -> Result<Shared, FrameError> {
        let frame = Frame::of_payload(Lane::Votes, &types::encode(hello))?;
        Ok(Shared { hello: frame, chain: hello.chain, limits, inbox })
    }
}

/// Why a connection's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other end closed it, or it broke: nothing to report.
    Lost,
    /// We closed it.
    Local,
    /// Closed politely.
    Refused(Refusal),
    /// To be reported.
    Offence(Offence, &'static str),
}

/// How a hello ended.
pub(crate) enum Greeting<S> {
    /// Good, with the key that it proves.
    Good(S, Option<PublicKey>),
    /// An honest mismatch: see [`linger`].
    Refused(S, Refusal),
    /// The connection is of no use.
    Ended(Ended),
}

/// Says hello and hears one. The caller bounds the time.
pub(crate) async fn greet<S>(mut stream: S, shared: &Shared, remote: &PeerId) -> Greeting<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Ours first, in full: if we refuse the other, it learns from our hello why.
    if stream.write_all(shared.hello.bytes()).await.is_err() || stream.flush().await.is_err() {
        return Greeting::Ended(Ended::Lost);
    }
    let payload = match read_length(&mut stream, HELLO_BYTES_MAX).await {
        Ok(length) => read_payload(&mut stream, length).await,
        Err(error) => Err(error),
    };
    match payload.map(|payload| judge(&payload, &shared.chain, &remote.to_bytes())) {
        Ok(Ok(validator)) => Greeting::Good(stream, validator),
        Ok(Err(HelloError::Refused(refusal))) => Greeting::Refused(stream, refusal),
        Ok(Err(HelloError::Offence(offence, detail))) => Greeting::Ended(Ended::Offence(offence, detail)),
        Err(error) => Greeting::Ended(ended_by(error)),
    }
}

/// Waits until a refused peer has closed, for a while: the end of a connection may overtake what was written last, and then the
/// other end would never learn from our hello why.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Ended {
    _ = timeout(LINGER, async { (stream.close().await, read_length(&mut stream, 1).await) }).await;
    Ended::Local
}

fn ended_by(error: FrameError) -> Ended {
    match error {
        FrameError::Empty => Ended::Offence(Offence::Malformed, "empty frame"),
        FrameError::Oversize { .. } => Ended::Offence(Offence::Oversize, "frame above its lane's bound"),
        FrameError::End | FrameError::Io(_) => Ended::Lost,
    }
}

/// Reads frames until the lane ends.
pub(crate) async fn read_lane<R: AsyncRead + Unpin>(reader: R, lane: Lane, peer: Arc<Peer>, shared: Arc<Shared>) -> Ended {
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    let limits = shared.limits.lane(lane);
    let mut messages = Allowance::new(limits.messages_per_s, limits.burst_s, Instant::now());
    let mut bytes = Allowance::new(limits.bytes_per_s, limits.burst_s, Instant::now());
    loop {
        let length = match read_length(&mut reader, lane.bytes_max()).await {
            Ok(length) => length,
            Err(error) => return ended_by(error),
        };
        let now = Instant::now();
        if !messages.take(1, now) {
            return Ended::Offence(Offence::Rate, "messages a second");
        }
        if !bytes.take(length as u64, now) {
            return Ended::Offence(Offence::Rate, "bytes a second");
        }
        let payload = match timeout(shared.limits.frame_timeout, read_payload(&mut reader, length)).await {
            Ok(Ok(payload)) => payload,
            Ok(Err(error)) => return ended_by(error),
            Err(_) => return Ended::Refused(Refusal::Timeout),
        };
        let Ok(message) = Message::from_bytes(&payload, lane) else {
            return Ended::Offence(Offence::Malformed, "message does not decode");
        };
        drop(payload);
        add(&peer.lane(lane).messages_in, 1);
        add(&peer.lane(lane).bytes_in, (PREFIX_BYTES + length) as u64);
        if shared.inbox.send(lane, peer.peer, message, length).await.is_err() {
            return Ended::Local;
        }
    }
}

/// Writes what the outbox holds until it is closed or the lane ends.
pub(crate) async fn write_lane<W: AsyncWrite + Unpin>(mut writer: W, lane: Lane, peer: Arc<Peer>, stall: Duration) -> Ended {
    let outbox = &peer.lane(lane).outbox;
    let mut gathered = Vec::new();
    while let Some(frame) = outbox.next().await {
        let written = if frame.bytes().len() >= GATHER_BYTES {
            write(&mut writer, frame.bytes(), stall).await
        } else {
            gathered.clear();
            gathered.extend_from_slice(frame.bytes());
            while gathered.len() < GATHER_BYTES
                && let Some(frame) = outbox.try_next()
            {
                gathered.extend_from_slice(frame.bytes());
            }
            write(&mut writer, &gathered, stall).await
        };
        if let Err(ended) = written {
            return ended;
        }
    }
    Ended::Local
}

/// Writes all and flushes; each step may stall for so long and no longer.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, mut bytes: &[u8], stall: Duration) -> Result<(), Ended> {
    const STALLED: Ended = Ended::Refused(Refusal::Timeout);
    while !bytes.is_empty() {
        let written = timeout(stall, writer.write(bytes)).await.map_err(|_| STALLED)?.map_err(|_| Ended::Lost)?;
        if written == 0 {
            return Err(Ended::Lost);
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    timeout(stall, writer.flush()).await.map_err(|_| STALLED)?.map_err(|_| Ended::Lost)
}
