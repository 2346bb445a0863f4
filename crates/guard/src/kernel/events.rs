//! Events: drained from the ring by the main loop, relayed to whoever listens, counted where nobody has room.

use super::clock;
use crate::protocol::{EventInfo, Response};
use aya::maps::{MapData, RingBuf};
use kernel_shared::{
    Reason,
    abi::{Event, TCP},
};
use std::{
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

/// Lines that a slow subscriber may be behind.
pub const BACKLOG: usize = 256;
/// Subscribers at one time.
pub const SUBSCRIBERS_MAX: usize = 8;
/// Events relayed in one go: a flood must not keep the main loop from its other work.
pub const DRAIN_MAX: usize = 4096;

/// Subscribers of the event stream.
#[derive(Default)]
pub struct Hub {
    subscribers: Mutex<Vec<Subscriber>>,
    /// Subscribers that there ever were.
    numbered: AtomicU64,
    unread: AtomicU64,
}

struct Subscriber {
    number: u64,
    lines: SyncSender<Arc<str>>,
}

/// Where a subscriber's lines arrive. Dropped, it gives its place back.
pub struct Mailbox<'a> {
    hub: &'a Hub,
    number: u64,
    lines: Receiver<Arc<str>>,
}

impl Mailbox<'_> {
    /// The next line; `None` if there is none within so long.
    pub fn next(&self, wait: Duration) -> Option<Arc<str>> {
        self.lines.recv_timeout(wait).ok()
    }
}

impl Drop for Mailbox<'_> {
    fn drop(&mut self) {
        self.hub.subscribers().retain(|subscriber| subscriber.number != self.number);
    }
}

impl Hub {
    fn subscribers(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new subscriber's mailbox; `None` if there are too many.
    pub fn subscribe(&self) -> Option<Mailbox<'_>> {
        let mut subscribers = self.subscribers();
        if subscribers.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let (number, (sender, lines)) = (self.numbered.fetch_add(1, Relaxed), sync_channel(BACKLOG));
        subscribers.push(Subscriber { number, lines: sender });
        Some(Mailbox { hub: self, number, lines })
    }

    /// Lines that a subscriber had no room for.
    pub fn unread(&self) -> u64 {
        self.unread.load(Relaxed)
    }

    fn publish(&self, line: &Arc<str>) {
        for subscriber in self.subscribers().iter() {
            if let Err(TrySendError::Full(_)) = subscriber.lines.try_send(line.clone()) {
                self.unread.fetch_add(1, Relaxed);
            }
        }
    }

    fn listened(&self) -> bool {
        !self.subscribers().is_empty()
    }
}

/// Drains the ring into the hub; how many events there were.
pub fn drain(ring: &mut RingBuf<MapData>, hub: &Hub) -> usize {
    let offset_ns = clock::unix_ms() as i128 * 1_000_000 - monotonic_ns() as i128;
    let mut drained = 0;
    while drained < DRAIN_MAX {
        let Some(item) = ring.next() else { break };
        drained += 1;
        if item.len() < size_of::<Event>() || !hub.listened() {
            continue;
        }
        // SAFETY: long enough, any bytes are an event, and the read is unaligned.
        let event = unsafe { item.as_ptr().cast::<Event>().read_unaligned() };
        if let Ok(mut line) = serde_json::to_string(&Response::Event(info(&event, offset_ns))) {
            line.push('\n');
            hub.publish(&line.into());
        }
    }
    drained
}

fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| std::time::Duration::from(time).as_nanos() as u64)
}

fn info(event: &Event, offset_ns: i128) -> EventInfo {
    let octets = event.address;
    let address: IpAddr = match event.version {
        4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        _ => Ipv6Addr::from(octets).into(),
    };
    EventInfo {
        unix_ms: ((event.time_ns as i128 + offset_ns) / 1_000_000).max(0) as u64,
        address,
        port: event.port,
        local_port: event.local_port,
        protocol: if event.protocol == TCP { "tcp" } else { "udp" }.to_string(),
        reason: Reason::from_slot(event.reason as u32).map_or("unknown", Reason::as_str).to_string(),
        dropped: event.dropped == 1,
        length: event.length,
        stands_for: event.stands_for,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_a_slow_subscriber_loses_lines_of_its_own() {
        let hub = Hub::default();
        let mut mailboxes: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| hub.subscribe().unwrap()).collect();
        assert!(hub.subscribe().is_none());
        mailboxes.remove(3);
        mailboxes.push(hub.subscribe().unwrap());
        let last = mailboxes.pop().unwrap();
        mailboxes.truncate(1);
        let line: Arc<str> = "line".into();
        for _ in 0..BACKLOG {
            hub.publish(&line);
            assert_eq!(last.next(Duration::ZERO), Some(line.clone()));
        }
        hub.publish(&line);
        assert_eq!((hub.unread(), last.next(Duration::ZERO)), (1, Some(line)));
        drop((mailboxes, last));
        assert!(!hub.listened());
    }
}
