//! The ledger as one value.

use std::sync::Arc;

use types::{
    Account, Address, Amount, Batch, Epoch, EpochRecord, Hash, Height, LeafKind, Params, PublicKey, Receipt, SignedTransaction,
    StateKey, StateLeaf, StateValue, Supply, Validator, receipts_root, state_root,
};

use types::merkle::MerklePath;

use crate::error::LedgerError;
use crate::execute::{Ended, SkipReason, Skipped, admit, execute, receipt};
use crate::history::History;
use crate::state::{Before, Change, State, expected};
use crate::tree::Tree;

/// In builds with debug assertions all money is counted again every so many heights.
const AUDIT_INTERVAL: u64 = 64;

/// What one block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The block's height.
    pub height: Height,
    /// One for each transaction that consumed its nonce, in order of execution.
    pub receipts: Vec<Receipt>,
    /// Transactions of the block that consumed nothing, in order of execution.
    pub skipped: Vec<Skipped>,
    /// All leaves that the block made or touched, ascending by index: storage puts them and is at this height.
    pub changes: Vec<Change>,
    /// The state root after it.
    pub state_root: Hash,
}

impl Outcome {
    /// The root over this height's receipts alone.
    pub fn receipts_root(&self) -> Hash {
        receipts_root(&self.receipts)
    }
}

/// A leaf with its path: that a key holds a value, or (leaf of another key, no value) that it is absent.
///
/// With a finality proof of a header that names the height as executed, these are the parts of a [`types::StateProof`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The leaf of the key, or the one that shows its absence.
    pub leaf: StateLeaf,
    /// The value's canonical bytes, if the key is present.
    pub value: Option<Vec<u8>>,
    /// The leaf's path; its count is the state's leaf count.
    pub path: MerklePath,
}

/// The state after a height, with its tree and the recent past.
#[derive(Clone, Debug)]
pub struct Ledger {
    height: Height,
    state: State,
    tree: Tree,
    history: History,
    /// Balances + stake: kept up from the touched leaves, apart from the arithmetic of execution.
    held: u128,
}

impl Ledger {
    /// From a complete state; hashes every leaf once. The caller has checked the supply leaf's presence.
    pub(crate) fn assemble(height: Height, mut state: State) -> Result<Ledger, LedgerError> {
        state.commit();
        let leaves = (0..state.count()).map(|index| leaf_hash(&state, index)).collect();
        let held = state.held();
        let ledger = Ledger { height, state, tree: Tree::build(leaves), history: History::default(), held };
        ledger.check_supply(held)?;
        Ok(ledger)
    }

    /// The last applied height; 0 is genesis.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The state root after [`Ledger::height`].
    pub fn root(&self) -> Hash {
        state_root(u64::from(self.state.count()), &self.tree.root())
    }

    /// The state root after a height: the last, or one of the recent past.
    pub fn root_at(&self, height: Height) -> Option<Hash> {
        if height == self.height { Some(self.root()) } else { self.history.root(height) }
    }

    /// How many leaves the state has.
    pub fn leaf_count(&self) -> u64 {
        u64::from(self.state.count())
    }

    /// The value under a key.
    pub fn get(&self, key: &StateKey) -> Option<StateValue> {
        self.state.get(key).copied()
    }

    /// An account.
    pub fn account(&self, address: &Address) -> Option<Account> {
        let index = self.state.find(&StateKey::account(*address))?;
        self.state.account(index)
    }

    /// The supply.
    pub fn supply(&self) -> Supply {
        self.state.supply().map(|(_, supply)| supply).unwrap_or_default()
    }

    /// The leaf of a key as storage holds it.
    pub fn leaf(&self, key: &StateKey) -> Option<Change> {
        self.state.find(key).map(|index| self.state.change(index))
    }

    /// Whether a block of this height on top of the present state would consume the transaction.
    ///
    /// # Errors
    /// Why it would be skipped.
    pub fn admits(&self, tx: &SignedTransaction, height: Height, params: &Params) -> Result<(), SkipReason> {
        admit(tx, self.account(&tx.transaction.sender.address()).as_ref(), height, params)
    }

    /// The record after the given one: same length, version and parameters, and the validators of the present state.
    pub fn next_epoch(&self, record: &EpochRecord) -> EpochRecord {
        let validators = self.state.of_kind(LeafKind::Validator).filter_map(|(key, value)| match value {
            StateValue::Validator(state) if state.stake.0 > 0 => Some(Validator { key: PublicKey(key.key.0), weight: state.stake }),
            _ => None,
        });
        EpochRecord {
            epoch: record.epoch.next(),
            first_height: record.last_height().next(),
            length: record.length,
            version: record.version,
            params: record.params.clone(),
            validators: validators.collect(),
        }
    }

