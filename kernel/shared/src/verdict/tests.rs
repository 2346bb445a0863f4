//! The verdict over the model: golden packets, modes, lapses, and what must hold for any bytes.

extern crate std;

use crate::{
    Packet, Reason, Verdict,
    abi::{BanValue, COUNTER_SLOTS, Flow4, FlowClass, FlowValue, ROW_NONE, SLOT_EVENTS_SEEN, SLOT_WOULD_DROP, TCP},
    account::{Outcome, filter},
    control::{Config, Limit, Mode, WORD_BEAT_DEADLINE, WORD_CONFIG, WORD_ENFORCE_DEADLINE},
    golden::{self, Case, PORT, QUIC_PORT, REMOTE_PORT},
    inspect,
    model::Model,
    strangers::Budget,
    verdict::Tables,
};
use proptest::prelude::*;
use std::{collections::BTreeSet, vec::Vec};

#[test]
fn golden_packets_get_their_verdicts() {
    let model = golden::model();
    let cases = golden::cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    for Case { name, frame, reason, class, drop } in &cases {
        let verdict = inspect(&frame[..], &model);
        assert_eq!((verdict.reason(), verdict.class(), verdict.drop()), (*reason, *class, *drop), "{name}");
    }
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    for reason in [Reason::OutOfScope, Reason::Unreadable, Reason::Floor, Reason::Known, Reason::Dialing, Reason::Stranger] {
        assert!(cases.iter().any(|case| case.reason == reason), "no case for {reason:?}");
    }
}

#[test]
fn a_trial_of_enforce_ends_with_its_last_tick() {
    let model = golden::model();
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).word());
    model.set_control(WORD_ENFORCE_DEADLINE, 1_000);
    let case = golden::cases().into_iter().find(|case| case.reason == Reason::BannedBadSignature).unwrap();
    assert!(filter(&case.frame[..], &model).drop);
    model.set_time(1_001, 0);
    assert!(!filter(&case.frame[..], &model).drop);
    assert_eq!(model.counted(SLOT_WOULD_DROP + Reason::BannedBadSignature as u32), 1);
    model.set_control(WORD_ENFORCE_DEADLINE, 0);
    assert!(filter(&case.frame[..], &model).drop);
}

#[test]
fn floods_meet_their_budgets() {
    for flood in golden::floods() {
        let name = flood.name.clone();
        let (model, packets) = flood.over_a_model();
        for (index, (frame, reason)) in packets.iter().enumerate() {
            let verdict = inspect(&frame[..], &model);
            let drop = !matches!(reason, Reason::Stranger | Reason::Floor | Reason::Known);
            assert_eq!((verdict.reason(), verdict.drop()), (*reason, drop), "{name}, packet {index}");
        }
    }
}

#[test]
fn a_dry_budget_refills() {
    let model = golden::model();
    model.set_control(Budget::SynSource.word(), Limit::new(512, 1024).word());
    let case = golden::cases().into_iter().find(|case| case.name == "v4 tcp, syn").unwrap();
    let judge = || inspect(&case.frame[..], &model).reason();
    assert_eq!((judge(), judge()), (Reason::Stranger, Reason::RateSource));
    model.set_time(1_001, 0);
    assert_eq!(judge(), Reason::RateSource);
    model.set_time(1_002, 0);
    assert_eq!((judge(), judge()), (Reason::Stranger, Reason::RateSource));
}

#[test]
fn what_the_budget_of_all_refuses_takes_nothing_from_its_sender() {
    let model = golden::model();
    model.set_control(Budget::UdpSource.word(), Limit::new(0, 2048).word());
    model.set_control(Budget::Rest.word(), Limit::new(1024, 1024).word());
    let case = golden::cases().into_iter().find(|case| case.reason == Reason::Stranger && case.name.starts_with("v4 udp")).unwrap();
    let judge = || inspect(&case.frame[..], &model).reason();
    assert_eq!((judge(), judge(), judge()), (Reason::Stranger, Reason::RateStrangers, Reason::RateStrangers));
    model.set_time(1_001, 0);
    assert_eq!(judge(), Reason::Stranger);
    model.set_time(1_002, 0);
    assert_eq!(judge(), Reason::RateSource);
}

#[test]
fn a_validators_address_is_a_strangers_after_its_last_tick() {
    let mut model = golden::model();
    model.set_control(Budget::ValidatorHandshakes.word(), Limit::new(0, 1024).word());
    model.add_validator4(u32::from_ne_bytes([10, 77, 0, 9]), crate::abi::ValidatorValue::new(2_000));
    let case = golden::cases().into_iter().find(|case| case.name == "v4 tcp, syn").unwrap();
    let judge = || inspect(&case.frame[..], &model).reason();
    assert_eq!((judge(), judge()), (Reason::Stranger, Reason::RateSource));
    model.set_time(2_000, 0);
    assert_eq!(judge(), Reason::RateSource);
    model.set_time(2_001, 0);
    assert_eq!((judge(), judge()), (Reason::Stranger, Reason::Stranger));
}

