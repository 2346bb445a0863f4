//! The engine as one value.

use std::collections::VecDeque;

use types::{BlockHash, Certificate, ChainId, Height, PublicKey, SignedStatement, Tick, ValidatorSet, View};

use crate::config::Config;
use crate::effect::Effect;
use crate::input::{BlockMeta, Input};

/// The epoch that an engine works in.
#[derive(Clone, Debug)]
pub struct Context {
    /// The chain.
    pub chain: ChainId,
    /// The epoch's validators.
    pub set: ValidatorSet,
    /// The last block of the epoch before, or the genesis hash: the parent at view 0.
    pub base: BlockHash,
    /// Its height.
    pub base_height: Height,
    /// The epoch's last height.
    pub last_height: Height,
    /// What admits to view 1: the finality certificate of the base; none in epoch 0.
    pub admitting: Option<Certificate>,
}

/// What a node said earlier in the epoch, from its signer's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnVote {
    /// The statement.
    pub signed: SignedStatement,
    /// Its block, if the record of a proposal has it.
    pub block: Option<BlockMeta>,
}

/// What survived a restart. Empty for a new epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The highest finality certificate of the epoch that storage has.
    pub finality: Option<Certificate>,
    /// Journaled certificates; those of other epochs are ignored.
    pub certificates: Vec<Certificate>,
    /// Own statements; those of other epochs are ignored.
    pub votes: Vec<OwnVote>,
}

/// One epoch of one node.
#[derive(Clone, Debug)]
pub struct Engine {
    effects: VecDeque<Effect>,
    view: View,
    context: Context,
}

impl Engine {
    /// Begins an epoch, or goes on with it. `me` is the node's validator key, if it has one; without a seat in the set the engine follows
    /// and never signs. Effects are waiting afterwards.
    pub fn new(_config: Config, context: Context, _me: Option<PublicKey>, _recovered: Recovered, _now: Tick) -> Engine {
        Engine { effects: VecDeque::new(), view: View(1), context }
    }

    /// Takes in one input. `now` never goes back.
    pub fn handle(&mut self, _input: Input, _now: Tick) {}

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    /// The current view.
    pub fn view(&self) -> View {
        self.view
    }

    /// The highest final view; 0 at the epoch's base.
    pub fn final_view(&self) -> View {
        View(0)
    }

    /// The certificate of the final view.
    pub fn finality(&self) -> Option<&Certificate> {
        None
    }

    /// Who leads a view.
    pub fn leader(&self, view: View) -> PublicKey {
        let seat = self.context.set.leader(&self.context.chain, view);
        self.context.set.get(seat).map_or(PublicKey([0; 32]), |validator| validator.key)
    }

    /// The notarization of the highest notarized view above the final one.
    pub fn highest_notarization(&self) -> Option<&Certificate> {
        None
    }
}
