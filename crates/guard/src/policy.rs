//! The policy: offences in, actions out. Pure; time is an input.
//!
//! Every subject (address) has a score per offence. A report adds the offence's points times its weight; points halve every
//! `half_life_ms`. At the threshold the action is a ban, and each further ban of the same address lasts `escalation` times as
//! long, up to a maximum, until the address has been quiet for `forgive_ms` after its last report and the end of its last ban: who is
//! banned can't be reported, which is no merit.
//!
//! A validator is never banned: its connection is closed. Neither is an address that other admitted peers share (NAT): there the
//! guilty peer is closed and limited for as long as the ban would have lasted. Only offences whose bytes the peer has authenticated may be reported here: a spoofed source gets nobody banned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use types::Offence;

mod config;

pub use config::{ESCALATION_MAX, OffenceRule, POINTS_MAX, PolicyConfig, PolicyError, SUBJECTS_MAX};

/// Points are counted in thousandths, so that decay needs no floats.
const MILLI: u64 = 1000;

/// Whom a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Remote address of the connection that sent the proof.
    pub address: IpAddr,
    /// It proved, on this connection, the key of a validator of the present set.
    pub validator: bool,
    /// Other admitted peers speak to us from this address.
    pub shared_by_others: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remember only.
    Nothing,
    /// Close the connection.
    Disconnect,
    /// Close the connection, and for a while take neither this peer nor anybody new from its address.
    Limit {
        /// How long, ms.
        ttl_ms: u64,
        /// Why.
        offence: Offence,
    },
    /// Ban the address (and close its connections).
    Ban {
        /// Whom.
        address: IpAddr,
        /// How long, ms.
        ttl_ms: u64,
        /// Why.
        offence: Offence,
    },
}

#[derive(Clone, Debug, Default)]
struct Record {
    /// Thousandths of points per offence, as of `at`.
    score: [u64; Offence::ALL.len()],
    /// When the scores were last brought up to date, ms.
    at_ms: u64,
    /// Bans and limits so far.
    bans: u32,
    /// End of the last of them, ms.
    until_ms: u64,
}

impl Record {
    /// A first report.
    fn new(now_ms: u64) -> Record {
        Record { at_ms: now_ms, ..Record::default() }
    }

    /// Since when it could have offended and has not, ms.
    fn quiet_since(&self) -> u64 {
        self.at_ms.max(self.until_ms)
    }
}

/// Scores of all subjects.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
    subjects: BTreeMap<IpAddr, Record>,
    /// The same subjects by the time since which they are quiet: who is forgotten first.
    by_age: BTreeSet<(u64, IpAddr)>,
}

