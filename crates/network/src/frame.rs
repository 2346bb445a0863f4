//! Frames on a lane: `u32` length in little endian, then so many bytes.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt};
use types::{Lane, Message};

/// Bytes of the length in front of a frame.
pub(crate) const PREFIX_BYTES: usize = 4;

/// What a lane's next bytes were not.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length of 0: no message is empty.
    #[error("empty frame")]
    Empty,
    /// A length above the lane's bound; the bytes behind it were not read.
    #[error("frame of {bytes} bytes on a lane of at most {bytes_max}")]
    Oversize {
        /// Announced.
        bytes: usize,
        /// Allowed.
        bytes_max: usize,
    },
    /// The stream ended between two frames.
    #[error("end of stream")]
    End,
    /// The stream failed, or ended within a frame.
    #[error("stream failed")]
    Io(#[source] std::io::Error),
}

/// A message, encoded once for all to whom it goes: cloning it copies no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    lane: Lane,
    bytes: Arc<[u8]>,
}

impl Frame {
    /// Encodes a message.
    ///
    /// # Errors
    /// [`FrameError::Oversize`]: the receiver would take it as an offence.
    pub fn new(message: &Message) -> Result<Frame, FrameError> {
        let lane = message.lane();
        Self::of_payload(lane, &message.to_bytes())
    }

    pub(crate) fn of_payload(lane: Lane, payload: &[u8]) -> Result<Frame, FrameError> {
        let length = check_length(payload.len(), lane.bytes_max())?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(payload);
        Ok(Frame { lane, bytes: bytes.into() })
    }

    /// Bytes as they are, with no prefix of ours: what an attacker sends.
    #[cfg(feature = "attack")]
    pub(crate) fn raw(lane: Lane, bytes: Vec<u8>) -> Frame {
        Frame { lane, bytes: bytes.into() }
    }

    /// The lane that it takes.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// As written: prefix and payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn check_length(bytes: usize, bytes_max: usize) -> Result<u32, FrameError> {
    match u32::try_from(bytes) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if bytes <= bytes_max => Ok(length),
        _ => Err(FrameError::Oversize { bytes, bytes_max }),
    }
}

/// Waits for a frame's length.
///
/// # Errors
/// [`FrameError`]; `End` only if not one byte of it came.
pub(crate) async fn read_length<R: AsyncRead + Unpin>(reader: &mut R, bytes_max: usize) -> Result<usize, FrameError> {
    let mut prefix = [0u8; PREFIX_BYTES];
    let first = reader.read(&mut prefix).await.map_err(FrameError::Io)?;
    if first == 0 {
        return Err(FrameError::End);
    }
    reader.read_exact(&mut prefix[first..]).await.map_err(FrameError::Io)?;
    let bytes = u32::from_le_bytes(prefix) as usize;
    check_length(bytes, bytes_max)?;
    Ok(bytes)
}

/// Reads a frame's payload. Memory grows as bytes arrive: announcing a length costs the sender as much as us.
///
/// # Errors
/// [`FrameError::Io`].
pub(crate) async fn read_payload<R: AsyncRead + Unpin>(reader: &mut R, bytes: usize) -> Result<Vec<u8>, FrameError> {
    let mut payload = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut payload).await.map_err(FrameError::Io)?;
    if payload.len() != bytes {
        return Err(FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(payload)
}
