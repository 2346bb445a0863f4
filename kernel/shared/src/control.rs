//! The control array: a few 64-bit words that user space changes live and the program reads for every packet.

/// Index of the configuration word.
pub const WORD_CONFIG: u32 = 0;
/// Index of the tick after which known flows lapse because the node's heart stopped; 0 = no beat is expected.
pub const WORD_BEAT_DEADLINE: u32 = 1;
/// Index of the word that the `clock` program writes: jiffies now, so that user space can speak in ticks.
pub const WORD_CLOCK: u32 = 2;
/// Index of the salt of the rows of strangers' budgets: who does not know it can't aim at somebody else's row.
pub const WORD_SALT: u32 = 3;
/// Index of the last tick on which `enforce` drops; 0 = until told otherwise. A trial of `enforce` ends by itself, also after a dead guard.
pub const WORD_ENFORCE_DEADLINE: u32 = 4;
/// Index of the first budget's word; the others follow in the order of [`crate::strangers::Budget::ALL`].
pub const WORD_BUDGETS: u32 = 8;
/// Index of the first word of what validators share. The words in between are the guard's, and stay where they are: words outlive an
/// upgrade.
pub const WORD_SHARES: u32 = 24;
/// Number of words in the array.
pub const WORDS: u32 = 32;

/// A budget's word: refill (units a tick) in the lower half, depth (units) in the upper; a depth of 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u64);

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit(0);

    /// A limit of this refill (units a tick) and depth (units; see [`crate::bucket::UNITS`]).
    pub const fn new(rate: u32, burst: u32) -> Limit {
        Limit(rate as u64 | (burst as u64) << 32)
    }

    /// The word as it stands in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Limit {
        Limit(word)
    }

    /// The word for the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Refill, units a tick.
    #[inline(always)]
    pub const fn rate(self) -> u32 {
        self.0 as u32
    }

    /// Depth, units; 0 = no limit.
    #[inline(always)]
    pub const fn burst(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What the guard does with its verdicts. Changed live, by one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Pass everything uninspected.
    Off = 0,
    /// Compute every verdict, count what would be dropped, drop nothing.
    Shadow = 1,
    /// Drop.
    Enforce = 2,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Off, Mode::Shadow, Mode::Enforce];

    /// The name on the command line, in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Shadow => "shadow",
            Mode::Enforce => "enforce",
        }
    }

    /// The mode with this name.
    pub fn from_name(name: &str) -> Option<Mode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Which SYNs are answered in XDP with a cookie. In `enforce` only: where nothing is dropped, nothing has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SynProxy {
    /// None.
    Off = 0,
    /// Those above the budget of all strangers' handshakes.
    On = 1,
    /// Those above their address's or network's own budget, too.
    All = 2,
}

impl SynProxy {
    /// All states.
    pub const ALL: [SynProxy; 3] = [SynProxy::Off, SynProxy::On, SynProxy::All];

    /// The name on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            SynProxy::Off => "off",
            SynProxy::On => "on",
            SynProxy::All => "all",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<SynProxy> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// The configuration word: bits 0–1 mode, bit 2 drop unreadable, bit 3 loopback, bits 4–5 SYN proxy, bits 8–13 event sampling, bits 16–21 latency sampling, bit 24 datagrams by flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config(u64);

impl Config {
    /// A word with this mode, everything else at its default (an event for every 64th drop, a stamp for every 8th packet of a flow).
    pub const fn new(mode: Mode) -> Config {
        Config(mode as u64).with_event_shift(6).with_latency_shift(3)
    }

    /// The word as it stands in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Config {
        Config(word)
    }

    /// The word for the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The mode; the unused fourth value reads as shadow, which drops nothing.
    #[inline(always)]
    pub const fn mode(self) -> Mode {
        match self.0 & 3 {
            0 => Mode::Off,
            2 => Mode::Enforce,
            _ => Mode::Shadow,
        }
    }

    /// The same word with another mode.
    pub const fn with_mode(self, mode: Mode) -> Config {
        Config(self.0 & !3 | mode as u64)
    }

    /// Whether IPv6 packets whose port can't be read are dropped.
    #[inline(always)]
    pub const fn drop_unreadable(self) -> bool {
        self.0 >> 2 & 1 == 1
    }

    /// The same word with the switch for unreadable packets set.
    pub const fn with_drop_unreadable(self, on: bool) -> Config {
        Config(self.0 & !4 | (on as u64) << 2)
    }

