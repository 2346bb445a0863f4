//! Leading a view: when to propose, on what.

use types::{Kind, Message, Statement, Tick, View};

use crate::effect::{Effect, Target};
use crate::engine::Engine;
use crate::input::BlockMeta;
use crate::input::Verdict;
use crate::slot::{Judging, Own, Proposed};
use crate::views::Parent;

/// How far the leader of the current view is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leading {
    /// Nothing was asked for.
    #[default]
    Idle,
    /// The shell builds on this parent.
    Building(Parent),
    /// Too early after the parent, or there was nothing to propose: not before then.
    Again(Tick),
    /// A certificate is missing between the parent and the view.
    Missing,
    /// Built; the signer was asked.
    Built(BlockMeta),
}

impl Engine {
    fn leads(&self) -> bool {
        self.me.is_some_and(|(key, _)| key == self.leader(self.view))
    }

    /// When this node may propose, if it leads the view and has not proposed or given up.
    pub(crate) fn propose_at(&self) -> Option<Tick> {
        if !self.leads() {
            return None;
        }
        if let Some(slot) = self.views.get(self.view)
            && (*slot.own(Kind::Propose) != Own::Unsaid || slot.own(Kind::Nullify).is_said())
        {
            return None;
        }
        match self.leading {
            Leading::Idle | Leading::Missing => Some(self.timers.start(&self.config)),
            Leading::Again(at) => Some(at.max(self.timers.start(&self.config))),
            Leading::Building(_) | Leading::Built(_) => None,
        }
    }

    /// The pacing floor: a while after the parent's proposal was seen.
    fn paced(&self, parent: &Parent) -> Tick {
        parent.seen_at.map_or(Tick(0), |seen| seen.plus_ms(self.config.block_interval_min_ms))
    }

    pub(crate) fn lead_step(&mut self) {
        if self.propose_at().is_none_or(|at| at > self.now) {
            return;
        }
        match self.views.parent(self.view, self.checks_gaps()) {
            Ok(parent) if self.paced(&parent) > self.now => self.leading = Leading::Again(self.paced(&parent)),
            Ok(parent) => {
                self.timers.fetched();
                let Parent { view: parent_view, digest, notarization, .. } = parent.clone();
                self.leading = Leading::Building(parent);
                self.emit(Effect::Build { view: self.view, parent_view, parent: digest, notarization });
            }
            Err(missing) => {
                // Anybody may have it.
                if self.timers.may_fetch(self.now, &self.config) {
                    let epoch = self.context.set.epoch();
                    let message = Message::FetchCertificate { epoch, view: missing.view, kind: missing.kind };
                    self.send(Target::Validators, message);
                }
                self.leading = Leading::Missing;
            }
        }
    }

    pub(crate) fn on_built(&mut self, view: View, block: Option<BlockMeta>) {
        if view != self.view {
            return;
        }
        let Leading::Building(parent) = &self.leading else { return };
        let parent = parent.clone();
        if parent.view < self.final_view() {
            // A higher block became final meanwhile.
            self.leading = Leading::Idle;
            return;
        }
        let fits = |block: &BlockMeta| self.follows(block, parent.view, &parent.digest);
        let Some(block) = block.filter(fits) else {
            self.leading = Leading::Again(self.now.plus_ms(self.config.resend_ms));
            return;
        };
        let said = self.views.get(view).is_some_and(|slot| {
            *slot.own(Kind::Propose) != Own::Unsaid || slot.own(Kind::Nullify).is_said() || slot.proposal.is_some()
        });
        self.leading = Leading::Built(block);
        if !said {
            self.ask(Statement {
                chain: self.context.chain,
                epoch: self.context.set.epoch(),
                view,
                kind: Kind::Propose,
                parent_view: parent.view,
                digest: block.digest,
            });
        }
    }

    /// Whether a block may follow a parent: one height above it within the epoch, or the epoch's last block after itself.
    pub(crate) fn follows(&self, block: &BlockMeta, parent_view: View, parent: &types::BlockHash) -> bool {
        if block.digest == *parent {
            return parent_view > View(0) && block.height == self.context.last_height;
        }
        let first = parent_view > View(0) || block.height == self.context.base_height.next();
        block.parent == *parent && first && block.height > self.context.base_height && block.height <= self.context.last_height
    }

    /// The own proposal is signed: it is what this node judged valid by building it.
    pub(crate) fn proposed(&mut self, head: types::SignedStatement) {
        let view = head.statement.view;
        let Leading::Built(block) = self.leading else { return };
        if view != self.view || block.digest != head.statement.digest {
            return;
        }
        let seen_at = self.now;
        let slot = self.views.slot(view);
        slot.proposal = Some(Proposed { head, block, seen_at });
        slot.judging = Judging::Done(Verdict::Valid);
        let admitting = self.admitting.clone();
        self.emit(Effect::SendProposal { to: Target::Validators, head, admitting });
    }
}
