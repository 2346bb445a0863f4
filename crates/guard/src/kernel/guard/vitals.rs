//! What a scrape wants to know, gathered in one go: loads from mapped memory, lengths of lists, a dozen words of the control array.

use super::Guard;
use crate::{
    protocol::{BudgetInfo, Stats},
    reader::Count,
};
use kernel_shared::{Reason, abi::FlowClass, control::WORD_ENFORCE_DEADLINE};
use types::Offence;

/// A guard's state at one moment. Nothing in it is per address or per peer.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Mode, names, histograms, lengths; without rows.
    pub stats: Stats,
    /// Packets and bytes that ended with each reason.
    pub ended: Vec<(Reason, Count)>,
    /// Packets and bytes that `enforce` would have dropped, by reason.
    pub would_drop: Vec<(Reason, Count)>,
    /// Bans in force, by offence.
    pub bans: Vec<(Offence, u64)>,
    /// Flows announced, by class.
    pub flows: Vec<(FlowClass, u64)>,
    /// Budgets of strangers.
    pub budgets: Vec<BudgetInfo>,
    /// Whether `enforce` runs on trial.
    pub trial: bool,
}

impl Guard {
    /// Gathers them. No system call per ban or per flow.
    pub fn vitals(&self) -> Result<Vitals, String> {
        let told = |error: super::TableError| error.to_string();
        let would = Reason::ALL.into_iter().filter(|reason| reason.is_drop() || *reason == Reason::Unreadable);
        Ok(Vitals {
            stats: self.stats(false).map_err(|refusal| refusal.message)?,
            ended: Reason::ALL.into_iter().map(|reason| (reason, self.counters.reason(reason))).collect(),
            would_drop: would.map(|reason| (reason, self.counters.would_drop(reason))).collect(),
            bans: self.bans.by_offence(),
            flows: self.flows.by_class(),
            budgets: super::budgets::list(&self.tables, &self.clock).map_err(told)?,
            trial: self.tables.control(WORD_ENFORCE_DEADLINE).map_err(told)? != 0,
        })
    }
}
