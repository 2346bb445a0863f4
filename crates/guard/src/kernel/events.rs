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
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
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
    subscribers: Mutex<Vec<SyncSender<Arc<str>>>>,
    unread: AtomicU64,
}

impl Hub {
    /// A new subscriber's mailbox; `None` if there are too many.
    pub fn subscribe(&self) -> Option<Receiver<Arc<str>>> {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        if subscribers.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let (sender, receiver) = sync_channel(BACKLOG);
        subscribers.push(sender);
        Some(receiver)
    }

    /// Lines that a subscriber had no room for.
    pub fn unread(&self) -> u64 {
        self.unread.load(Relaxed)
    }

    fn publish(&self, line: &Arc<str>) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| match subscriber.try_send(line.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.unread.fetch_add(1, Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    fn listened(&self) -> bool {
        !self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
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