#[test]
fn on_a_loopback_its_addresses_are_no_martians() {
    let model = golden::model();
    let case = golden::cases().into_iter().find(|case| case.name == "v4 tcp, from loopback").unwrap();
    assert_eq!(inspect(&case.frame[..], &model).reason(), Reason::Malformed);
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).with_loopback(true).word());
    assert_eq!(inspect(&case.frame[..], &model).reason(), Reason::Stranger);
}

fn total(model: &Model) -> u64 {
    let reasons = 0..SLOT_WOULD_DROP;
    reasons.map(|slot| model.counted(slot)).sum()
}

#[test]
fn every_packet_is_counted_once_in_every_mode() {
    for mode in Mode::ALL {
        let model = golden::model();
        model.set_control(WORD_CONFIG, Config::new(mode).word());
        for (count, case) in golden::cases().iter().enumerate() {
            let before = model.counted(SLOT_WOULD_DROP + case.reason as u32);
            let outcome = filter(&case.frame[..], &model);
            assert_eq!(total(&model), count as u64 + 1, "{}", case.name);
            assert_eq!(outcome.drop, case.drop && mode == Mode::Enforce, "{}", case.name);
            let would = model.counted(SLOT_WOULD_DROP + case.reason as u32) - before;
            assert_eq!(would, (case.drop && mode == Mode::Shadow) as u64, "{}", case.name);
        }
        assert_eq!(model.counted(Reason::Off as u32) > 0, mode == Mode::Off);
    }
}

#[test]
fn unreadable_ports_pass_unless_the_switch_is_on() {
    let case = golden::cases().into_iter().find(|case| case.reason == Reason::Unreadable).unwrap();
    let model = golden::model();
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).word());
    assert!(!filter(&case.frame[..], &model).drop);
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).with_drop_unreadable(true).word());
    assert!(filter(&case.frame[..], &model).drop);
    assert_eq!((model.counted(Reason::Unreadable as u32), model.counted(Reason::Hidden as u32)), (1, 1));
}

fn frame_of(reason: Reason) -> Vec<u8> {
    golden::cases().into_iter().find(|case| case.reason == reason && !case.drop).unwrap().frame
}

#[test]
fn known_flows_lapse_without_a_heartbeat_and_the_floor_stays() {
    let model = golden::model();
    model.set_control(WORD_BEAT_DEADLINE, 1_000);
    assert_eq!(inspect(&frame_of(Reason::Known)[..], &model).reason(), Reason::Known);
    model.set_control(WORD_BEAT_DEADLINE, 999);
    assert_eq!(inspect(&frame_of(Reason::Known)[..], &model).reason(), Reason::Stranger);
    assert_eq!(inspect(&frame_of(Reason::Floor)[..], &model).reason(), Reason::Floor);
    assert_eq!(inspect(&frame_of(Reason::Dialing)[..], &model).reason(), Reason::Dialing);
}

#[test]
fn a_ban_ends_with_its_last_tick_and_counts_its_hits() {
    let mut model = golden::model();
    let address = u32::from_ne_bytes([10, 77, 0, 9]);
    model.add_ban4(address, BanValue::new(0, 5_000, 0));
    let frame = frame_of(Reason::Stranger);
    model.set_time(5_000, 0);
    assert_eq!(inspect(&frame[..], &model).reason(), Reason::BannedManual);
    model.set_time(5_001, 0);
    assert_eq!(inspect(&frame[..], &model).reason(), Reason::Stranger);
    assert_eq!(model.hits4(address), Some(1));
}

#[test]
fn a_flow_above_its_budget_is_limited_and_recovers() {
    let mut model = golden::model();
    let key = Flow4::new(u32::from_ne_bytes([10, 77, 0, 9]), REMOTE_PORT, TCP);
    model.add_flow4(key, FlowValue::new(FlowClass::Known, 3, 7, 1024, 4096, u64::MAX, 1_000));
    let frame = frame_of(Reason::Stranger);
    let reasons: Vec<_> = (0..6).map(|_| inspect(&frame[..], &model).reason()).collect();
    assert_eq!(reasons, [Reason::Known, Reason::Known, Reason::Known, Reason::Known, Reason::RatePeer, Reason::RatePeer]);
    model.set_time(1_001, 0);
    let verdict = inspect(&frame[..], &model);
    assert_eq!((verdict.reason(), verdict.row, verdict.generation), (Reason::Known, 3, 7));
}

