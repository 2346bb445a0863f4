//! What this node's own execution says about recent heights: the facts against which headers are built and judged.

use std::collections::BTreeMap;

use ledger::Outcome;
use types::{Hash, Height, Receipt, merkle};

/// One executed height.
#[derive(Clone, Debug)]
struct Fact {
    state_root: Option<Hash>,
    receipts: Vec<Hash>,
    /// Whether its block cites batches.
    nonempty: bool,
}

/// State roots and receipts of the heights above the final tip's `executed`.
///
/// Bounded by the chain's own rule: only `LAG_MAX` of these heights can have batches, hence receipts; an empty one costs about
/// 100 bytes.
#[derive(Clone, Debug, Default)]
pub struct ExecutedRoots {
    facts: BTreeMap<Height, Fact>,
    highest: Height,
}

impl ExecutedRoots {
    /// The highest executed height.
    pub fn highest(&self) -> Height {
        self.highest
    }

    pub(crate) fn start(height: Height) -> ExecutedRoots {
        ExecutedRoots { facts: BTreeMap::new(), highest: height }
    }

    pub(crate) fn restore(&mut self, height: Height, state_root: Option<Hash>, receipts: &[Receipt], nonempty: bool) {
        let receipts = receipts.iter().map(Receipt::leaf).collect();
        self.facts.insert(height, Fact { state_root, receipts, nonempty });
        self.highest = self.highest.max(height);
    }

    pub(crate) fn push(&mut self, outcome: &Outcome, nonempty: bool) {
        self.restore(outcome.height, Some(outcome.state_root), &outcome.receipts, nonempty);
    }

    /// Forgets heights up to the final tip's `executed`: every coming header names at least that.
    pub(crate) fn prune(&mut self, executed: Height) {
        self.facts = self.facts.split_off(&executed.next());
    }

    /// The state root after a height, if it was executed here and is recent.
    pub fn state_root(&self, height: Height) -> Option<Hash> {
        self.facts.get(&height)?.state_root
    }

    /// The root over the receipts of the heights above `from` up to `to`; `None` if any of them is not known here.
    pub fn receipts_root(&self, from: Height, to: Height) -> Option<Hash> {
        let mut leaves = Vec::new();
        let mut expected = from.next();
        for (height, fact) in self.facts.range(from.next()..=to) {
            if *height != expected {
                return None;
            }
            leaves.extend_from_slice(&fact.receipts);
            expected = height.next();
        }
        (expected == to.next()).then(|| merkle::root(leaves))
    }

    /// Whether a block above this height that cites batches was executed.
    pub(crate) fn any_nonempty_above(&self, height: Height) -> bool {
        self.facts.range(height.next()..).any(|(_, fact)| fact.nonempty)
    }
}
