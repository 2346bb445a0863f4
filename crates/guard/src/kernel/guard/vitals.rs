//! What a scrape wants to know, gathered in one go: loads from mapped memory, lengths of lists, a dozen words of the control array.
//! Whatever there may be many of is bounded: lists and ports by their tables, rows by [`ROWS_SHOWN_MAX`].

use super::Guard;
use crate::{
    kernel::probes,
    protocol::{BudgetInfo, ListInfo, Stats},
    reader::Count,
};
use kernel_shared::{
    Reason,
    abi::{FlowClass, SLOT_TCP_RETRANSMITS, SLOT_TCP_RTT, SLOT_TCP_TIMEOUTS},
    control::WORD_ENFORCE_DEADLINE,
};
use std::collections::BTreeMap;
use types::Offence;

/// Rows whose latency a scrape shows: the busiest.
pub const ROWS_SHOWN_MAX: usize = 16;

/// What TCP told of connections on protected ports and of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTotals {
    /// Round-trip samples.
    pub samples: u64,
    /// Sum of the smoothed round trips at those, µs.
    pub rtt_us: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
}

/// A guard's state at one moment. Nothing in it is per address.
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
    /// Lists in force.
    pub lists: Vec<ListInfo>,
    /// Packets that the kernel's own stack dropped, by reason and port, zeros left out.
    pub kernel_drops: BTreeMap<(String, String), u64>,
    /// `None`: no control group was given, none is there, or the kernel refused.
    pub tcp: Option<TcpTotals>,
    /// Whether each probe that was asked for is attached, and the egress guard.
    pub probes: BTreeMap<String, bool>,
    /// Latencies of the busiest rows: bucket n counts [2^n, 2^(n+1)) ns.
    pub rows: Vec<(u32, Vec<u64>)>,
}

impl Guard {
    /// Gathers them. No system call per ban or per flow.
    pub fn vitals(&self) -> Result<Vitals, String> {
        let told = |error: super::TableError| error.to_string();
        let now = self.clock.now(&self.tables).map_err(told)?;
        let would = Reason::ALL.into_iter().filter(|reason| reason.is_drop());
        Ok(Vitals {
            stats: self.stats(None).map_err(|refusal| refusal.message)?,
            ended: Reason::ALL.into_iter().map(|reason| (reason, self.counters.reason(reason))).collect(),
            would_drop: would.map(|reason| (reason, self.counters.would_drop(reason))).collect(),
            bans: self.bans.by_offence(),
            flows: self.flows.by_class(),
            budgets: super::budgets::list(&self.tables, &self.clock).map_err(told)?,
            trial: self.tables.control(WORD_ENFORCE_DEADLINE).map_err(told)? != 0,
            lists: self.lists.list(&self.clock, now),
            kernel_drops: self.kernel_drops(),
            tcp: self.probes.hears_tcp().then(|| self.tcp_totals()),
            probes: self.probes_attached(),
            rows: self.flows.busiest(&self.counters, ROWS_SHOWN_MAX),
        })
    }

    fn kernel_drops(&self) -> BTreeMap<(String, String), u64> {
        let mut drops = BTreeMap::new();
        let Some(ports) = &self.probes.ports else { return drops };
        for (port, reason, count) in self.counters.kernel_drops_by_port() {
            *drops.entry((self.probes.reason(reason), ports.label(port))).or_default() += count;
        }
        drops
    }

    fn tcp_totals(&self) -> TcpTotals {
        let (rtt, slot) = (self.counters.slot(SLOT_TCP_RTT), |slot| self.counters.slot(slot).packets);
        TcpTotals {
            samples: rtt.packets,
            rtt_us: rtt.bytes,
            retransmits: slot(SLOT_TCP_RETRANSMITS),
            timeouts: slot(SLOT_TCP_TIMEOUTS),
        }
    }

    fn probes_attached(&self) -> BTreeMap<String, bool> {
        let [tcp, udp] = &self.object.latency_sources;
        let latency = [("latency_tcp", tcp), ("latency_udp", udp)].map(|(name, line)| (name.to_string(), line.clone()));
        let asked = self.attachments().into_iter().chain(latency).filter(|(_, line)| !probes::is_off(line));
        asked.map(|(name, line)| (name, !probes::is_missing(&line))).collect()
    }
}