#[test]
fn a_row_that_changes_its_owner_starts_at_zero() {
    let mut model = golden::model();
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).word());
    let key = Flow4::new(u32::from_ne_bytes([10, 77, 0, 9]), REMOTE_PORT, TCP);
    let frame = frame_of(Reason::Stranger);
    for generation in [1, 2] {
        model.add_flow4(key, FlowValue::new(FlowClass::Known, 3, generation, 0, 2048, u64::MAX, 1_000));
        for _ in 0..5 {
            filter(&frame[..], &model);
        }
        let row = model.row(3).unwrap();
        assert_eq!((row.generation.load(), row.packets.load(), row.dropped.load()), (generation as u64, 2, 3));
        assert_eq!(row.bytes.load(), 2 * frame.len() as u64);
    }
}

#[test]
fn the_first_drop_is_told_and_then_every_nth() {
    let model = golden::model();
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).with_event_shift(2).word());
    let case = golden::cases().into_iter().find(|case| case.drop && case.name.starts_with("v6 udp, banned, 0")).unwrap();
    let told: Vec<bool> = (0..9).map(|_| filter(&case.frame[..], &model).event.is_some()).collect();
    assert_eq!(told, [true, false, false, false, true, false, false, false, true]);
    assert_eq!(model.counted(SLOT_EVENTS_SEEN), 9);
    let model = golden::model();
    model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).with_event_shift(0).word());
    let Outcome { event: Some(event), .. } = filter(&case.frame[..], &model) else { panic!("no event") };
    assert_eq!((event.version, event.protocol, event.port, event.local_port), (6, 17, REMOTE_PORT, PORT));
    assert_eq!(event.address, [0x20, 0x01, 0x0d, 0xb8, 0, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!((event.reason, event.dropped, event.row), (Reason::BannedBadSignature as u8, 1, ROW_NONE));
    assert_eq!(event.length as usize, case.frame.len());
}

fn holds(verdict: &Verdict) -> bool {
    let pass = [Reason::OutOfScope, Reason::Unreadable, Reason::Floor, Reason::Known, Reason::Dialing, Reason::Stranger];
    verdict.drop() != pass.contains(&verdict.reason())
        && pass.contains(&verdict.class())
        && (verdict.reason_slot()) < COUNTER_SLOTS
        && !(verdict.drop() && verdict.version() == 0)
        && verdict.class() != Reason::Off
}

proptest! {
    /// Any bytes, any mode: no panic, one count, and a verdict that makes sense.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), mode in prop::sample::select(&Mode::ALL[..])) {
        let model = golden::model();
        model.set_control(WORD_CONFIG, Config::new(mode).with_latency_shift(0).with_event_shift(0).word());
        prop_assert!(holds(&inspect(&bytes[..], &model)));
        let outcome = filter(&bytes[..], &model);
        prop_assert_eq!(total(&model), 1);
        prop_assert!(!outcome.drop || mode == Mode::Enforce);
    }

    /// Golden packets with a few bytes changed: the interesting neighbourhood of what is well formed.
    #[test]
    fn any_mutation(index: prop::sample::Index, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut: prop::sample::Index) {
        let model = golden::model();
        model.set_control(WORD_CONFIG, Config::new(Mode::Enforce).with_latency_shift(0).with_event_shift(0).word());
        let cases = golden::cases();
        let mut frame = index.get(&cases).frame.clone();
        for (position, value) in changes {
            let position = position.index(frame.len());
            frame[position] = value;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        let verdict = inspect(&frame[..], &model);
        prop_assert!(holds(&verdict));
        // A drop has read its ports inside the frame.
        prop_assert!(!verdict.drop() || verdict.transport as usize + 4 <= frame[..].length());
        filter(&frame[..], &model);
        prop_assert_eq!(total(&model), 1);
    }

    /// Whoever the sender is, a packet to a port that is not protected passes uncounted by any other reason.
    #[test]
    fn unprotected_ports_are_never_touched(index: prop::sample::Index, port in (1u16..).prop_filter("protected", |port| *port != PORT && *port != QUIC_PORT)) {
        let model = golden::model();
        let senders: Vec<Case> = golden::cases().into_iter().filter(|case| case.name.ends_with(", 0 tags") && !case.name.contains("fragment")).collect();
        let case = index.get(&senders);
        let mut frame = case.frame.clone();
        let offset = if case.name.starts_with("v6") { 56 } else { 36 };
        frame[offset..offset + 2].copy_from_slice(&port.to_be_bytes());
        prop_assert_eq!(inspect(&frame[..], &model).reason(), Reason::OutOfScope);
    }
}
