//! Work, deadlines, and when to be woken.

use types::{Kind, Statement, Tick};

use crate::effect::NullifyReason;
use crate::engine::Engine;
use crate::leading::Leading;
use crate::slot::{Judging, Own};

impl Engine {
    /// When a notarization counts as stuck.
    fn stuck_at(&self, notarized_at: Tick) -> Tick {
        notarized_at.plus_ms(self.config.view_timeout_ms.saturating_mul(self.config.stuck_view_timeouts))
    }

    fn has_work(&self) -> bool {
        if self.work {
            return true;
        }
        let set = &self.context.set;
        let nullify = Statement::nullify(self.context.chain, set.epoch(), self.view);
        let joined = self.views.get(self.view).is_some_and(|slot| set.is_blocking(slot.tally.weight(set, nullify)));
        joined || self.views.iter().any(|(_, slot)| slot.notarization.is_some() && self.stuck_at(slot.notarized_at) <= self.now)
    }

    /// Notes since when there is work in this view.
    pub(crate) fn work_step(&mut self) {
        if !self.has_work() {
            self.timers.work_since = None;
        } else if self.timers.work_since.is_none() {
            self.timers.work_since = Some(self.now);
        }
    }

    /// Until when a leader may stay silent, and until when there must be a certificate.
    fn deadlines(&self) -> (Option<Tick>, Tick) {
        let start = self.timers.start(&self.config);
        let view_timeout = self.timers.grown(self.config.view_timeout_ms, &self.config);
        let seen = self.views.get(self.view).and_then(|slot| slot.proposal).map(|proposal| proposal.seen_at);
        match seen {
            None => {
                let leader_timeout = self.timers.grown(self.config.leader_timeout_ms, &self.config);
                (Some(start.plus(leader_timeout)), start.plus(view_timeout))
            }
            Some(seen) => (None, seen.max(self.timers.entered).min(start).plus(view_timeout)),
        }
    }

    /// Nullifies a view that took too long. True if the signer was asked.
    pub(crate) fn timeout_step(&mut self) -> bool {
        let (leader, view) = self.deadlines();
        if leader.is_some_and(|deadline| deadline <= self.now) {
            return self.nullify(NullifyReason::LeaderTimeout);
        }
        view <= self.now && self.nullify(NullifyReason::ViewTimeout)
    }

    /// When [`crate::Input::Timeout`] is due, if nothing else happens before. A time that has passed means now.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let mut due: Vec<Tick> = Vec::new();
        due.extend(self.timers.resend_due());
        let fetch = self.timers.fetch_due();
        due.extend(self.propose_at().map(|at| match fetch {
            Some(fetch) if self.leading == Leading::Missing => at.max(fetch),
            _ => at,
        }));
        if self.waits_for_certificates() {
            due.extend(fetch);
        }
        if self.may_nullify() {
            let (leader, view) = self.deadlines();
            due.push(leader.map_or(view, |leader| leader.min(view)));
        }
        if self.me.is_some() && self.timers.work_since.is_none() {
            let notarized = self.views.iter().filter(|(_, slot)| slot.notarization.is_some());
            due.extend(notarized.map(|(_, slot)| self.stuck_at(slot.notarized_at)));
        }
        due.into_iter().min()
    }

    /// Whether the view's proposal waits for certificates.
    fn waits_for_certificates(&self) -> bool {
        let waits = |slot: &crate::slot::Slot| {
            slot.proposal.is_some() && slot.judging == Judging::Open && *slot.own(Kind::Notarize) == Own::Unsaid
        };
        self.me.is_some() && self.views.get(self.view).is_some_and(waits)
    }
}
