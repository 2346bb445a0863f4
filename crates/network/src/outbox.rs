//! What waits to be sent on one lane to one peer: bounded by messages and bytes. A full one fails the send; the protocol above
//! re-sends what still matters, and an old vote in a long queue does not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::LaneLimits;
use crate::event::add;
use crate::frame::Frame;

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such peer (any more).
    #[error("peer is gone")]
    Gone,
    /// Its queue is full: it, or the way to it, is slow.
    #[error("queue of the lane is full")]
    Full,
    /// Above the lane's bound; a mistake of ours.
    #[error("message is larger than its lane allows")]
    Oversize,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    closed: bool,
}

/// Senders push from any thread; the connection's writer alone takes.
pub(crate) struct Outbox {
    messages_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue>,
    ready: Notify,
    full: AtomicU64,
    messages_out: AtomicU64,
    bytes_out: AtomicU64,
}

/// Figures of an outbox.
pub(crate) struct OutboxInfo {
    pub queued_messages: usize,
    pub queued_bytes: usize,
    pub full: u64,
    pub messages_out: u64,
    pub bytes_out: u64,
}

impl Outbox {
    pub(crate) fn new(limits: &LaneLimits) -> Outbox {
        Outbox {
            messages_max: limits.outbox_messages,
            bytes_max: limits.outbox_bytes,
            queue: Mutex::default(),
            ready: Notify::new(),
            full: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError::Gone`] once closed, [`SendError::Full`].
    pub(crate) fn push(&self, frame: Frame) -> Result<(), SendError> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(SendError::Gone);
        }
        let bytes = queue.bytes + frame.bytes().len();
        if queue.frames.len() >= self.messages_max || bytes > self.bytes_max {
            drop(queue);
            add(&self.full, 1);
            return Err(SendError::Full);
        }
        queue.bytes = bytes;
        queue.frames.push_back(frame);
        drop(queue);
        self.ready.notify_one();
        Ok(())
    }

    /// The next frame, if one waits.
    pub(crate) fn try_next(&self) -> Option<Frame> {
        let mut queue = self.queue.lock();
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.bytes().len();
        drop(queue);
        add(&self.messages_out, 1);
        add(&self.bytes_out, frame.bytes().len() as u64);
        Some(frame)
    }

    /// Waits for a frame; none once closed.
    pub(crate) async fn next(&self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.try_next() {
                return Some(frame);
            }
            if self.queue.lock().closed {
                return None;
            }
            // A permit is kept if `notify_one` comes between the look above and this wait: there is one consumer.
            self.ready.notified().await;
        }
    }

    /// Drops what waits and ends the writer, which ends the connection and so the peer.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.frames.clear();
        queue.bytes = 0;
        drop(queue);
        self.ready.notify_one();
    }

    pub(crate) fn info(&self) -> OutboxInfo {
        let queue = self.queue.lock();
        OutboxInfo {
            queued_messages: queue.frames.len(),
            queued_bytes: queue.bytes,
            full: self.full.load(Ordering::Relaxed),
            messages_out: self.messages_out.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Lane;

    use crate::config::Limits;

    fn frame(bytes: usize) -> Frame {
        Frame::of_payload(Lane::Votes, &vec![7; bytes]).unwrap()
    }

    #[test]
    fn bounded_by_messages_and_bytes() {
        let limits = LaneLimits { outbox_messages: 3, outbox_bytes: 64, ..Limits::default().votes };
        let outbox = Outbox::new(&limits);
        outbox.push(frame(28)).unwrap();
        outbox.push(frame(28)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(SendError::Full), "bytes: 64 of 64 are taken");
        outbox.try_next().unwrap();
        outbox.push(frame(1)).unwrap();
        outbox.push(frame(1)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(SendError::Full), "messages: 3 of 3 wait");
        assert_eq!(outbox.info().full, 2);
        outbox.close();
        assert_eq!(outbox.push(frame(1)), Err(SendError::Gone));
        assert_eq!(outbox.info().queued_bytes, 0);
    }

    #[tokio::test]
    async fn a_waiting_writer_is_woken_by_push_and_by_close() {
        let outbox = std::sync::Arc::new(Outbox::new(&Limits::default().votes));
        let writer = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                let first = outbox.next().await;
                (first, outbox.next().await)
            }
        });
        tokio::task::yield_now().await;
        outbox.push(frame(5)).unwrap();
        while outbox.info().queued_messages > 0 {
            tokio::task::yield_now().await;
        }
        outbox.close();
        let (first, second) = writer.await.unwrap();
        assert_eq!(first, Some(frame(5)));
        assert_eq!(second, None);
    }
}
