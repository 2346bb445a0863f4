//! Tells one half of the network another block, and votes for it there. Some of its second blocks are invalid, some skip a
//! notarized parent: only the gap check keeps those from forking the chain with nobody to convict.

use std::collections::BTreeMap;
use std::sync::Arc;

use types::{Block, BlockHash, Epoch, Hash, Kind, Message, Proposal, Statement, View};

use super::{Adversary, Context, Parcel, as_proposal};

/// Blocks that it remembers.
const BLOCKS_MAX: usize = 256;

/// The second story of one view.
#[derive(Clone)]
struct Other {
    proposal: Arc<Message>,
    statement: Statement,
    original: BlockHash,
    /// Who is told it, by index.
    audience: u64,
}

/// Signs two blocks a view.
pub struct Equivocator {
    second_parent: bool,
    blocks: BTreeMap<BlockHash, Block>,
    others: BTreeMap<(Epoch, View), Other>,
}

impl Equivocator {
    /// With `second_parent` every second block skips the notarized parent, if it can.
    pub fn new(second_parent: bool) -> Equivocator {
        Equivocator { second_parent, blocks: BTreeMap::new(), others: BTreeMap::new() }
    }

    fn remember(&mut self, message: &Message) {
        let block = match message {
            Message::Proposal(proposal) => &proposal.block,
            Message::Block(block) => block,
            _ => return,
        };
        self.blocks.insert(block.hash(), block.clone());
        if self.blocks.len() > BLOCKS_MAX {
            self.blocks.pop_first();
        }
    }

    fn other(&mut self, context: &mut Context<'_>, proposal: &Proposal) -> Other {
        let statement = proposal.head.statement;
        let key = (statement.epoch, statement.view);
        if let Some(other) = self.others.get(&key) {
            return other.clone();
        }
        let mut parent_view = statement.parent_view;
        let mut block = proposal.block.clone();
        block.header.time = block.header.time.next();
        let skip = self.second_parent || context.dice.chance(300);
        if let Some(parent) = self.blocks.get(&block.header.parent).filter(|_| skip) {
            // A brother of the parent: on the grandparent, in the view that notarized that.
            let header = types::Header { time: block.header.time, proposer: block.header.proposer, ..parent.header.clone() };
            let notarization = parent.body.parent_notarization.clone();
            parent_view = notarization.as_ref().map_or(View(0), |notarization| notarization.statement.view);
            block = Block { header, body: types::Body { batches: Vec::new(), parent_notarization: notarization } };
        } else if context.dice.chance(150) {
            block.header.state_root = Hash([7; 32]);
        } else if context.dice.chance(150) {
            block.body.batches.push(types::BatchId(Hash([8; 32])));
        } else if context.dice.chance(300) {
            block.body.batches.clear();
        }
        block.header.body_root = block.body.root();
        let statement = Statement { parent_view, digest: block.hash(), ..statement };
        let head = context.sign(statement);
        self.blocks.insert(block.hash(), block.clone());
        let message = Message::Proposal(Box::new(Proposal { head, block, admitting: proposal.admitting.clone() }));
        let (audience, original) = (context.dice.any(), proposal.head.statement.digest);
        let other = Other { proposal: Arc::new(message), statement, original, audience };
        self.others.insert(key, other.clone());
        if self.others.len() > BLOCKS_MAX {
            self.others.pop_first();
        }
        other
    }
}

impl Adversary for Equivocator {
    fn send(&mut self, context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>) {
        self.remember(&parcel.message);
        if let Some(proposal) = as_proposal(&parcel.message)
            && proposal.head.key == context.key.public()
        {
            let other = self.other(context, proposal);
            if other.audience >> parcel.to & 1 == 0 || context.dice.chance(100) {
                out.push(parcel.clone());
            }
            if other.audience >> parcel.to & 1 == 1 || context.dice.chance(100) {
                out.push(Parcel { message: Arc::clone(&other.proposal), ..parcel });
            }
            return;
        }
        if let Message::Vote(vote) = &*parcel.message {
            let said = vote.signed.statement;
            if let Some(other) = self.others.get(&(said.epoch, said.view))
                && said.digest == other.original
                && other.audience >> parcel.to & 1 == 1
                && said.kind != Kind::Nullify
            {
                let statement = other.statement.with_kind(said.kind);
                out.push(Parcel { message: Arc::new(context.vote(statement)), ..parcel });
                return;
            }
        }
        out.push(parcel);
    }

    fn receive(&mut self, _context: &mut Context<'_>, message: &Message) {
        self.remember(message);
    }

    /// Votes for anything that it has heard of, to anybody.
    fn act(&mut self, context: &mut Context<'_>, out: &mut Vec<Parcel>) {
        let Some(((epoch, view), other)) = self.others.last_key_value() else { return };
        let kind = *context.dice.pick(&[Kind::Notarize, Kind::Nullify, Kind::Finalize]);
        let statement = match kind {
            Kind::Nullify => Statement::nullify(context.chain, *epoch, *view),
            kind => other.statement.with_kind(kind),
        };
        let to = context.dice.below(context.nodes);
        out.push(Parcel::new(to, context.vote(statement)));
    }
}
