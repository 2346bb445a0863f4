//! New options for a running guard: taken whole or not at all, without touching the attachment.
//!
//! What is applied is the *difference between the old options and the new ones*: a mode or a budget that was changed by a command
//! since stays, unless the new options speak of it. Every step is a store of one word that a packet sees before or after, so no packet
//! meets half a change, and none is left uncounted.

use super::{Guard, Options};
use crate::kernel::{budgets, ports, squeeze, syn_proxy, tables::TableError};
use kernel_shared::{
    control::{Config, Mode, SynProxy, WORD_CONFIG, WORD_ENFORCE_DEADLINE},
    strangers::Budget as StrangerBudget,
};

/// Why new options were not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Some can only be set at a start.
    #[error("{} can't change while the guard runs: restart it (the filter stays in between)", .0.join(", "))]
    Fixed(Vec<&'static str>),
    /// The SYN proxy can't be had here.
    #[error("syn_proxy: {0}")]
    SynProxy(String),
    /// The kernel refused a step; those before it were taken back.
    #[error("the kernel refused a step, the others were taken back: {0}")]
    Table(#[from] TableError),
}

impl Guard {
    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes new options. What changed, in words for the log; or why nothing did.
    pub fn reload(&mut self, new: Options) -> Result<Vec<String>, ReloadError> {
        let fixed = fixed(&self.options, &new);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        if let Some(state) = proxied(&self.options, &new) {
            syn_proxy::possible(state, &self.object.syn_proxy, &self.directory).map_err(ReloadError::SynProxy)?;
        }
        let old = self.options.clone();
        if let Err(error) = self.apply(&old, &new) {
            if let Err(error) = self.apply(&new, &old) {
                tracing::error!(%error, "the old options can't be written back either");
            }
            return Err(error.into());
        }
        if proxied(&old, &new) == Some(SynProxy::Off) {
            syn_proxy::restore(&self.directory);
        }
        let changes = changes(&old, &new);
        self.options = new;
        Ok(changes)
    }

    fn apply(&mut self, old: &Options, new: &Options) -> Result<(), TableError> {
        if (&old.protect, &old.quic) != (&new.protect, &new.quic) {
            let ports: Vec<(u8, u16)> = new.protect.iter().map(|(protocol, port)| (protocol.number(), *port)).collect();
            self.tables.set_ports(&ports, &new.quic)?;
            if let Some(slots) = &mut self.probes.ports {
                slots.assign(&new.protect)?;
            }
        }
        for budget in StrangerBudget::ALL.into_iter().filter(|budget| named(old, *budget) != named(new, *budget)) {
            let value = named(new, budget).unwrap_or(budgets::default(budget));
            squeeze::forget(&self.tables, budget)?;
            budgets::write(&self.tables, &self.clock, budget, value)?;
        }
        self.flows.rebalance(&self.tables)?;
        let touched: Vec<_> =
            self.bans.prefixes().filter(|ban| new.floor.iter().any(|range| range.overlaps(ban))).copied().collect();
        for prefix in touched {
            tracing::warn!(%prefix, "a ban touches the new floor: lifted");
            self.bans.remove(&self.tables, &prefix)?;
            self.changed.bans = true;
        }
        if old.floor != new.floor {
            self.lists.cut_floor(&self.tables, &mut self.bans, &self.directory, &new.floor)?;
        }
        let word = Config::from_word(self.tables.control(WORD_CONFIG)?);
        let mut wanted = word.with_drop_unreadable(new.drop_unreadable);
        if old.event_shift != new.event_shift {
            wanted = wanted.with_event_shift(new.event_shift);
        }
        if old.latency_shift != new.latency_shift {
            wanted = wanted.with_latency_shift(new.latency_shift);
        }
        if let Some(state) = proxied(old, new) {
            wanted = wanted.with_syn_proxy(state);
        }
        if let Some(mode) = switched(old, new) {
            wanted = wanted.with_mode(mode);
            self.tables.set_control(WORD_ENFORCE_DEADLINE, 0)?;
        }
        if wanted != word {
            self.tables.set_control(WORD_CONFIG, wanted.word())?;
        }
        Ok(())
    }
}

fn named(options: &Options, budget: StrangerBudget) -> Option<crate::kernel::flows::Budget> {
    options.strangers.iter().rev().find(|(named, _)| *named == budget).map(|(_, value)| *value)
}

fn switched(old: &Options, new: &Options) -> Option<Mode> {
    new.mode.filter(|_| old.mode != new.mode)
}

fn proxied(old: &Options, new: &Options) -> Option<SynProxy> {
    new.syn_proxy.filter(|_| old.syn_proxy != new.syn_proxy)
}

/// Names of options that differ and can't be changed live.
fn fixed(old: &Options, new: &Options) -> Vec<&'static str> {
    let differences = [
        ("interface", old.interface != new.interface),
        ("instance", old.instance != new.instance),
        ("state", old.state != new.state),
        ("bpffs", old.bpffs != new.bpffs),
        ("xdp", old.xdp != new.xdp),
        ("cgroup", old.cgroup != new.cgroup),
        ("egress", old.egress != new.egress),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn changes(old: &Options, new: &Options) -> Vec<String> {
    let mut changes = Vec::new();
    if (&old.protect, &old.quic) != (&new.protect, &new.quic) {
        changes.push(format!("protect = {}", ports::summary(&new.protect).join(",")));
    }
    if let Some(mode) = switched(old, new) {
        changes.push(format!("mode = {}", mode.as_str()));
    }
    if let Some(state) = proxied(old, new) {
        changes.push(format!("syn_proxy = {}", state.as_str()));
    }
    for budget in StrangerBudget::ALL.into_iter().filter(|budget| named(old, *budget) != named(new, *budget)) {
        let value = named(new, budget).unwrap_or(budgets::default(budget));
        changes.push(format!("{} = {}/{}", budget.as_str(), value.rate, value.burst));
    }
    if old.floor != new.floor {
        let ranges: Vec<String> = new.floor.iter().map(ToString::to_string).collect();
        changes.push(format!("floor = {}", ranges.join(",")));
    }
    if old.heartbeat_timeout != new.heartbeat_timeout {
        changes.push(format!("heartbeat_timeout = {} ms", new.heartbeat_timeout.as_millis()));
    }
    if old.save_hits_every != new.save_hits_every {
        changes.push(format!("save_hits_every = {} ms", new.save_hits_every.as_millis()));
    }
    if old.drop_unreadable != new.drop_unreadable {
        changes.push(format!("drop_unreadable = {}", new.drop_unreadable));
    }
    if old.event_shift != new.event_shift {
        changes.push(format!("event_shift = {}", new.event_shift));
    }
    if old.latency_shift != new.latency_shift {
        changes.push(format!("latency_shift = {}", new.latency_shift));
    }
    changes
}
