//! Ways to lie, one file each. An adversary runs an honest replica under a key that it holds, and bends what goes out.

mod batch_spammer;
mod batch_withholder;
mod equivocator;
mod private_voter;
mod silent;
pub mod twin;

use std::collections::BTreeSet;
use std::sync::Arc;

use types::{AccountKey, ChainId, EpochRecord, Message, Proposal, SignedStatement, Statement, Vote};

use crate::dice::Dice;
use crate::plan::Vice;

/// A message on its way to a validator or follower.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Index of the node.
    pub to: usize,
    /// What it gets.
    pub message: Arc<Message>,
    /// Held back so long, ms.
    pub delay_ms: u64,
}

impl Parcel {
    /// To one node, at once.
    pub fn new(to: usize, message: Message) -> Parcel {
        Parcel { to, message: Arc::new(message), delay_ms: 0 }
    }
}

/// What an adversary has to work with.
pub struct Context<'a> {
    /// Chance.
    pub dice: &'a mut Dice,
    /// Its validator key.
    pub key: &'a AccountKey,
    /// Its own index.
    pub me: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// The chain.
    pub chain: ChainId,
    /// The record of its replica's epoch.
    pub epoch: EpochRecord,
    /// Its replica's final height.
    pub height: types::Height,
}

impl Context<'_> {
    /// Signs anything.
    pub fn sign(&self, statement: Statement) -> SignedStatement {
        SignedStatement { statement, key: self.key.public(), signature: self.key.sign(&statement.signing_bytes()) }
    }

    /// A vote without its certificate.
    pub fn vote(&self, statement: Statement) -> Message {
        Message::Vote(Box::new(Vote { signed: self.sign(statement), certificate: None }))
    }
}

/// One way to lie.
pub trait Adversary {
    /// What goes out instead of a parcel.
    fn send(&mut self, context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>);

    /// Something came in; its replica sees it in any case.
    fn receive(&mut self, _context: &mut Context<'_>, _message: &Message) {}

    /// A chance to act unasked.
    fn act(&mut self, _context: &mut Context<'_>, _out: &mut Vec<Parcel>) {}
}

/// The adversaries of some vices. A twin is two machines, made by the world.
pub fn make(vices: &BTreeSet<Vice>, second_parent: bool, dice: &mut Dice) -> Vec<Box<dyn Adversary>> {
    let mut all: Vec<Box<dyn Adversary>> = Vec::new();
    for vice in vices {
        match vice {
            Vice::Silent => all.push(Box::new(silent::Silent::new(dice))),
            Vice::Equivocator => all.push(Box::new(equivocator::Equivocator::new(second_parent))),
            Vice::PrivateVoter => all.push(Box::new(private_voter::PrivateVoter)),
            Vice::BatchWithholder => all.push(Box::new(batch_withholder::BatchWithholder::new(dice))),
            Vice::BatchSpammer => all.push(Box::new(batch_spammer::BatchSpammer::default())),
            Vice::Twin => {}
        }
    }
    all
}

/// A proposal's parts.
fn as_proposal(message: &Message) -> Option<&Proposal> {
    if let Message::Proposal(proposal) = message { Some(proposal) } else { None }
}
