//! `[guard]`: the socket, how offences count, and what a flood of handshakes does to the guard's budget.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use guard::PolicyConfig;
use guard::policy::PolicyError;
use guard::protocol::{BUDGET_BURST_MAX, BUDGET_RATE_MAX, SQUEEZE_MS_MAX, SQUEEZE_RATE_MIN};
use serde::Deserialize;
use types::Offence;

use super::duration::Span;
use super::{ConfigError, value};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGuard {
    socket: Option<PathBuf>,
    policy: RawPolicy,
    offences: BTreeMap<Offence, RawRule>,
    flood: RawFlood,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawPolicy {
    escalation: Option<u32>,
    ttl_max: Option<Span>,
    forgive: Option<Span>,
    subjects_max: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawRule {
    points: Option<u32>,
    half_life: Option<Span>,
    threshold: Option<u32>,
    ttl: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFlood {
    handshakes_per_s: u32,
    burst: u32,
    r#for: Span,
}

impl Default for RawFlood {
    fn default() -> Self {
        RawFlood { handshakes_per_s: 500, burst: 1_000, r#for: Span(std::time::Duration::from_secs(30)) }
    }
}

/// The budget of all strangers' handshakes while a flood lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodBudget {
    /// Handshake packets a second.
    pub rate: u32,
    /// Packets at once.
    pub burst: u32,
    /// How long, unless the flood goes on, ms. The guard restores the budget, also if the node has died.
    pub for_ms: u64,
}

/// What the node does with offences and floods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// The guard's socket; none: no guard, offences only disconnect.
    pub socket: Option<PathBuf>,
    /// How offences count.
    pub policy: PolicyConfig,
    /// What a flood leaves strangers.
    pub flood: FloodBudget,
}

impl RawGuard {
    pub fn validate(self, home: &Path) -> Result<GuardConfig, ConfigError> {
        let mut policy = PolicyConfig::default();
        let RawPolicy { escalation, ttl_max, forgive, subjects_max } = self.policy;
        policy.escalation = escalation.unwrap_or(policy.escalation);
        policy.ttl_ms_max = ttl_max.map_or(policy.ttl_ms_max, Span::ms);
        policy.forgive_ms = forgive.map_or(policy.forgive_ms, Span::ms);
        policy.subjects_max = subjects_max.unwrap_or(policy.subjects_max);
        for rule in &mut policy.rules {
            // A shorter longest ban shortens the first ones that are left at their default.
            rule.ttl_ms = rule.ttl_ms.min(policy.ttl_ms_max.max(1));
        }
        for (offence, raw) in self.offences {
            if matches!(offence, Offence::Manual | Offence::List) {
                let key = format!("guard.offences.{offence}");
                return Err(value(key, "is what an operator's own bans are called; the node reports no such offence"));
            }
            let rule = policy.rule_mut(offence);
            rule.points = raw.points.unwrap_or(rule.points);
            rule.half_life_ms = raw.half_life.map_or(rule.half_life_ms, Span::ms);
            rule.threshold = raw.threshold.unwrap_or(rule.threshold);
            rule.ttl_ms = raw.ttl.map_or(rule.ttl_ms, Span::ms);
        }
        policy.check().map_err(|error| match error {
            PolicyError::Rule { offence, field, problem } => value(format!("guard.offences.{offence}.{field}"), problem),
            PolicyError::Value { field, problem } => value(format!("guard.policy.{field}"), problem),
        })?;
        let flood = FloodBudget { rate: self.flood.handshakes_per_s, burst: self.flood.burst, for_ms: self.flood.r#for.ms() };
        flood.check()?;
        Ok(GuardConfig { socket: self.socket.map(|socket| home.join(socket)), policy, flood })
    }
}

impl FloodBudget {
    fn check(&self) -> Result<(), ConfigError> {
        if !(SQUEEZE_RATE_MIN..=BUDGET_RATE_MAX).contains(&self.rate) {
            return Err(value("guard.flood.handshakes_per_s", format!("{SQUEEZE_RATE_MIN} to {BUDGET_RATE_MAX}")));
        }
        if !(SQUEEZE_RATE_MIN..=BUDGET_BURST_MAX).contains(&self.burst) {
            return Err(value("guard.flood.burst", format!("{SQUEEZE_RATE_MIN} to {BUDGET_BURST_MAX}")));
        }
        if !(1_000..=SQUEEZE_MS_MAX).contains(&self.for_ms) {
            return Err(value("guard.flood.for", "1s to 10m: it is asked for again while the flood lasts"));
        }
        Ok(())
    }
}
