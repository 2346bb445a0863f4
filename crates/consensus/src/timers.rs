//! Timers as data: when a view began, since when there is work, how patient to be, when to send again.

use types::Tick;

use crate::config::Config;

/// The current view's clock and the node's patience.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    /// When the view was entered.
    pub(crate) entered: Tick,
    /// Since when there is work in this view.
    pub(crate) work_since: Option<Tick>,
    /// One up for each view that this node nullified, one down for each final view that it didn't.
    level: u32,
    resend: Pause,
    fetch: Pause,
}

/// A pause that doubles.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    due: Option<Tick>,
    doublings: u32,
}

impl Pause {
    /// The pause after which it is due again, in microseconds.
    fn next(&mut self, config: &Config) -> u64 {
        let longest = config.idle_interval_ms.max(config.resend_ms).saturating_mul(1_000);
        let pause = config.resend_ms.saturating_mul(1_000).saturating_mul(1 << self.doublings).min(longest);
        self.doublings = (self.doublings + 1).min(16);
        pause
    }
}

impl Timers {
    pub(crate) fn new(now: Tick) -> Timers {
        Timers { entered: now, work_since: None, level: 0, resend: Pause::default(), fetch: Pause::default() }
    }

    /// A new view: all but the patience starts again.
    pub(crate) fn enter(&mut self, now: Tick) {
        self.entered = now;
        self.work_since = None;
        self.fetch = Pause::default();
    }

    /// When leaders of this view propose and their time begins to run.
    pub(crate) fn start(&self, config: &Config) -> Tick {
        let idle = self.entered.plus_ms(config.idle_interval_ms);
        self.work_since.map_or(idle, |since| since.max(self.entered).min(idle))
    }

    /// A base timeout at the present level, in microseconds.
    pub(crate) fn grown(&self, base_ms: u64, config: &Config) -> u64 {
        let base = base_ms.saturating_mul(1_000);
        let most = base.saturating_mul(config.timeout_growth_max.max(1));
        (0..self.level).fold(base, |timeout, _| (timeout / 2).saturating_mul(3)).min(most)
    }

    /// This node nullified a view.
    pub(crate) fn level_up(&mut self, config: &Config) {
        // Levels above the one that reaches the cap would only delay the way back.
        if self.grown(1_000, config) < config.timeout_growth_max.saturating_mul(1_000_000) {
            self.level += 1;
        }
    }

    /// A view is final that this node did not nullify.
    pub(crate) fn level_down(&mut self) {
        self.level = self.level.saturating_sub(1);
    }

    #[cfg(test)]
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// A new vote, view or connection: the next re-send comes after the shortest pause.
    pub(crate) fn resend_soon(&mut self, now: Tick, config: &Config) {
        self.resend = Pause::default();
        self.resend.due = Some(now.plus(self.resend.next(config)));
    }

    pub(crate) fn resend_due(&self) -> Option<Tick> {
        self.resend.due
    }

    /// Something was sent again, or there was nothing to send.
    pub(crate) fn resent(&mut self, now: Tick, anything: bool, config: &Config) {
        self.resend.due = anything.then(|| now.plus(self.resend.next(config)));
    }

    /// Whether a missing certificate is asked for now; if so, the next time is after a longer pause.
    pub(crate) fn may_fetch(&mut self, now: Tick, config: &Config) -> bool {
        if self.fetch.due.is_some_and(|due| due > now) {
            return false;
        }
        self.fetch.due = Some(now.plus(self.fetch.next(config)));
        true
    }

    /// When a missing certificate is asked for again; none if nothing was missing.
    pub(crate) fn fetch_due(&self) -> Option<Tick> {
        self.fetch.due
    }

    /// Nothing is missing any more.
    pub(crate) fn fetched(&mut self) {
        self.fetch = Pause::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_by_half_and_capped_and_comes_back() {
        let config = Config::default();
        let mut timers = Timers::new(Tick(0));
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(timers.grown(800, &config) / 1_000);
            timers.level_up(&config);
        }
        assert_eq!(seen, [800, 1_200, 1_800, 2_700, 4_050]);
        for _ in 0..1_000 {
            timers.level_up(&config);
        }
        assert_eq!(timers.grown(800, &config), 16 * 800_000);
        let levels = timers.level();
        assert_eq!(levels, 7, "1.5^7 > 16");
        for _ in 0..levels {
            timers.level_down();
        }
        assert_eq!(timers.grown(800, &config), 800_000);
    }

    #[test]
    fn resend_doubles_up_to_idle_and_resets() {
        let config = Config::default();
        let mut timers = Timers::new(Tick(0));
        let mut pauses = Vec::new();
        let mut now = Tick(0);
        timers.resend_soon(now, &config);
        for _ in 0..6 {
            let due = timers.resend_due().unwrap();
            pauses.push(due.since(now) / 1_000);
            now = due;
            timers.resent(now, true, &config);
        }
        assert_eq!(pauses, [200, 400, 800, 1_600, 2_000, 2_000]);
        timers.resend_soon(now, &config);
        assert_eq!(timers.resend_due(), Some(now.plus_ms(200)));
        timers.resent(now, false, &config);
        assert_eq!(timers.resend_due(), None);
    }

    #[test]
    fn start_is_at_work_or_after_the_idle_interval() {
        let config = Config::default();
        let mut timers = Timers::new(Tick(1_000));
        assert_eq!(timers.start(&config), Tick(2_001_000));
        timers.work_since = Some(Tick(50_000));
        assert_eq!(timers.start(&config), Tick(50_000));
        timers.work_since = Some(Tick(9_000_000));
        assert_eq!(timers.start(&config), Tick(2_001_000));
    }
}
