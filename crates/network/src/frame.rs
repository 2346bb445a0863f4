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

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;

    /// All frames of a stream, and what ended it.
    fn frames(mut bytes: &[u8], bytes_max: usize) -> (Vec<Vec<u8>>, FrameError) {
        let mut frames = Vec::new();
        loop {
            match block_on(read_length(&mut bytes, bytes_max)).and_then(|length| block_on(read_payload(&mut bytes, length))) {
                Ok(payload) => frames.push(payload),
                Err(error) => return (frames, error),
            }
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let frame = Frame::of_payload(Lane::Votes, b"abc").unwrap();
        assert_eq!(frame.bytes(), b"\x03\0\0\0abc");
        assert!(matches!(frames(frame.bytes(), 3), (list, FrameError::End) if list == [b"abc"]));
        assert!(matches!(frames(frame.bytes(), 2), (_, FrameError::Oversize { bytes: 3, bytes_max: 2 })));
        assert!(matches!(frames(&frame.bytes()[..6], 3), (_, FrameError::Io(_))));
        assert!(matches!(frames(&frame.bytes()[..2], 3), (_, FrameError::Io(_))));
        assert!(matches!(frames(&[0; 4], 3), (_, FrameError::Empty)));
        let large = vec![0; Lane::Votes.bytes_max() + 1];
        assert!(matches!(Frame::of_payload(Lane::Votes, &large), Err(FrameError::Oversize { .. })));
        assert!(matches!(Frame::of_payload(Lane::Votes, &[]), Err(FrameError::Empty)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20)) {
            let written: Vec<u8> = payloads.iter().flat_map(|p| Frame::of_payload(Lane::Bulk, p).unwrap().bytes().to_vec()).collect();
            let (read, end) = frames(&written, Lane::Bulk.bytes_max());
            prop_assert_eq!(read, payloads);
            prop_assert!(matches!(end, FrameError::End));
        }

        /// Any bytes end in an error, never in a panic, and no payload is larger than what came.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096), bytes_max in 1usize..2048) {
            let (read, _) = frames(&bytes, bytes_max);
            prop_assert!(read.iter().all(|payload| payload.len() <= bytes_max));
            for lane in Lane::ALL {
                for payload in &read {
                    Message::from_bytes(payload, lane).ok();
                }
            }
        }
    }
}
