//! A budget that is smaller for a while: what a node asks for in a flood of handshakes. The budget that it had is kept in the kernel
//! beside it, so a guard that died meanwhile gives it back when it starts again, and no node has to live for it to end.

use super::{
    budgets,
    clock::Clock,
    flows::Budget as Rate,
    tables::{TableError, Tables},
};
use crate::protocol::SQUEEZE_RATE_MIN;
use kernel_shared::{
    control::{Limit, WORD_SHARES},
    strangers::Budget,
};

/// The budget as it was.
const WORD_SAVED: u32 = 20;
/// The last tick of the smaller one.
const WORD_UNTIL: u32 = 21;
/// Which budget, plus one; 0 = none.
const WORD_WHICH: u32 = 22;
const _: () = assert!(WORD_SAVED > Budget::ValidatorRest.word() && WORD_WHICH < WORD_SHARES);

/// Why a budget is not made smaller.
#[derive(Debug, thiserror::Error)]
pub enum SqueezeError {
    /// One at a time.
    #[error("budget {0} is smaller for a while already: one at a time")]
    Other(&'static str),
    /// It would shut everybody out.
    #[error("a budget for a while is at least {SQUEEZE_RATE_MIN} packets, a second and at once")]
    TooSmall,
    /// A map.
    #[error(transparent)]
    Table(#[from] TableError),
}

fn which(tables: &Tables) -> Result<Option<Budget>, TableError> {
    let index = tables.control(WORD_WHICH)?;
    Ok(index.checked_sub(1).and_then(|index| Budget::ALL.get(usize::try_from(index).ok()?).copied()))
}

/// Makes a budget smaller until a tick; again: moves its end. One that is as small already stays as it is. Whether it is smaller now.
pub fn begin(tables: &Tables, clock: &Clock, budget: Budget, value: Rate, until: u64) -> Result<bool, SqueezeError> {
    if value.rate < SQUEEZE_RATE_MIN || value.burst < SQUEEZE_RATE_MIN {
        return Err(SqueezeError::TooSmall);
    }
    let limit = budgets::limit(clock, value);
    match which(tables)? {
        Some(other) if other != budget => return Err(SqueezeError::Other(other.as_str())),
        Some(_) => {}
        None => {
            let now = tables.control(budget.word())?;
            let present = Limit::from_word(now);
            if present.burst() != 0 && present.rate() <= limit.rate() {
                return Ok(false);
            }
            // In this order: whoever reads `which` after a crash finds what belongs to it.
            tables.set_control(WORD_SAVED, now)?;
            tables.set_control(WORD_UNTIL, until)?;
            tables.set_control(WORD_WHICH, budget as u64 + 1)?;
        }
    }
    tables.set_control(WORD_UNTIL, until)?;
    tables.set_control(budget.word(), limit.word())?;
    Ok(true)
}

/// Gives a budget back whose time is over.
pub fn expire(tables: &Tables, now: u64) -> Result<(), TableError> {
    if which(tables)?.is_some() && now > tables.control(WORD_UNTIL)? { end(tables) } else { Ok(()) }
}

/// Gives the budget back now: on the guard's start and end, since nobody would do it in between.
pub fn end(tables: &Tables) -> Result<(), TableError> {
    if let Some(budget) = which(tables)? {
        tables.set_control(budget.word(), tables.control(WORD_SAVED)?)?;
        tables.set_control(WORD_WHICH, 0)?;
        tracing::info!(budget = budget.as_str(), "budget given back");
    }
    Ok(())
}

/// A budget gets another value for good: there is nothing to give back any more.
pub fn forget(tables: &Tables, budget: Budget) -> Result<(), TableError> {
    if which(tables)? == Some(budget) { tables.set_control(WORD_WHICH, 0) } else { Ok(()) }
}
