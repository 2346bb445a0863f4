//! What a peer repeats. An honest one repeats itself, too: it re-sends, forwards again what got no receipt, answers a question that
//! was asked twice. What no honest node does is to bring the same transaction or batch many times within seconds (*replay*), or to
//! ask a thousand times more than it is answered (*rate*).

use std::collections::BTreeMap;

use types::{Hash, Tick};

/// Times that one thing may come within [`WINDOW_MS`]. An honest forwarder sends a transaction again after `forward_patience` heights:
/// at the fastest pace of blocks, seven times in that window.
const TIMES_MAX: u32 = 32;
/// Over which repetitions and refused questions are counted.
const WINDOW_MS: u64 = 10_000;
/// Things of one peer that are counted; the one counted since the longest makes room.
const COUNTED_MAX: usize = 256;
/// Questions of one peer that may go unanswered for their pace within the window: a hundred a second. Its interval may be set
/// shorter than ours, and it may ask for many things at once.
const REFUSED_MAX: u32 = 1_000;

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Tick,
    times: u32,
}

impl Count {
    /// Counts one more; true, and anew from there, if that is one too many.
    fn add(&mut self, max: u32, now: Tick) -> bool {
        if now.since(self.since) > WINDOW_MS * 1_000 {
            *self = Count { since: now, times: 0 };
        }
        self.times += 1;
        let many = self.times > max;
        if many {
            *self = Count { since: now, times: 0 };
        }
        many
    }
}

/// The repetitions of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    things: BTreeMap<Hash, Count>,
    refused: Option<Count>,
}

impl Repeats {
    /// Notes that something came that was there already. True if it came too often.
    pub(crate) fn again(&mut self, thing: Hash, now: Tick) -> bool {
        if !self.things.contains_key(&thing) && self.things.len() >= COUNTED_MAX {
            let oldest = self.things.iter().min_by_key(|(_, count)| count.since).map(|(thing, _)| *thing);
            oldest.map(|thing| self.things.remove(&thing));
        }
        self.things.entry(thing).or_insert(Count { since: now, times: 0 }).add(TIMES_MAX, now)
    }

    /// Notes that a question was not answered because of its pace. True if there were too many.
    pub(crate) fn refused(&mut self, now: Tick) -> bool {
        self.refused.get_or_insert(Count { since: now, times: 0 }).add(REFUSED_MAX, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(n: u64) -> Hash {
        Hash::of("thing", &n)
    }

    #[test]
    fn many_times_within_seconds_is_too_often_and_in_minutes_is_not() {
        let mut repeats = Repeats::default();
        let found = (0..99).filter(|_| repeats.again(thing(1), Tick(5))).count();
        assert_eq!(found, 3, "each {TIMES_MAX} and one more");
        let slow = (0..500).filter(|n| repeats.again(thing(2), Tick(n * 1_000_000))).count();
        assert_eq!(slow, 0, "one a second");
        let many = (0..32).flat_map(|_| 0..200).filter(|n| repeats.again(thing(100 + n), Tick(7))).count();
        assert_eq!(many, 0, "each thing is counted alone");
    }

    #[test]
    fn bounded() {
        let mut repeats = Repeats::default();
        for n in 0..3 * COUNTED_MAX as u64 {
            assert!(!repeats.again(thing(n), Tick(n)));
        }
        assert_eq!(repeats.things.len(), COUNTED_MAX);
    }

    #[test]
    fn questions_far_above_the_pace() {
        let mut repeats = Repeats::default();
        assert_eq!((0..1_000).filter(|_| repeats.refused(Tick(0))).count(), 0);
        assert!(repeats.refused(Tick(0)));
        assert_eq!((0..5_000).filter(|n| repeats.refused(Tick(n * 20_000))).count(), 0, "fifty a second for ever");
    }
}