    /// Applies a final block's batches in their order. `record` is the epoch that holds the height; its parameters decide.
    ///
    /// Cost: about 1 µs a transaction for its id, and a few µs for each touched leaf.
    ///
    /// # Errors
    /// [`LedgerError`]; the ledger is then unchanged.
    pub fn apply(&mut self, height: Height, record: &EpochRecord, batches: &[Arc<Batch>]) -> Result<Outcome, LedgerError> {
        if height != self.height.next() {
            return Err(LedgerError::Height { executed: self.height, actual: height });
        }
        if !record.contains(height) {
            return Err(LedgerError::Epoch { epoch: record.epoch, height });
        }
        // The root counts leaves, so it must be taken before the block appends some.
        let (old_height, old_root) = (self.height, self.root());
        let executed = self.run(height, record, batches).and_then(|ended| self.settle().map(|held| (ended, held)));
        let ((receipts, skipped), held) = match executed {
            Ok(done) => done,
            Err(error) => {
                self.state.revert();
                return Err(error);
            }
        };
        let touched = self.state.touched();
        let (count, before) = self.state.commit();
        self.history.push(old_height, old_root, count, before);
        let leaves: Vec<(u32, Hash)> = touched.iter().map(|&index| (index, leaf_hash(&self.state, index))).collect();
        self.tree.update(&leaves);
        (self.height, self.held) = (height, held);
        debug_assert!(!height.0.is_multiple_of(AUDIT_INTERVAL) || self.audit().is_ok());
        let changes = touched.iter().map(|&index| self.state.change(index)).collect();
        Ok(Outcome { height, receipts, skipped, changes, state_root: self.root() })
    }

    /// Executes without ending the block.
    fn run(
        &mut self,
        height: Height,
        record: &EpochRecord,
        batches: &[Arc<Batch>],
    ) -> Result<(Vec<Receipt>, Vec<Skipped>), LedgerError> {
        // Genesis wrote the hashes of epochs 0 and 1.
        if height == record.first_height && record.epoch > Epoch(0) {
            let next = self.next_epoch(record);
            let key = StateKey::epoch(next.epoch.0);
            self.state.append(key, StateValue::Epoch(next.hash())).ok_or(LedgerError::Full)?;
        }
        let (mut receipts, mut skipped, mut burned) = (Vec::new(), Vec::new(), 0u64);
        for tx in batches.iter().flat_map(|batch| &batch.transactions) {
            match execute(&mut self.state, tx, height, &record.params) {
                Ended::Receipt(result, fee) => {
                    // Fees come out of balances, whose sum fits a u64 by the supply invariant.
                    burned = burned.saturating_add(fee.0);
                    receipts.push(receipt(height, receipts.len(), tx.id(), result, fee));
                }
                Ended::Skip(reason) => skipped.push(Skipped { id: tx.id(), reason }),
                Ended::Full => return Err(LedgerError::Full),
            }
        }
        if burned > 0
            && let Some((index, supply)) = self.state.supply()
        {
            let burned = Amount(supply.burned.0.saturating_add(burned));
            self.state.set(index, StateValue::Supply(Supply { burned, ..supply }));
        }
        Ok((receipts, skipped))
    }

    /// What is held after the block, if the supply invariant stands.
    fn settle(&self) -> Result<u128, LedgerError> {
        let (was, is) = self.state.money_moved();
        let held = (self.held + is).checked_sub(was).ok_or(LedgerError::Supply { held: self.held + is, made: was })?;
        self.check_supply(held)?;
        Ok(held)
    }

    fn check_supply(&self, held: u128) -> Result<(), LedgerError> {
        let (made, burned) = expected(&self.supply());
        if held + burned == made { Ok(()) } else { Err(LedgerError::Supply { held: held + burned, made }) }
    }

    /// Counts all money again and compares it with the supply. Cost: all leaves.
    ///
    /// # Errors
    /// [`LedgerError::Supply`].
    pub fn audit(&self) -> Result<(), LedgerError> {
        self.check_supply(self.state.held())
    }

    /// The lowest height that [`Ledger::prove_at`] can prove.
    pub fn oldest_provable(&self) -> Height {
        self.history.oldest().unwrap_or(self.height)
    }

    /// Proves what stood under a key after a height, or that nothing did; `None` for a height not applied yet or too old.
    ///
    /// Cost: of the last height a look-up; of an older one about ten hashes for each leaf overwritten since.
    pub fn prove_at(&self, height: Height, key: &StateKey) -> Option<Proof> {
        let (count, old) =
            if height == self.height { (self.state.count(), Default::default()) } else { self.history.differences(height)? };
        let then = |index: u32| -> (u32, StateValue) {
            match old.get(&index) {
                Some(before) => (before.next, before.value),
                None => (self.state.slot(index).next, self.state.slot(index).value),
            }
        };
        let present = self.state.find(key).filter(|index| *index < count);
        let index = present.or_else(|| self.state.predecessor(key, count))?;
        let (next, value) = then(index);
        let leaf = self.state.leaf(index, next, &value);
        let hash = |before: &Before| self.state.leaf(before.index, before.next, &before.value).leaf();
        let old: Vec<(u32, Hash)> = old.values().map(|before| (before.index, hash(before))).collect();
        let siblings = self.tree.siblings_before(index, count, &old);
        let path = MerklePath { index: u64::from(index), count: u64::from(count), siblings };
        Some(Proof { leaf, value: present.map(|_| value.to_bytes()), path })
    }
}

fn leaf_hash(state: &State, index: u32) -> Hash {
    let slot = state.slot(index);
    state.leaf(index, slot.next, &slot.value).leaf()
}
