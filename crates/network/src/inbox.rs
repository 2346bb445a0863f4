//! What has arrived and was not taken yet: one bounded queue a lane for all peers, and one for control. A full lane queue stops
//! the readers (fairly: they wait in line), so the senders slow down; a full control queue stops new admissions.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use types::{Lane, Message};

use crate::config::Limits;
use crate::event::Event;

/// Control events that wait for the receiver.
pub(crate) const CONTROL_MAX: usize = 1024;
/// After so many votes in a row one bulk message goes first: votes are urgent, but don't starve batches for ever.
const VOTES_IN_A_ROW_MAX: u32 = 64;

struct Inbound {
    peer: u64,
    message: Message,
    bytes: usize,
    /// Given back when the message is taken.
    _permit: OwnedSemaphorePermit,
}

struct LaneSender {
    messages: mpsc::Sender<Inbound>,
    bytes: Arc<Semaphore>,
}

/// The side of the connections' readers.
pub(crate) struct Inbox {
    lanes: [LaneSender; 2],
}

/// Nobody takes events any more.
#[derive(Debug)]
pub(crate) struct Closed;

impl Inbox {
    /// Waits for room, then queues.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn send(&self, lane: Lane, peer: u64, message: Message, bytes: usize) -> Result<(), Closed> {
        let lane = &self.lanes[lane as usize];
        let permits = u32::try_from(bytes).map_err(|_| Closed)?;
        let permit = lane.bytes.clone().acquire_many_owned(permits).await.map_err(|_| Closed)?;
        lane.messages.send(Inbound { peer, message, bytes, _permit: permit }).await.map_err(|_| Closed)
    }
}

/// The side of the node: takes control before votes, votes before bulk.
pub struct Events {
    control: mpsc::Receiver<Event>,
    lanes: [mpsc::Receiver<Inbound>; 2],
    /// Peers that stand, as the receiver has been told: at most `peers_max`, and one more while one is replaced.
    standing: HashSet<u64>,
    votes_in_a_row: u32,
    held: Option<Inbound>,
}

/// All queues.
pub(crate) fn channels(limits: &Limits) -> (mpsc::Sender<Event>, Inbox, Events) {
    let (control_sender, control) = mpsc::channel(CONTROL_MAX);
    let lane = |lane| {
        let limits = limits.lane(lane);
        let (messages, receiver) = mpsc::channel(limits.inbox_messages);
        (LaneSender { messages, bytes: Arc::new(Semaphore::new(limits.inbox_bytes)) }, receiver)
    };
    let [(votes, votes_receiver), (bulk, bulk_receiver)] = Lane::ALL.map(lane);
    let events =
        Events { control, lanes: [votes_receiver, bulk_receiver], standing: HashSet::new(), votes_in_a_row: 0, held: None };
    (control_sender, Inbox { lanes: [votes, bulk] }, events)
}

impl Events {
    /// The next event; none once the network has ended. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Events::recv`], for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            match self.control.poll_recv(cx) {
                Poll::Ready(Some(event)) => {
                    match &event {
                        Event::Connected(connected) => self.standing.insert(connected.peer),
                        Event::Disconnected { peer } => self.standing.remove(peer),
                        _ => false,
                    };
                    return Poll::Ready(Some(event));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            // `Connected` was queued before its peer's first message was read: if control is empty now and the peer of a message
            // that came earlier does not stand, it has fallen since.
            if let Some(held) = self.held.take()
                && self.standing.contains(&held.peer)
            {
                return Poll::Ready(Some(Event::Message { peer: held.peer, message: held.message, bytes: held.bytes }));
            }
            match self.poll_lanes(cx) {
                Poll::Ready(inbound) => self.held = Some(inbound),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        let bulk_first = self.votes_in_a_row >= VOTES_IN_A_ROW_MAX;
        let order = if bulk_first { [Lane::Bulk, Lane::Votes] } else { [Lane::Votes, Lane::Bulk] };
        for lane in order {
            // A lane's queue ends with the network only, and then control has ended too.
            if let Poll::Ready(Some(inbound)) = self.lanes[lane as usize].poll_recv(cx) {
                self.votes_in_a_row = if lane == Lane::Votes { self.votes_in_a_row + 1 } else { 0 };
                return Poll::Ready(inbound);
            }
        }
        self.votes_in_a_row = 0;
        Poll::Pending
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("standing", &self.standing.len()).finish_non_exhaustive()
    }
}
