//! The last final blocks, for peers that ask and for an epoch's last block that is proposed again.

use std::collections::VecDeque;
use std::sync::Arc;

use types::{Block, BlockHash};

/// How many are kept in memory; older ones are storage's.
const RECENT_MAX: usize = 64;

/// A ring of final blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    blocks: VecDeque<(BlockHash, Arc<Block>)>,
}

impl Recent {
    pub(crate) fn push(&mut self, block: Arc<Block>) {
        self.blocks.push_back((block.hash(), block));
        if self.blocks.len() > RECENT_MAX {
            self.blocks.pop_front();
        }
    }

    pub(crate) fn get(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.blocks.iter().rev().find(|(known, _)| known == hash).map(|(_, block)| block)
    }
}
