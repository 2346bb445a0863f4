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
                Poll::Ready(Some(event)) => return Poll::Ready(Some(self.note(event))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if let Some(inbound) = self.held.take() {
                if self.standing.contains(&inbound.peer) {
                    return Poll::Ready(Some(Event::Message {
                        peer: inbound.peer,
                        message: inbound.message,
                        bytes: inbound.bytes,
                    }));
                }
                // `Connected` was queued before its peer's first message was read, so it is in the queue now, or the peer has
                // fallen since. `poll_recv` can't tell: it also yields when the task has used up its turn.
                if let Ok(event) = self.control.try_recv() {
                    self.held = Some(inbound);
                    return Poll::Ready(Some(self.note(event)));
                }
            }
            match self.poll_lanes(cx) {
                Poll::Ready(inbound) => self.held = Some(inbound),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Remembers who stands.
    fn note(&mut self, event: Event) -> Event {
        match &event {
            Event::Connected(connected) => self.standing.insert(connected.peer),
            Event::Disconnected { peer } => self.standing.remove(peer),
            _ => false,
        };
        event
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

#[cfg(test)]
mod tests {
    use libp2p::PeerId;
    use types::{Epoch, Height, Status, View};

    use super::*;
    use crate::address::Transport;
    use crate::event::{Connected, Link};

    fn connected(peer: u64) -> Event {
        let address = ([127, 0, 0, 1], 1).into();
        let links = Lane::ALL.map(|lane| Link { lane, transport: Transport::Tcp, address, local_port: None });
        Event::Connected(Connected { peer, peer_id: PeerId::random(), validator: None, outbound: false, links })
    }

    fn message(lane: Lane) -> Message {
        match lane {
            Lane::Votes => Message::Status(Status { epoch: Epoch(0), final_view: View(0), height: Height(0) }),
            Lane::Bulk => Message::Sync(Height(0)),
        }
    }

    /// The next `count` events as text.
    async fn take(events: &mut Events, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(match events.recv().await.unwrap() {
                Event::Connected(connected) => format!("up {}", connected.peer),
                Event::Disconnected { peer } => format!("down {peer}"),
                Event::Message { peer, message, .. } => format!("{} {peer}", message.lane().as_str()),
                event => format!("{event:?}"),
            });
        }
        taken
    }

    #[tokio::test]
    async fn control_then_votes_then_bulk_and_nothing_of_the_fallen() {
        let (control, inbox, mut events) = channels(&Limits::default());
        control.send(connected(1)).await.unwrap();
        control.send(connected(2)).await.unwrap();
        for lane in [Lane::Bulk, Lane::Votes] {
            inbox.send(lane, 1, message(lane), 10).await.unwrap();
            inbox.send(lane, 2, message(lane), 10).await.unwrap();
        }
        assert_eq!(take(&mut events, 3).await, ["up 1", "up 2", "votes 1"]);
        control.send(Event::Disconnected { peer: 2 }).await.unwrap();
        assert_eq!(take(&mut events, 2).await, ["down 2", "bulk 1"], "the vote and the batch of peer 2 are dropped");
        drop(control);
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn votes_do_not_starve_bulk() {
        let (control, inbox, mut events) = channels(&Limits::default());
        control.send(connected(1)).await.unwrap();
        inbox.send(Lane::Bulk, 1, message(Lane::Bulk), 10).await.unwrap();
        for _ in 0..2 * VOTES_IN_A_ROW_MAX {
            inbox.send(Lane::Votes, 1, message(Lane::Votes), 10).await.unwrap();
        }
        let taken = take(&mut events, 2 + VOTES_IN_A_ROW_MAX as usize).await;
        assert_eq!(taken.last().map(String::as_str), Some("bulk 1"));
        assert_eq!(taken.iter().filter(|event| *event == "votes 1").count(), VOTES_IN_A_ROW_MAX as usize);
    }

    #[tokio::test]
    async fn bytes_are_given_back_when_a_message_is_taken() {
        let mut limits = Limits::default();
        limits.bulk.inbox_bytes = 100;
        let (control, inbox, mut events) = channels(&limits);
        control.send(connected(1)).await.unwrap();
        inbox.send(Lane::Bulk, 1, message(Lane::Bulk), 60).await.unwrap();
        let mut second = Box::pin(inbox.send(Lane::Bulk, 1, message(Lane::Bulk), 60));
        assert!(futures::poll!(second.as_mut()).is_pending(), "120 of 100 bytes");
        assert_eq!(take(&mut events, 2).await, ["up 1", "bulk 1"]);
        assert!(futures::poll!(second.as_mut()).is_ready());
    }
}
