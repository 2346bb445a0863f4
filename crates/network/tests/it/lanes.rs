//! A batch never delays a vote; full queues fail sends and lose nothing that was taken.

use std::time::{Duration, Instant};

use network::{Handle, SendError, Transport};
use types::{BlockHash, Hash, Lane, Message};

use crate::world::{Node, Recipe, batch, number, vote};

const BATCH_BYTES: usize = 128 * 1024;

/// Two nodes that know each other, with the handle of the other at each.
async fn pair(transport: Transport, listener: Recipe) -> ((Node, u64), (Node, u64)) {
    let mut listener = listener.start().await;
    let mut dialer = Recipe::new(transport).peer(&listener.address).start().await;
    let there = dialer.connected().await.peer;
    let here = listener.connected().await.peer;
    ((dialer, there), (listener, here))
}

/// A node that holds few messages of its peers.
fn narrow(transport: Transport) -> Recipe {
    let mut recipe = Recipe::new(transport);
    for limits in [&mut recipe.config.limits.votes, &mut recipe.config.limits.bulk] {
        limits.inbox_messages = 4;
        limits.inbox_bytes = 2 * 1024 * 1024;
    }
    recipe
}

/// Queues batches until no more fit, twice in a row without room: what is left can't move.
async fn fill(handle: &Handle, peer: u64) -> u64 {
    let mut sent = 0;
    let mut quiet = 0;
    while quiet < 10 {
        match handle.send(peer, &batch(sent, BATCH_BYTES)) {
            Ok(()) => (sent, quiet) = (sent + 1, 0),
            Err(SendError::Full) => {
                quiet += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

async fn votes_overtake_queued_bulk(transport: Transport) {
    let ((dialer, there), (mut listener, here)) = pair(transport, narrow(transport)).await;
    // Nobody takes the listener's events: bulk is stuck from its inbox back to the dialer's outbox.
    let sent = fill(&dialer.handle, there).await;
    dialer.handle.send(there, &vote(77)).unwrap();
    while listener.handle.peer(here).unwrap().lanes[Lane::Votes as usize].messages_in == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let queued = dialer.handle.peer(there).unwrap().lanes[Lane::Bulk as usize].queued_messages;
    assert!(queued > 0, "the vote arrived while {queued} of {sent} batches had not left");
    let (_, first) = listener.message().await;
    assert_eq!(first, vote(77), "and it is taken before the batches that arrived earlier");
    for expect in 0..sent {
        let (_, message) = listener.message().await;
        assert_eq!(number(&message), Some(expect), "in order, none lost");
    }
    dialer.stop().await;
    listener.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_overtake_queued_bulk_tcp() {
    votes_overtake_queued_bulk(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_overtake_queued_bulk_quic() {
    votes_overtake_queued_bulk(Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_fails_sends_and_loses_nothing() {
    let ((dialer, there), (mut listener, _)) = pair(Transport::Tcp, narrow(Transport::Tcp)).await;
    let sent = fill(&dialer.handle, there).await;
    let lane = dialer.handle.peer(there).unwrap().lanes[Lane::Bulk as usize];
    assert!(lane.full >= 1 && lane.queued_bytes <= network::Limits::default().bulk.outbox_bytes);
    // It takes some: as many more can be sent.
    for expect in 0..sent {
        assert_eq!(number(&listener.message().await.1), Some(expect));
    }
    dialer.handle.send(there, &batch(sent, BATCH_BYTES)).unwrap();
    assert_eq!(number(&listener.message().await.1), Some(sent));
    dialer.stop().await;
    listener.stop().await;
}

/// A peer that takes nothing for longer than it may is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_peer_is_closed() {
    let mut listener = narrow(Transport::Tcp).start().await;
    let mut recipe = Recipe::new(Transport::Tcp).peer(&listener.address);
    recipe.config.limits.stall_timeout = Duration::from_millis(300);
    let mut dialer = recipe.start().await;
    let there = dialer.connected().await.peer;
    listener.connected().await;
    while dialer.handle.send(there, &batch(1, BATCH_BYTES)) != Err(SendError::Gone) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(dialer.disconnected().await, there);
    assert!(dialer.handle.counters().refusals(network::Refusal::Timeout) >= 1);
    dialer.stop().await;
    listener.stop().await;
}

/// Sorted round trips of `count` votes, one at a time; the other end echoes.
async fn round_trips(node: &mut Node, peer: u64, count: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..count {
        let start = Instant::now();
        node.handle.send(peer, &vote(n)).unwrap();
        while node.message().await.1 != vote(n) {}
        times.push(start.elapsed());
    }
    times.sort();
    times
}

/// The same with as small a message, one that takes its place in the bulk lane: what a vote would see if it shared it.
async fn round_trips_in_bulk(node: &mut Node, peer: u64, count: u8) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..count {
        let message = Message::FetchBlock(BlockHash(Hash([n; 32])));
        let start = Instant::now();
        while node.handle.send(peer, &message) == Err(SendError::Full) {
            tokio::task::yield_now().await;
        }
        while node.message().await.1 != message {}
        times.push(start.elapsed());
    }
    times.sort();
    times
}

/// Prints how votes fare while bulk is saturated; asserts what holds on any machine: all of both arrive.
async fn measure(transport: Transport) {
    const VOTES: u64 = 2000;
    let mut recipe = Recipe::new(transport);
    // Far more than a protocol needs is what this test sends.
    recipe.config.limits.bulk.bytes_per_s = u64::from(u32::MAX);
    recipe.config.limits.bulk.messages_per_s = u64::from(u32::MAX);
    recipe.config.limits.votes.messages_per_s = u64::from(u32::MAX);
    let ((mut dialer, there), (listener, _)) = pair(transport, recipe).await;
    let handle = listener.handle.clone();
    let mut events = listener.events;
    let echo = tokio::spawn(async move {
        let mut batches = 0u64;
        while let Some(event) = events.recv().await {
            match event {
                network::Event::Message { peer, message, .. } if message.lane() == Lane::Votes => {
                    handle.send(peer, &message).unwrap()
                }
                network::Event::Message { peer, message: Message::FetchBlock(hash), .. } => {
                    handle.send(peer, &Message::FetchBlock(hash)).unwrap();
                }
                network::Event::Message { .. } => batches += 1,
                network::Event::Disconnected { .. } => break,
                _ => {}
            }
        }
        batches
    });
    round_trips(&mut dialer, there, 50).await;
    let idle = round_trips(&mut dialer, there, VOTES).await;
    let flood = tokio::spawn({
        let handle = dialer.handle.clone();
        let frame = network::Frame::new(&batch(1, BATCH_BYTES)).unwrap();
        async move {
            let mut sent = 0u64;
            loop {
                match handle.send_frame(there, frame.clone()) {
                    Ok(()) => sent += 1,
                    Err(SendError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(_) => return sent,
                }
            }
        }
    });
    while dialer.handle.peer(there).unwrap().lanes[1].full == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    let before = dialer.handle.peer(there).unwrap().lanes[1].bytes_out;
    let busy = round_trips(&mut dialer, there, VOTES).await;
    let bytes = dialer.handle.peer(there).unwrap().lanes[1].bytes_out - before;
    let rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e6;
    let shared = round_trips_in_bulk(&mut dialer, there, 6).await;
    dialer.handle.disconnect(there);
    let sent = flood.await.unwrap();
    let received = echo.await.unwrap();
    let at = |times: &[Duration], percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e6;
    println!(
        "{}: vote round trip µs, p50/p99: idle {:.0}/{:.0}, bulk saturated at {rate:.0} MB/s {:.0}/{:.0}, ratio {:.1}/{:.1}; in the bulk lane itself {:.0}/{:.0}",
        transport.as_str(),
        at(&idle, 50),
        at(&idle, 99),
        at(&busy, 50),
        at(&busy, 99),
        at(&busy, 50) / at(&idle, 50),
        at(&busy, 99) / at(&idle, 99),
        at(&shared, 50),
        at(&shared, 99),
    );
    assert_eq!((idle.len() as u64, busy.len() as u64), (VOTES, VOTES));
    assert!(received > 0 && received <= sent);
    dialer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_while_bulk_is_saturated() {
    measure(Transport::Tcp).await;
    measure(Transport::Quic).await;
}
