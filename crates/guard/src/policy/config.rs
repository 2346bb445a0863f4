//! The policy's numbers, and what makes them usable.

use types::Offence;

use crate::protocol::BAN_TTL_MS_MAX;

/// Most points of one report, and highest threshold.
pub const POINTS_MAX: u32 = 1_000_000;
/// Most subjects that may be remembered; each costs about 200 bytes.
pub const SUBJECTS_MAX: usize = 1 << 20;
/// Steepest escalation.
pub const ESCALATION_MAX: u32 = 1_000;

/// How one offence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffenceRule {
    /// Points of one report of weight 1; 0 = counted in metrics, punished never.
    pub points: u32,
    /// Time after which half the points are forgotten, ms.
    pub half_life_ms: u64,
    /// Points at which the subject is banned.
    pub threshold: u32,
    /// First ban, ms.
    pub ttl_ms: u64,
}

/// The policy's numbers. Why you would change one: see each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Per offence, in the order of [`Offence::ALL`].
    pub rules: [OffenceRule; Offence::ALL.len()],
    /// Each further ban lasts this many times as long; 1 = never longer.
    pub escalation: u32,
    /// Longest ban, ms.
    pub ttl_ms_max: u64,
    /// A subject that has been quiet for so long starts anew, ms.
    pub forgive_ms: u64,
    /// Subjects remembered; the quietest makes room for a new one.
    pub subjects_max: usize,
}

/// A policy that can't work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number of one offence.
    #[error("{}.{field}: {problem}", offence.as_str())]
    Rule {
        /// Whose.
        offence: Offence,
        /// Its name.
        field: &'static str,
        /// What would be right.
        problem: &'static str,
    },
    /// A number of the whole policy.
    #[error("{field}: {problem}")]
    Value {
        /// Its name.
        field: &'static str,
        /// What would be right.
        problem: &'static str,
    },
}

impl PolicyConfig {
    /// The numbers of an offence.
    pub const fn rule(&self, offence: Offence) -> &OffenceRule {
        &self.rules[offence as usize]
    }

    /// The same, to change them.
    pub const fn rule_mut(&mut self, offence: Offence) -> &mut OffenceRule {
        &mut self.rules[offence as usize]
    }

    /// Checks that every number is within its bounds and none contradicts another.
    ///
    /// # Errors
    /// [`PolicyError`], naming the first that is not.
    pub fn check(&self) -> Result<(), PolicyError> {
        for (offence, rule) in Offence::ALL.into_iter().zip(&self.rules) {
            let rules = [
                ("points", rule.points <= POINTS_MAX, "at most 1,000,000"),
                ("half_life", rule.half_life_ms >= 1, "at least 1 ms, or nothing ever adds up"),
                ("threshold", (1..=POINTS_MAX).contains(&rule.threshold), "1 to 1,000,000"),
                ("ttl", (1..=BAN_TTL_MS_MAX).contains(&rule.ttl_ms), "1 ms to 30 days: every ban ends"),
                ("ttl", rule.ttl_ms <= self.ttl_ms_max, "not above the longest ban, ttl_max"),
            ];
            if let Some((field, _, problem)) = rules.into_iter().find(|(_, good, _)| !good) {
                return Err(PolicyError::Rule { offence, field, problem });
            }
        }
        let values = [
            ("escalation", (1..=ESCALATION_MAX).contains(&self.escalation), "1 to 1,000"),
            ("ttl_max", self.ttl_ms_max <= BAN_TTL_MS_MAX, "at most 30 days: every ban ends"),
            ("forgive", self.forgive_ms >= 1, "at least 1 ms"),
            ("subjects_max", (1..=SUBJECTS_MAX).contains(&self.subjects_max), "1 to 1,048,576"),
        ];
        match values.into_iter().find(|(_, good, _)| !good) {
            Some((field, _, problem)) => Err(PolicyError::Value { field, problem }),
            None => Ok(()),
        }
    }
}

impl Default for PolicyConfig {
    /// One authenticated bad signature or equivocation proves malice and bans for 60 s; the rest needs a habit.
    fn default() -> PolicyConfig {
        let rule = |points| OffenceRule { points, half_life_ms: 60_000, threshold: 100, ttl_ms: 60_000 };
        let points = |offence| match offence {
            Offence::Manual | Offence::List | Offence::BadSignature | Offence::Equivocation => 100,
            Offence::Malformed | Offence::InvalidBlock | Offence::Oversize => 50,
            Offence::Replay | Offence::Rate => 10,
        };
        PolicyConfig {
            rules: Offence::ALL.map(|offence| rule(points(offence))),
            escalation: 2,
            ttl_ms_max: 3_600_000,
            forgive_ms: 3_600_000,
            subjects_max: 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut PolicyConfig), expect: &str) {
        let mut config = PolicyConfig::default();
        change(&mut config);
        assert_eq!(config.check().unwrap_err().to_string().split(':').next(), Some(expect));
    }

    #[test]
    fn defaults_hold_and_mistakes_are_named() {
        assert_eq!(PolicyConfig::default().check(), Ok(()));
        check(|c| c.rule_mut(Offence::Rate).points = POINTS_MAX + 1, "rate.points");
        check(|c| c.rule_mut(Offence::Replay).half_life_ms = 0, "replay.half_life");
        check(|c| c.rule_mut(Offence::Malformed).threshold = 0, "malformed.threshold");
        check(|c| c.rule_mut(Offence::BadSignature).ttl_ms = 0, "bad_signature.ttl");
        check(|c| c.rule_mut(Offence::Oversize).ttl_ms = c.ttl_ms_max + 1, "oversize.ttl");
        check(|c| c.escalation = 0, "escalation");
        check(|c| c.ttl_ms_max = BAN_TTL_MS_MAX + 1, "ttl_max");
        check(|c| c.forgive_ms = 0, "forgive");
        check(|c| c.subjects_max = 0, "subjects_max");
    }
}
