//! The replica as one value.

use std::collections::VecDeque;
use std::marker::PhantomData;

use types::{Epoch, Height, Tick, UnixMs, View};

use crate::boot::{Boot, BootError};
use crate::config::Config;
use crate::effect::Effect;
use crate::input::Input;

/// One node's part in the protocol.
#[derive(Debug)]
pub struct Replica<D> {
    effects: VecDeque<Effect>,
    ledger: ledger::Ledger,
    disk: PhantomData<D>,
}

/// Where a replica stands, for its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its view.
    pub view: View,
    /// Its highest final view in this epoch.
    pub final_view: View,
    /// Its final height.
    pub height: Height,
    /// Its executed height.
    pub executed: Height,
    /// The highest height that a peer claims, if above its own.
    pub goal: Option<Height>,
    /// Whether it signs in this epoch.
    pub validator: bool,
}

impl<D> Replica<D> {
    /// Starts from what storage holds. Effects are waiting afterwards.
    ///
    /// # Errors
    /// [`BootError`].
    pub fn new(_config: Config, boot: Boot, _now: Tick, _unix: UnixMs) -> Result<Replica<D>, BootError> {
        Ok(Replica { effects: VecDeque::new(), ledger: boot.ledger, disk: PhantomData })
    }

    /// Takes in one input.
    pub fn handle(&mut self, _input: Input, _now: Tick, _unix: UnixMs) {}

    /// The next effect, to be carried out before the next input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }

    /// The state as executed.
    pub fn ledger(&self) -> &ledger::Ledger {
        &self.ledger
    }
}
