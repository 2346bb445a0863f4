//! Timers, intervals and bounds of an engine. None of them decides validity.

/// Everything an engine may be told to do otherwise. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a leader with work may stay silent before its view is nullified. Raise it on slow links.
    pub leader_timeout_ms: u64,
    /// How long a view may take from its start, or from its proposal's arrival, to a notarization.
    pub view_timeout_ms: u64,
    /// After how long without work a leader proposes an empty block; also the longest pause between two re-sends.
    pub idle_interval_ms: u64,
    /// The first pause before votes are sent again; doubles up to `idle_interval_ms`. Half of it is the interval in which a
    /// peer gets one answer of each kind.
    pub resend_ms: u64,
    /// A leader never proposes sooner than this after it saw the parent's proposal.
    pub block_interval_min_ms: u64,
    /// Timeouts grow by half a level; at this many times the base they stop growing.
    pub timeout_growth_max: u64,
    /// A notarization that is not final after this many `view_timeout_ms` counts as work.
    pub stuck_view_timeouts: u64,
    /// Votes and proposals further ahead than this are dropped.
    pub future_views_max: u64,
    /// Most certificates above the final view that are kept; see [`crate::Engine`] on what goes first.
    pub certificates_max: usize,
    /// Most own finalize votes that one re-send repeats, the highest first.
    pub finalize_resend_max: usize,
    /// Most peers whose allowances are kept.
    pub peers_max: usize,
    /// Rules to break, for controls that a simulator must find.
    #[cfg(feature = "planted-bugs")]
    pub bugs: Bugs,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            leader_timeout_ms: 400,
            view_timeout_ms: 800,
            idle_interval_ms: 2_000,
            resend_ms: 200,
            block_interval_min_ms: 25,
            timeout_growth_max: 16,
            stuck_view_timeouts: 8,
            future_views_max: 64,
            certificates_max: 1_024,
            finalize_resend_max: 16,
            peers_max: 512,
            #[cfg(feature = "planted-bugs")]
            bugs: Bugs::default(),
        }
    }
}

/// Why limits can't work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A pause or timeout of zero would spin.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// Every view would be given up before its leader is.
    #[error("view_timeout_ms {view_timeout_ms} is below leader_timeout_ms {leader_timeout_ms}")]
    ViewTimeout {
        /// The one.
        view_timeout_ms: u64,
        /// The other.
        leader_timeout_ms: u64,
    },
    /// Leaders would be given up while they hold themselves back.
    #[error("block_interval_min_ms {block_interval_min_ms} is not below leader_timeout_ms {leader_timeout_ms}")]
    BlockInterval {
        /// The one.
        block_interval_min_ms: u64,
        /// The other.
        leader_timeout_ms: u64,
    },
}

impl Config {
    /// Checks that the numbers work together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("leader_timeout_ms", self.leader_timeout_ms),
            ("idle_interval_ms", self.idle_interval_ms),
            ("resend_ms", self.resend_ms),
            ("timeout_growth_max", self.timeout_growth_max),
            ("stuck_view_timeouts", self.stuck_view_timeouts),
            ("future_views_max", self.future_views_max),
            ("certificates_max", self.certificates_max as u64),
            ("finalize_resend_max", self.finalize_resend_max as u64),
            ("peers_max", self.peers_max as u64),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero(name));
        }
        let (view_timeout_ms, leader_timeout_ms) = (self.view_timeout_ms, self.leader_timeout_ms);
        if view_timeout_ms < leader_timeout_ms {
            return Err(ConfigError::ViewTimeout { view_timeout_ms, leader_timeout_ms });
        }
        let block_interval_min_ms = self.block_interval_min_ms;
        if block_interval_min_ms >= leader_timeout_ms {
            return Err(ConfigError::BlockInterval { block_interval_min_ms, leader_timeout_ms });
        }
        Ok(())
    }
}

/// Which rules an engine breaks. Exists in no normal build.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Propose and vote without the nullifications between a block's view and its parent's.
    pub no_gap_check: bool,
    /// Nullify a view after a finalize vote in it, and the other way round. The signer has a switch of the same name.
    pub nullify_and_finalize: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_can_not_work_are_refused() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(Config { resend_ms: 0, ..config.clone() }.check(), Err(ConfigError::Zero("resend_ms")));
        let short = Config { view_timeout_ms: 399, ..config.clone() };
        assert!(matches!(short.check(), Err(ConfigError::ViewTimeout { .. })));
        let slow = Config { block_interval_min_ms: 400, ..config };
        assert!(matches!(slow.check(), Err(ConfigError::BlockInterval { .. })));
    }
}
