//! Budgets of strangers: their defaults, and their way into the control array and back.

use super::{
    clock::Clock,
    flows::Budget as Rate,
    tables::{TableError, Tables},
};
use crate::protocol::{BUDGET_BURST_MAX, BUDGET_RATE_MAX, BudgetInfo};
use kernel_shared::{bucket::UNITS, control::Limit, strangers::Budget};

/// Packets a second and at once: far above what an honest peer sends before it has a flow (a handshake is a handful of packets), and above
/// what a peer needs on a port whose owner announces no flows; far below what floods the stack.
pub const fn default(budget: Budget) -> Rate {
    let (rate, burst) = match budget {
        Budget::SynSource | Budget::InitialSource => (100, 200),
        Budget::SynPrefix | Budget::InitialPrefix => (500, 1_000),
        Budget::UdpSource | Budget::TcpSource => (20_000, 40_000),
        Budget::UdpPrefix | Budget::TcpPrefix => (50_000, 100_000),
        // A node answers the first flight of a QUIC connection in 140 µs of CPU (docs/guide/figures.md): a quarter of a core at most.
        Budget::Handshakes => (2_000, 4_000),
        Budget::Rest => (200_000, 200_000),
        Budget::ValidatorHandshakes => (200, 400),
        Budget::ValidatorRest => (20_000, 40_000),
        Budget::Validators => (1_000_000, 500_000),
        Budget::ValidatorLeast => (5_000, 10_000),
    };
    Rate { rate, burst }
}

/// Whether a rate and a burst can be written; if not, why.
pub fn refusal(rate: u32, burst: u32) -> Option<String> {
    if rate > BUDGET_RATE_MAX {
        return Some(format!("a budget is at most {BUDGET_RATE_MAX} packets a second"));
    }
    if burst > BUDGET_BURST_MAX {
        return Some(format!("a budget holds at most {BUDGET_BURST_MAX} packets"));
    }
    if rate == 0 && burst != 0 {
        return Some("a budget that never refills would shut everybody out: burst 0 means no limit".to_string());
    }
    None
}

/// Writes a budget; it holds from the next packet on. A burst of 0 is no limit.
pub fn write(tables: &Tables, clock: &Clock, budget: Budget, Rate { rate, burst }: Rate) -> Result<(), TableError> {
    tables.set_control(budget.word(), limit(clock, Rate { rate, burst }).word())
}

/// A budget as the kernel reads it.
pub fn limit(clock: &Clock, Rate { rate, burst }: Rate) -> Limit {
    if burst == 0 { Limit::NONE } else { Limit::new(clock.rate(rate), burst.saturating_mul(UNITS as u32)) }
}

/// All budgets, as they stand in the kernel.
pub fn list(tables: &Tables, clock: &Clock) -> Result<Vec<BudgetInfo>, TableError> {
    let info = |budget: Budget| {
        let limit = Limit::from_word(tables.control(budget.word())?);
        let rate = clock.packets_per_second(limit.rate());
        Ok(BudgetInfo { name: budget.as_str().to_string(), rate, burst: limit.burst() / UNITS as u32 })
    };
    Budget::ALL.into_iter().map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_can_be_written_and_prefixes_hold_more_than_addresses() {
        for budget in Budget::ALL {
            let Rate { rate, burst } = default(budget);
            assert!(refusal(rate, burst).is_none() && burst > 0, "{}", budget.as_str());
        }
        for (source, prefix) in [(Budget::SynSource, Budget::SynPrefix), (Budget::TcpSource, Budget::TcpPrefix)] {
            assert!(default(source).rate < default(prefix).rate);
        }
    }

    #[test]
    fn what_would_shut_everybody_out_is_refused() {
        assert!(refusal(0, 1).is_some());
        assert!(refusal(0, 0).is_none());
        assert!(refusal(BUDGET_RATE_MAX + 1, 1).is_some() && refusal(1, BUDGET_BURST_MAX + 1).is_some());
    }
}
