//! What final headers say about execution, held against the own one.
//!
//! A header names a height that was executed, the state root after it and the root over the receipts since the parent's. A
//! quorum vouched for a final header: if the own execution says otherwise, one of the two is broken, and the node stops.

use std::collections::{BTreeMap, VecDeque};

use types::{Hash, Header, Height, Receipt, merkle};

use crate::effect::Fatal;

/// What one final header says.
#[derive(Clone, Copy, Debug)]
struct Claim {
    header: Height,
    /// Receipts of the heights above this one…
    above: Height,
    /// …up to this one.
    executed: Height,
    state_root: Hash,
    receipts_root: Hash,
}

/// What the own execution says of a height.
#[derive(Clone, Debug)]
struct Own {
    state_root: Hash,
    receipts: Vec<Hash>,
}

/// Final headers' claims that are above the own execution, and own facts that no final header has named yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    open: VecDeque<Claim>,
    own: BTreeMap<Height, Own>,
    executed: Height,
    /// The height at which the ledger was when this life began.
    restored: Height,
}

impl Claims {
    /// `executed` is the ledger's height.
    pub(crate) fn new(executed: Height) -> Claims {
        Claims { executed, restored: executed, ..Claims::default() }
    }

    /// An own fact from storage.
    pub(crate) fn restore(&mut self, height: Height, state_root: Hash, receipts: &[Receipt]) {
        self.own.insert(height, Own { state_root, receipts: receipts.iter().map(Receipt::leaf).collect() });
    }

    /// A stored final header whose claim is above the own execution.
    pub(crate) fn restore_claim(&mut self, header: &Header, parent_executed: Height) {
        self.open.push_back(Claim {
            header: header.height,
            above: parent_executed,
            executed: header.executed,
            state_root: header.state_root,
            receipts_root: header.receipts_root,
        });
    }

    /// Notes a final header; `parent_executed` is what its parent names.
    pub(crate) fn finalized(&mut self, header: &Header, parent_executed: Height) -> Result<(), Fatal> {
        if header.executed > parent_executed {
            self.restore_claim(header, parent_executed);
        }
        self.check()
    }

    /// Notes an own execution.
    pub(crate) fn executed(&mut self, height: Height, state_root: Hash, receipts: &[Receipt]) -> Result<(), Fatal> {
        self.executed = self.executed.max(height);
        self.restore(height, state_root, receipts);
        self.check()
    }

    fn check(&mut self) -> Result<(), Fatal> {
        while let Some(claim) = self.open.front().copied()
            && claim.executed <= self.executed
        {
            self.open.pop_front();
            let agrees = self.agrees(&claim);
            self.own = self.own.split_off(&claim.executed.next());
            if !agrees {
                return Err(Fatal::Contradiction { height: claim.header, executed: claim.executed });
            }
        }
        Ok(())
    }

    fn agrees(&self, claim: &Claim) -> bool {
        let Some(own) = self.own.get(&claim.executed) else { return false };
        if own.state_root != claim.state_root {
            return false;
        }
        let range = self.own.range(claim.above.next()..=claim.executed);
        let known = range.clone().count() as u64;
        if known < claim.executed.since(claim.above) {
            // Receipts of an earlier life that storage did not hand over; the state root stands for them.
            return claim.above < self.restored;
        }
        let leaves = range.flat_map(|(_, own)| own.receipts.iter().copied()).collect();
        merkle::root(leaves) == claim.receipts_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Amount, BlockHash, ChainId, Epoch, PublicKey, TxId, TxResult, UnixMs, receipts_root};

    fn header(height: u64, executed: u64, root: u8, receipts: Hash) -> Header {
        Header {
            version: 1,
            chain: ChainId::default(),
            epoch: Epoch(0),
            height: Height(height),
            parent: BlockHash::default(),
            time: UnixMs(0),
            proposer: PublicKey([0; 32]),
            body_root: Hash::ZERO,
            executed: Height(executed),
            state_root: Hash([root; 32]),
            receipts_root: receipts,
            epoch_hash: Hash::ZERO,
            next_epoch_hash: Hash::ZERO,
        }
    }

    fn receipt(height: u64) -> Receipt {
        Receipt { height: Height(height), index: 0, id: TxId::default(), result: TxResult::Success, fee: Amount(1) }
    }

    #[test]
    fn agreement_in_either_order() {
        let both = receipts_root(&[receipt(1), receipt(2)]);
        let mut ahead = Claims::new(Height(0));
        ahead.executed(Height(1), Hash([1; 32]), &[receipt(1)]).unwrap();
        ahead.executed(Height(2), Hash([2; 32]), &[receipt(2)]).unwrap();
        ahead.finalized(&header(3, 2, 2, both), Height(0)).unwrap();
        assert!(ahead.own.is_empty());
        let mut behind = Claims::new(Height(0));
        behind.finalized(&header(3, 2, 2, both), Height(0)).unwrap();
        behind.executed(Height(1), Hash([1; 32]), &[receipt(1)]).unwrap();
        behind.executed(Height(2), Hash([2; 32]), &[receipt(2)]).unwrap();
        assert!(behind.open.is_empty() && behind.own.is_empty());
    }

    #[test]
    fn an_earlier_life_is_forgiven_its_receipts_only() {
        let lost = receipts_root(&[receipt(1), receipt(2)]);
        for (root, agrees) in [(2, true), (9, false)] {
            let mut claims = Claims::new(Height(1));
            claims.restore_claim(&header(3, 2, root, lost), Height(0));
            assert_eq!(claims.executed(Height(2), Hash([2; 32]), &[receipt(2)]).is_ok(), agrees);
        }
        let mut same_life = Claims::new(Height(0));
        same_life.restore_claim(&header(3, 2, 2, lost), Height(0));
        assert!(same_life.executed(Height(2), Hash([2; 32]), &[receipt(2)]).is_err());
    }

    #[test]
    fn contradiction_stops() {
        for (root, receipts) in [(9, receipts_root(&[receipt(1)])), (1, receipts_root(&[]))] {
            let mut claims = Claims::new(Height(0));
            claims.executed(Height(1), Hash([1; 32]), &[receipt(1)]).unwrap();
            let fatal = claims.finalized(&header(2, 1, root, receipts), Height(0));
            assert_eq!(fatal, Err(Fatal::Contradiction { height: Height(2), executed: Height(1) }));
        }
    }
}