impl Policy {
    /// An empty table.
    pub fn new(config: PolicyConfig) -> Policy {
        Policy { config, subjects: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// Subjects remembered.
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Points (whole) of an address for an offence, as of its last report.
    pub fn score(&self, address: IpAddr, offence: Offence) -> u64 {
        self.subjects.get(&canonical(address)).map_or(0, |record| record.score[offence as usize] / MILLI)
    }

    /// Counts a report and says what follows. `weight` multiplies the offence's points. A clock that runs backwards decays nothing.
    pub fn report(&mut self, now_ms: u64, subject: Subject, offence: Offence, weight: u32) -> Action {
        let address = canonical(subject.address);
        let mut record = self.take(address, now_ms);
        let rule = *self.config.rule(offence);
        let index = offence as usize;
        record.score[index] = record.score[index].saturating_add(rule.points as u64 * weight as u64 * MILLI);
        let guilty = record.score[index] >= rule.threshold as u64 * MILLI && weight > 0;
        let action = match guilty {
            false => Action::Nothing,
            true => {
                record.score[index] = 0;
                if subject.validator {
                    Action::Disconnect
                } else {
                    let ttl_ms = self.ttl(rule.ttl_ms, record.bans);
                    record.bans = record.bans.saturating_add(1);
                    record.until_ms = now_ms.saturating_add(ttl_ms);
                    match subject.shared_by_others {
                        true => Action::Limit { ttl_ms, offence },
                        false => Action::Ban { address, ttl_ms, offence },
                    }
                }
            }
        };
        self.put(address, record);
        action
    }

    /// Length of the next ban after `bans` earlier ones.
    fn ttl(&self, first_ms: u64, bans: u32) -> u64 {
        let factor = (self.config.escalation.max(1) as u64).saturating_pow(bans);
        first_ms.saturating_mul(factor).min(self.config.ttl_ms_max).max(1)
    }

    /// Takes a subject's record out, decayed to `now_ms`.
    fn take(&mut self, address: IpAddr, now_ms: u64) -> Record {
        let Some(mut record) = self.subjects.remove(&address) else { return Record::new(now_ms) };
        self.by_age.remove(&(record.quiet_since(), address));
        if now_ms.saturating_sub(record.quiet_since()) >= self.config.forgive_ms {
            return Record::new(now_ms);
        }
        let elapsed = now_ms.saturating_sub(record.at_ms);
        for (score, rule) in record.score.iter_mut().zip(&self.config.rules) {
            *score = decay(*score, elapsed, rule.half_life_ms);
        }
        record.at_ms = record.at_ms.max(now_ms);
        record
    }

    /// Puts a record back; the quietest other one makes room.
    fn put(&mut self, address: IpAddr, record: Record) {
        while self.subjects.len() >= self.config.subjects_max.max(1) {
            let Some((_, quietest)) = self.by_age.pop_first() else { break };
            self.subjects.remove(&quietest);
        }
        self.by_age.insert((record.quiet_since(), address));
        self.subjects.insert(address, record);
    }
}

/// IPv4-mapped addresses are IPv4, and an IPv6 host stands for its /64.
fn canonical(address: IpAddr) -> IpAddr {
    crate::Prefix::host(address).widened().address()
}

/// Halves the score every half-life, linearly in between: at most 6 % from the exponential, and no floats.
fn decay(score: u64, elapsed_ms: u64, half_life_ms: u64) -> u64 {
    if half_life_ms == 0 {
        return 0;
    }
    let halvings = elapsed_ms / half_life_ms;
    if halvings >= 64 {
        return 0;
    }
    let halved = score >> halvings;
    let part = (halved / 2) as u128 * (elapsed_ms % half_life_ms) as u128 / half_life_ms as u128;
    halved - part as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subject(last: u8) -> Subject {
        Subject { address: [10, 0, 0, last].into(), validator: false, shared_by_others: false }
    }

    fn ban_of(action: Action) -> Option<u64> {
        match action {
            Action::Ban { ttl_ms, .. } => Some(ttl_ms),
            _ => None,
        }
    }

    #[test]
    fn one_bad_signature_bans_for_a_minute_and_repeats_last_longer() {
        let config = PolicyConfig::default();
        let forgive = config.forgive_ms;
        let mut policy = Policy::new(config);
        // Nobody can offend while banned: each report comes when the last ban has ended, here as late as is not forgiven.
        let (mut now, mut bans) = (0, Vec::new());
        for _ in 0..9 {
            let ttl = ban_of(policy.report(now, subject(1), Offence::BadSignature, 1)).unwrap();
            bans.push(ttl);
            now += ttl + forgive - 1;
        }
        assert_eq!(bans, [60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000, 3_600_000]);
        assert_eq!(ban_of(policy.report(now + 1, subject(1), Offence::BadSignature, 1)), Some(60_000));
    }

    #[test]
    fn validators_are_disconnected_and_shared_addresses_limited_never_banned() {
        let mut policy = Policy::new(PolicyConfig::default());
        for k in 0..10 {
            let validator = Subject { validator: true, shared_by_others: k % 2 == 0, ..subject(1) };
            assert_eq!(policy.report(0, validator, Offence::BadSignature, 1), Action::Disconnect);
            let shared = Subject { shared_by_others: true, ..subject(2) };
            let limit = policy.report(0, shared, Offence::BadSignature, 1);
            let ttl_ms = (60_000 << k).min(3_600_000);
            assert_eq!(limit, Action::Limit { ttl_ms, offence: Offence::BadSignature });
        }
    }

    #[test]
    fn a_habit_bans_and_a_slip_is_forgotten() {
        let mut policy = Policy::new(PolicyConfig::default());
        let habit: Vec<_> = (0..10).map(|k| policy.report(k * 10, subject(1), Offence::Replay, 1)).collect();
        assert!(ban_of(habit[9]).is_some() || policy.report(100, subject(1), Offence::Replay, 1) != Action::Nothing);
        for k in 0..100 {
            assert_eq!(policy.report(k * 60_000, subject(2), Offence::Replay, 1), Action::Nothing);
        }
        assert_eq!(policy.report(0, subject(3), Offence::BadSignature, 0), Action::Nothing);
    }

    #[test]
    fn hosts_of_one_slash_64_are_one_subject() {
        let mut policy = Policy::new(PolicyConfig::default());
        let host = |text: &str| Subject { address: text.parse().unwrap(), validator: false, shared_by_others: false };
        assert_eq!(policy.report(0, host("2001:db8::1"), Offence::Malformed, 1), Action::Nothing);
        assert!(
            matches!(policy.report(0, host("2001:db8::2"), Offence::Malformed, 1), Action::Ban { address, .. } if address == "2001:db8::".parse::<IpAddr>().unwrap())
        );
    }

    fn offence() -> impl Strategy<Value = Offence> {
        prop::sample::select(&Offence::ALL[..])
    }

    proptest! {
        /// Whatever is reported: the table stays bounded, no validator is banned, every ban has a TTL within the limits.
        #[test]
        fn invariants_hold_under_any_reports(reports in prop::collection::vec((0u64..10_000_000, 0u8..40, any::<bool>(), any::<bool>(), offence(), 0u32..5), 1..400)) {
            let config = PolicyConfig { subjects_max: 16, ..PolicyConfig::default() };
            let mut policy = Policy::new(config.clone());
            for (now, last, validator, shared_by_others, offence, weight) in reports {
                let who = Subject { validator, shared_by_others, ..subject(last) };
                match policy.report(now, who, offence, weight) {
                    Action::Ban { address, ttl_ms, offence: label } => {
                        prop_assert!(!validator && !shared_by_others);
                        prop_assert_eq!((address, label), (who.address, offence));
                        prop_assert!((60_000..=config.ttl_ms_max).contains(&ttl_ms));
                    }
                    Action::Limit { ttl_ms, .. } => {
                        prop_assert!(shared_by_others && !validator);
                        prop_assert!((60_000..=config.ttl_ms_max).contains(&ttl_ms));
                    }
                    Action::Disconnect => prop_assert!(validator),
                    Action::Nothing => {}
                }
                prop_assert!(policy.len() <= 16);
                prop_assert_eq!(policy.subjects.len(), policy.by_age.len());
            }
        }

        /// Decay never adds, never overtakes one halving per half-life, and is monotonic in time.
        #[test]
        fn decay_is_monotonic(score in 0u64..1 << 50, a in 0u64..1 << 40, b in 0u64..1 << 40, half in 1u64..1 << 30) {
            let (early, late) = (a.min(b), a.max(b));
            prop_assert!(decay(score, late, half) <= decay(score, early, half));
            prop_assert!(decay(score, early, half) <= score);
            prop_assert!(decay(score, half, half) >= score / 2);
        }
    }
}