    /// Whether the interface is a loopback: there, loopback addresses and packets from oneself to oneself are no martians.
    #[inline(always)]
    pub const fn loopback(self) -> bool {
        self.0 >> 3 & 1 == 1
    }

    /// The same word with the switch for a loopback interface set.
    pub const fn with_loopback(self, on: bool) -> Config {
        Config(self.0 & !8 | (on as u64) << 3)
    }

    /// Which SYNs are answered with a cookie; the unused fourth value reads as off.
    #[inline(always)]
    pub const fn syn_proxy(self) -> SynProxy {
        match self.0 >> 4 & 3 {
            1 => SynProxy::On,
            2 => SynProxy::All,
            _ => SynProxy::Off,
        }
    }

    /// The same word with another state of the SYN proxy.
    pub const fn with_syn_proxy(self, state: SynProxy) -> Config {
        Config(self.0 & !(3 << 4) | (state as u64) << 4)
    }

    /// Every 2^n-th drop of a CPU makes an event.
    #[inline(always)]
    pub const fn event_mask(self) -> u64 {
        (1 << (self.0 >> 8 & 31)) - 1
    }

    /// The same word with this event sampling (0 = every drop; at most 31).
    pub const fn with_event_shift(self, shift: u8) -> Config {
        Config(self.0 & !(63 << 8) | ((shift & 31) as u64) << 8)
    }

    /// Every 2^n-th packet of a flow's row on a CPU may be stamped for its latency.
    #[inline(always)]
    pub const fn latency_mask(self) -> u64 {
        (1 << (self.0 >> 16 & 31)) - 1
    }

    /// The same word with this latency sampling (0 = every packet; at most 31).
    pub const fn with_latency_shift(self, shift: u8) -> Config {
        Config(self.0 & !(63 << 16) | ((shift & 31) as u64) << 16)
    }

    /// Whether somebody tells the sender of each datagram that is read: then stamps of UDP lie by flow, else by port.
    #[inline(always)]
    pub const fn udp_by_flow(self) -> bool {
        self.0 >> 24 & 1 == 1
    }

    /// The same word with the switch for datagrams set.
    pub const fn with_udp_by_flow(self, on: bool) -> Config {
        Config(self.0 & !(1 << 24) | (on as u64) << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        for mode in Mode::ALL {
            for other in Mode::ALL {
                for shift in 0..=31 {
                    let config = Config::new(mode).with_event_shift(shift).with_latency_shift(31 - shift);
                    let config = config.with_drop_unreadable(true).with_loopback(true).with_udp_by_flow(true);
                    let changed = config.with_mode(other);
                    assert_eq!(config.mode(), mode);
                    assert_eq!(changed.mode(), other);
                    assert_eq!(changed.event_mask(), (1 << shift) - 1);
                    assert_eq!(changed.latency_mask(), (1 << (31 - shift)) - 1);
                    assert!(changed.drop_unreadable() && changed.loopback() && changed.udp_by_flow());
                    assert!(!changed.with_udp_by_flow(false).udp_by_flow() && changed.with_udp_by_flow(false).loopback());
                    assert!(changed.with_loopback(false).drop_unreadable() && !changed.with_loopback(false).loopback());
                    assert!(!changed.with_drop_unreadable(false).drop_unreadable());
                }
            }
        }
    }

    #[test]
    fn a_limit_keeps_both_halves() {
        let limit = Limit::from_word(Limit::new(u32::MAX, 7).word());
        assert_eq!((limit.rate(), limit.burst()), (u32::MAX, 7));
        assert_eq!(Limit::NONE.burst(), 0);
        let mut words = crate::strangers::Budget::ALL.map(|budget| budget.word());
        words.sort_unstable();
        assert!(words.is_sorted_by(|one, other| one < other) && words[0] == WORD_BUDGETS && words.ends_with(&[WORD_SHARES + 1]));
        const { assert!(WORD_SHARES + 1 < WORDS) };
    }

    #[test]
    fn any_word_has_a_mode() {
        assert_eq!(Config::from_word(3).mode(), Mode::Shadow);
        assert_eq!(Config::from_word(u64::MAX).mode(), Mode::Shadow);
        for mode in Mode::ALL {
            assert_eq!(Mode::from_name(mode.as_str()), Some(mode));
        }
        assert_eq!(Mode::from_name("on"), None);
    }
}
