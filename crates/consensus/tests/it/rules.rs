//! One engine under hand-made inputs: each rule alone.

use consensus::{Config, Context, Effect, Engine, Input, NullifyReason, OwnVote, Recovered, Target, Verdict};
use types::{Epoch, Height, Kind, Message, Tick, View};

use crate::hand::{Hand, about, certificate, context, digest, key, meta, nullify, set, signed};

fn kinds(statements: &[types::Statement]) -> Vec<(Kind, u64)> {
    statements.iter().map(|statement| (statement.kind, statement.view.0)).collect()
}

#[test]
fn notarizes_a_valid_proposal_once_and_finalizes_its_notarization() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).propose(view, 0, meta(1, 0, 1));
    assert_eq!(hand.asked(), [about(Kind::Notarize, view, 0, 1)]);
    hand.propose(view, 0, meta(1, 0, 1)).wait_ms(1);
    assert_eq!(hand.asked(), []);
    hand.vote(1, about(Kind::Notarize, view, 0, 1));
    assert_eq!(hand.engine.view(), View(view), "2 of 4 is no quorum");
    hand.vote(2, about(Kind::Notarize, view, 0, 1));
    assert_eq!(hand.engine.view(), View(view + 1));
    let certified = about(Kind::Notarize, view, 0, 1);
    let expected = certificate(&set(4, 0), certified, &[0, 1, 2]);
    assert!(hand.out.contains(&Effect::Notarized(expected.clone())));
    let relay = Effect::Send { to: Target::Everyone, message: Message::Certificate(Box::new(expected.clone())) };
    assert_eq!(hand.out.iter().filter(|effect| **effect == relay).count(), 1, "sent on once");
    let sign = Effect::Sign { statement: certified.with_kind(Kind::Finalize), certificate: Some(expected) };
    assert!(hand.out.contains(&sign), "a finalize record carries its notarization");
    assert_eq!(hand.asked(), [certified.with_kind(Kind::Finalize)]);
    hand.vote(1, certified.with_kind(Kind::Finalize)).vote(2, certified.with_kind(Kind::Finalize));
    assert_eq!(hand.engine.final_view(), View(view));
}

#[test]
fn an_equivocating_leader_gets_one_vote_and_is_convicted_once() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).propose(view, 0, meta(1, 0, 1)).propose(view, 0, meta(2, 0, 1)).propose(view, 0, meta(3, 0, 1));
    let evidence: Vec<_> =
        hand.out.iter().filter_map(|effect| if let Effect::Evidence(evidence) = effect { Some(*evidence) } else { None }).collect();
    assert_eq!(evidence.len(), 1);
    assert_eq!(evidence[0].key, hand.engine.leader(View(view)));
    assert_eq!(evidence[0].first.0, about(Kind::Propose, view, 0, 1));
    assert_eq!(evidence[0].second.0, about(Kind::Propose, view, 0, 2));
    assert_eq!(hand.asked(), [about(Kind::Notarize, view, 0, 1)]);
}

#[test]
fn contradicting_votes_convict_honest_ones_do_not() {
    let cases = [
        (about(Kind::Notarize, 3, 0, 1), about(Kind::Notarize, 3, 0, 2), true),
        (about(Kind::Notarize, 3, 0, 1), about(Kind::Notarize, 3, 1, 1), true),
        (about(Kind::Finalize, 3, 0, 1), nullify(3), true),
        (nullify(3), about(Kind::Notarize, 3, 0, 1), false),
        (about(Kind::Notarize, 3, 0, 1), about(Kind::Finalize, 3, 0, 2), false),
        (about(Kind::Notarize, 3, 0, 1), about(Kind::Notarize, 4, 0, 2), false),
    ];
    for (first, second, convicts) in cases {
        let mut hand = Hand::new(0);
        hand.vote(1, first).vote(1, second);
        let convicted = hand.out.iter().any(|effect| matches!(effect, Effect::Evidence(evidence) if evidence.key == key(1)));
        assert_eq!(convicted, convicts, "{first:?} {second:?}");
    }
}

#[test]
fn a_certificates_signatures_convict_too() {
    let mut hand = Hand::new(0);
    hand.vote(1, about(Kind::Finalize, 3, 0, 1));
    hand.certify(nullify(3));
    assert!(hand.out.iter().any(|effect| matches!(effect, Effect::Evidence(evidence) if evidence.key == key(1))));
}

#[test]
fn no_vote_over_a_gap() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(4);
    // Views 1 and 2 are jumped over: their fate is unknown here.
    hand.certify(nullify(view - 1));
    hand.out.clear();
    hand.propose(view, 0, meta(1, 0, 1));
    let leader = hand.engine.leader(View(view));
    let fetch = Message::FetchCertificate { epoch: Epoch(0), view: View(view - 2), kind: Kind::Nullify };
    assert_eq!(hand.sent(), [(Target::One(leader), fetch.clone())], "asked for by kind, of the proposer");
    hand.wait_ms(199);
    assert_eq!(hand.sent(), []);
    hand.wait_ms(1);
    assert_eq!(hand.sent(), [(Target::One(leader), fetch)]);
    for v in (2..view - 1).rev() {
        hand.certify(nullify(v));
        assert_eq!(hand.asked(), [], "view 1 is still open");
    }
    hand.certify(nullify(1));
    assert_eq!(hand.asked(), [about(Kind::Notarize, view, 0, 1)]);
}

#[test]
fn no_vote_without_the_parents_notarization() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(3);
    hand.go_to(view).propose(view, view - 1, meta(2, 1, 2));
    assert_eq!(hand.asked(), []);
    hand.certify(about(Kind::Notarize, view - 1, 0, 1));
    let finalize_parent = about(Kind::Finalize, view - 1, 0, 1);
    assert_eq!(hand.asked(), [finalize_parent, about(Kind::Notarize, view, view - 1, 2)], "both certificates of one view are kept");
}

#[test]
fn a_proposal_that_does_not_fit_is_nullified_at_once() {
    // (parent view, block, why)
    let cases = [
        (0, meta(1, 5, 1), "another parent than the notarized one"),
        (0, meta(1, 0, 2), "a height above the first on the base"),
        (0, meta(1, 0, 0), "a height below the epoch"),
        (0, meta(0, 0, 10), "the base itself"),
    ];
    for (parent_view, block, why) in cases {
        let mut hand = Hand::new(0);
        let view = hand.led_by_other(1);
        hand.go_to(view).propose(view, parent_view, block);
        let reason = NullifyReason::InvalidProposal;
        assert!(hand.out.contains(&Effect::Nullifying { view: View(view), reason }), "{why}");
        assert_eq!(hand.asked(), [nullify(view)], "{why}");
    }
    let mut hand = Hand::new(0);
    hand.verdict = Some(Verdict::Invalid);
    let view = hand.led_by_other(1);
    hand.go_to(view).propose(view, 0, meta(1, 0, 1));
    assert_eq!(hand.asked(), [nullify(view)], "the shell's verdict");
}

#[test]
fn a_parent_below_the_final_view_is_refused() {
    let mut hand = Hand::new(0);
    hand.certify(about(Kind::Finalize, 1, 0, 1));
    let view = hand.led_by_other(3);
    hand.go_to(view).propose(view, 0, meta(2, 0, 1));
    assert_eq!(hand.asked(), [nullify(view)]);
}

#[test]
fn notarize_after_nullify_is_allowed_finalize_is_not() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).tell(Input::Work(true));
    hand.wait_ms(400);
    assert_eq!(hand.asked(), [nullify(view)], "the leader was silent");
    hand.propose(view, 0, meta(1, 0, 1));
    assert_eq!(hand.asked(), [about(Kind::Notarize, view, 0, 1)]);
    hand.certify(about(Kind::Notarize, view, 0, 1));
    assert_eq!(hand.engine.view(), View(view + 1));
    assert_eq!(hand.asked(), [], "whoever nullified never finalizes");
}

#[test]
fn whoever_finalized_never_nullifies() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(2);
    hand.go_to(view).certify(about(Kind::Notarize, view, 0, 1));
    assert_eq!(kinds(&hand.asked()), [(Kind::Finalize, view)]);
    hand.vote(1, nullify(view)).vote(2, nullify(view)).wait_ms(60_000);
    assert!(!hand.asked().contains(&nullify(view)));
}

#[test]
fn a_nullify_under_way_counts_as_sent() {
    let mut hand = Hand::new(0);
    hand.sign = false;
    let view = hand.led_by_other(1);
    hand.go_to(view).tell(Input::Work(true)).wait_ms(400);
    assert_eq!(hand.asked(), [nullify(view)]);
    hand.certify(about(Kind::Notarize, view, 0, 1));
    assert_eq!(hand.asked(), [], "the signature may exist already");
    hand.tell(Input::SignRefused(nullify(view)));
    assert_eq!(hand.asked(), [about(Kind::Finalize, view, 0, 1)], "refused: it never will");
}

#[test]
fn proposes_on_the_highest_notarized_block_over_nullified_views() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(4);
    let parent = view - 2;
    hand.certify(about(Kind::Notarize, parent, 0, 1)).certify(nullify(view - 1));
    hand.out.clear();
    hand.tell(Input::Work(true)).wait_ms(25);
    let notarization = Some(certificate(&set(4, 0), about(Kind::Notarize, parent, 0, 1), &[0, 1, 2]));
    let (view_, parent_view) = (View(view), View(parent));
    let build = Effect::Build { view: view_, parent_view, parent: digest(1), notarization };
    assert_eq!(hand.out.iter().filter(|effect| **effect == build).count(), 1, "{:?}", hand.out);
    hand.out.clear();
    hand.tell(Input::Built { view: view_, block: Some(meta(2, 1, 2)) });
    let head = about(Kind::Propose, view, parent, 2);
    let position = |hand: &Hand, wanted: &dyn Fn(&Effect) -> bool| hand.out.iter().position(wanted).unwrap();
    let sign = position(&hand, &|effect| matches!(effect, Effect::Sign { statement, .. } if *statement == head));
    let send = position(&hand, &|effect| matches!(effect, Effect::SendProposal { head: sent, .. } if sent.statement == head));
    assert!(sign < send, "signed before it is sent");
    assert_eq!(hand.asked(), [head, head.with_kind(Kind::Notarize)], "the leader votes like everyone");
}

#[test]
fn a_leader_fetches_the_certificate_that_it_lacks() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(4);
    hand.certify(nullify(view - 1)).tell(Input::Work(true));
    let fetch = Message::FetchCertificate { epoch: Epoch(0), view: View(view - 2), kind: Kind::Nullify };
    assert!(hand.sent().contains(&(Target::Validators, fetch)));
    for v in 1..view - 1 {
        hand.certify(nullify(v));
    }
    let built = |effect: &Effect| matches!(effect, Effect::Build { parent_view: View(0), notarization: None, .. });
    assert!(hand.out.iter().any(built), "at once, not at the next pause");
}

#[test]
fn a_leader_on_a_final_parent_needs_its_notarization() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(2);
    let finality = about(Kind::Finalize, view - 1, 0, 1);
    hand.certify(finality).tell(Input::Work(true)).wait_ms(25);
    let fetch = Message::FetchCertificate { epoch: Epoch(0), view: View(view - 1), kind: Kind::Notarize };
    assert!(hand.sent().contains(&(Target::Validators, fetch)));
    hand.certify(finality.with_kind(Kind::Notarize));
    let built = |effect: &Effect| matches!(effect, Effect::Build { parent_view, notarization: Some(_), .. } if *parent_view == View(view - 1));
    assert!(hand.out.iter().any(built));
}

#[test]
fn the_pacing_floor_holds_back_a_leader_with_work() {
    let mut hand = Hand::new(0);
    // A view that I lead after one that I don't.
    let view = (2..99).map(|v| hand.led_by_me(v)).find(|v| hand.led_by_other(v - 1) == v - 1).unwrap();
    hand.tell(Input::Work(true)).go_to(view - 1).propose(view - 1, 0, meta(1, 0, 1));
    hand.wait_ms(3).certify(about(Kind::Notarize, view - 1, 0, 1));
    let builds = |hand: &Hand| hand.out.iter().filter(|effect| matches!(effect, Effect::Build { .. })).count();
    assert_eq!((hand.engine.view(), builds(&hand)), (View(view), 0));
    assert_eq!(hand.engine.poll_timeout(), Some(Tick(25_000)));
    hand.wait_ms(21);
    assert_eq!(builds(&hand), 0);
    hand.wait_ms(1);
    assert_eq!(builds(&hand), 1, "25 ms after the parent's proposal was seen");
}

#[test]
fn the_epochs_last_block_is_proposed_again_and_nothing_else_follows_it() {
    for (block, again) in [(meta(9, 1, 10), true), (meta(2, 9, 11), false)] {
        let mut hand = Hand::new(0);
        let view = hand.led_by_other(3);
        let parent = view - 1;
        // Block 9 is the last, at height 10, notarized in `parent`.
        hand.certify(about(Kind::Notarize, parent, 0, 9));
        hand.out.clear();
        hand.propose(view, parent, block);
        let judged = |effect: &Effect| matches!(effect, Effect::Judge { reproposal: true, .. });
        assert_eq!(hand.out.iter().any(judged), again);
        let expected = if again { about(Kind::Notarize, view, parent, 9) } else { nullify(view) };
        assert_eq!(hand.asked(), [expected]);
    }
    // A block that is not the epoch's last is not proposed again.
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(3);
    hand.certify(about(Kind::Notarize, view - 1, 0, 5));
    hand.out.clear();
    hand.propose(view, view - 1, meta(5, 4, 7));
    assert_eq!(hand.asked(), [nullify(view)]);
}

#[test]
fn a_leader_proposes_the_last_block_again() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(3);
    hand.certify(about(Kind::Notarize, view - 1, 0, 9)).tell(Input::Work(true));
    hand.out.clear();
    hand.tell(Input::Built { view: View(view), block: Some(meta(9, 1, 10)) });
    assert_eq!(kinds(&hand.asked()), [(Kind::Propose, view), (Kind::Notarize, view)]);
    // The shell's mistakes are not signed.
    let mut hand = Hand::new(0);
    hand.certify(about(Kind::Notarize, view - 1, 0, 5)).tell(Input::Work(true));
    hand.out.clear();
    hand.tell(Input::Built { view: View(view), block: Some(meta(5, 4, 7)) });
    assert_eq!(hand.asked(), []);
}

#[test]
fn an_idle_view_waits_for_the_idle_interval() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).wait_ms(2_399);
    assert_eq!(hand.asked(), []);
    hand.wait_ms(1);
    assert_eq!(hand.asked(), [nullify(view)], "idle interval, then the leader timeout");
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(1);
    hand.go_to(view).wait_ms(1_999);
    let builds = |hand: &Hand| hand.out.iter().filter(|effect| matches!(effect, Effect::Build { .. })).count();
    assert_eq!(builds(&hand), 0);
    hand.wait_ms(1);
    assert_eq!(builds(&hand), 1, "an empty block, for the last roots");
}

#[test]
fn a_third_of_nullify_votes_is_work() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).vote(1, nullify(view)).wait_ms(400);
    assert_eq!(hand.asked(), [], "one of four proves nothing");
    hand.vote(2, nullify(view)).wait_ms(399);
    assert_eq!(hand.asked(), []);
    hand.wait_ms(1);
    assert_eq!(hand.asked(), [nullify(view)]);
}

#[test]
fn a_stuck_notarization_is_work() {
    let mut hand = Hand::with(0, Recovered::default(), context(4, 0));
    let view = hand.led_by_other(1);
    let config = Config { idle_interval_ms: 600_000, ..Config::default() };
    hand.engine = Engine::new(config, context(4, 0), Some(key(0)), Recovered::default(), Tick(0));
    for v in 1..view {
        hand.certify(nullify(v));
    }
    hand.certify(about(Kind::Notarize, view, 0, 1));
    hand.wait_ms(8 * 800 - 1);
    let next = hand.engine.view().0;
    assert!(!hand.asked().contains(&nullify(next)));
    hand.wait_ms(1).wait_ms(400);
    assert!(hand.asked().contains(&nullify(next)), "8 view timeouts, then the leader timeout");
}

#[test]
fn a_proposal_in_time_moves_the_deadline_to_the_view_timeout() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).tell(Input::Work(true)).wait_ms(399);
    hand.propose(view, 0, meta(1, 0, 1)).wait_ms(400);
    assert_eq!(kinds(&hand.asked()), [(Kind::Notarize, view)], "799 ms after the start");
    hand.wait_ms(1);
    assert_eq!(hand.asked(), [nullify(view)], "the start is earlier than the proposal");
}

#[test]
fn timeouts_grow_by_half_with_each_nullify_and_shrink_with_finality() {
    let mut hand = Hand::new(0);
    hand.tell(Input::Work(true));
    let mut waits = Vec::new();
    for view in 1..=10 {
        let began = hand.now;
        // My own views too: the shell never builds.
        while !hand.asked().contains(&nullify(view)) {
            let due = hand.engine.poll_timeout().unwrap().max(hand.now);
            hand.now = due;
            hand.tell(Input::Timeout);
        }
        waits.push(hand.now.since(began) / 1_000);
        hand.vote(1, nullify(view)).vote(2, nullify(view));
        assert_eq!(hand.engine.view(), View(view + 1));
    }
    assert_eq!(waits[..6], [400, 600, 900, 1_350, 2_025, 3_037]);
    assert_eq!(waits[9], 6_400, "16 times the base");
    for view in 11..20 {
        hand.certify(about(Kind::Finalize, view, 0, 1));
    }
    let (view, began) = (hand.engine.view().0, hand.now);
    hand.out.clear();
    while !hand.asked().contains(&nullify(view)) {
        let due = hand.engine.poll_timeout().unwrap().max(hand.now);
        hand.now = due;
        hand.tell(Input::Timeout);
    }
    assert_eq!(hand.now.since(began) / 1_000, 400);
}

#[test]
fn votes_of_left_views_are_answered_once_an_interval_certificates_never() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(3);
    hand.go_to(view);
    let answers = |hand: &mut Hand| {
        let sent = hand.sent();
        sent.into_iter()
            .filter_map(|(to, message)| if let Message::Certificates(list) = message { Some((to, list)) } else { None })
            .collect::<Vec<_>>()
    };
    hand.vote(1, nullify(1));
    let answer = answers(&mut hand);
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0].0, Target::One(key(1)));
    assert_eq!(answer[0].1.len() as u64, view - 1, "all from that view on");
    hand.vote(1, about(Kind::Notarize, 1, 0, 1));
    assert_eq!(answers(&mut hand), [], "once an interval");
    hand.vote(2, nullify(1));
    assert_eq!(answers(&mut hand).len(), 1, "a peer");
    hand.wait_ms(100).vote(1, nullify(1));
    assert_eq!(answers(&mut hand).len(), 1);
    hand.certify(nullify(1));
    assert_eq!(hand.sent(), [], "known: neither answered nor sent on");
    hand.wait_ms(100).certify(about(Kind::Finalize, view, 0, 1)).out.clear();
    hand.vote(1, about(Kind::Finalize, view, 0, 1));
    let answer = answers(&mut hand);
    assert_eq!(answer[0].1[0].statement, about(Kind::Finalize, view, 0, 1), "at or below the final one: its certificate");
}

#[test]
fn a_voter_is_asked_for_the_proposal_that_it_saw() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view).vote(1, about(Kind::Notarize, view, 0, 1));
    let fetch = Message::FetchProposal { epoch: Epoch(0), view: View(view) };
    assert_eq!(hand.sent(), [(Target::One(key(1)), fetch)]);
    hand.vote(1, about(Kind::Notarize, view, 0, 1));
    assert_eq!(hand.sent(), []);
    hand.propose(view, 0, meta(1, 0, 1)).out.clear();
    hand.tell(Input::FetchProposal { epoch: Epoch(0), view: View(view), from: key(2) });
    let sent = |effect: &Effect| matches!(effect, Effect::SendProposal { to: Target::One(to), head, .. } if *to == key(2) && head.statement.digest == digest(1));
    assert!(hand.out.iter().any(sent), "with the leader's signature");
}

#[test]
fn what_may_be_lost_is_sent_again_with_growing_pauses() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(3);
    hand.go_to(view).propose(view, 0, meta(1, 0, 1)).out.clear();
    let mut at = Vec::new();
    for ms in 1..=5_000u64 {
        hand.now = Tick(ms * 1_000);
        hand.tell(Input::Timeout);
        let voted = |message: &Message| matches!(message, Message::Vote(vote) if vote.signed.statement.kind == Kind::Notarize && vote.certificate.is_some());
        if hand.sent().iter().any(|(to, message)| *to == Target::Validators && voted(message)) {
            at.push(ms);
        }
    }
    // The nullify at 800 is a new vote: it resets the pause.
    assert_eq!(at, [200, 600, 1_000, 1_400, 2_200, 3_800]);
    hand.tell(Input::PeerDisconnected(key(2))).tell(Input::PeerConnected(key(2)));
    let to_one = hand.sent();
    assert!(to_one.iter().all(|(to, _)| *to == Target::One(key(2))));
    assert_eq!(to_one.iter().filter(|(_, message)| matches!(message, Message::Vote(_))).count(), 2, "both votes, at once");
    hand.wait_ms(200);
    assert!(!hand.sent().is_empty(), "the pause is short again");
}

#[test]
fn finalize_votes_are_sent_again_until_a_higher_view_is_final() {
    let mut hand = Hand::new(0);
    hand.certify(about(Kind::Notarize, 1, 0, 1)).certify(about(Kind::Notarize, 2, 1, 2));
    hand.out.clear();
    hand.wait_ms(200);
    let finalizes = |hand: &mut Hand| {
        let of = |message: &Message| match message {
            Message::Vote(vote) if vote.signed.statement.kind == Kind::Finalize => {
                vote.certificate.as_ref().map(|c| c.statement.view.0)
            }
            _ => None,
        };
        hand.sent().iter().filter_map(|(_, message)| of(message)).collect::<Vec<_>>()
    };
    assert_eq!(finalizes(&mut hand), [2, 1], "each with its notarization");
    hand.certify(about(Kind::Finalize, 2, 1, 2)).out.clear();
    hand.wait_ms(200).wait_ms(400);
    assert_eq!(finalizes(&mut hand), [0u64; 0]);
    assert_eq!(hand.engine.poll_timeout(), Some(hand.now.max(Tick(2_400_000))), "nothing to say before the idle deadline");
}

#[test]
fn a_restart_sends_the_same_votes_and_says_nothing_else() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(3);
    hand.certify(about(Kind::Notarize, view - 1, 0, 1)).propose(view, view - 1, meta(2, 1, 2));
    hand.tell(Input::Work(true)).wait_ms(800);
    let records: Vec<_> = std::mem::take(&mut hand.out);
    let signs: Vec<_> = records
        .iter()
        .filter_map(
            |e| if let Effect::Sign { statement, certificate } = e { Some((*statement, certificate.clone())) } else { None },
        )
        .collect();
    assert_eq!(signs.len(), 3, "finalize, notarize, nullify");
    assert!(signs[1].1.is_some() && signs[2].1.is_none(), "a view's first vote carries what admitted me");
    let recovered = Recovered {
        finality: None,
        certificates: signs.iter().filter_map(|(_, certificate)| certificate.clone()).collect(),
        votes: signs.iter().map(|(statement, _)| OwnVote { signed: signed(key(0), *statement), block: None }).collect(),
    };
    let mut again = Hand::with(0, recovered, context(4, 0));
    assert_eq!(again.engine.view(), View(view), "the view above the highest certificate");
    let mut resent: Vec<_> = again
        .sent()
        .into_iter()
        .filter_map(|(to, message)| match message {
            Message::Vote(vote) if to == Target::One(key(1)) => Some((vote.signed.statement, vote.certificate.is_some())),
            _ => None,
        })
        .collect();
    resent.sort_by_key(|(statement, _)| statement.kind);
    let expected = [about(Kind::Notarize, view, view - 1, 2), nullify(view), about(Kind::Finalize, view - 1, 0, 1)]
        .map(|statement| (statement, true));
    assert_eq!(resent, expected);
    again.propose(view, view - 1, meta(2, 1, 2)).tell(Input::Work(true)).wait_ms(60_000);
    assert_eq!(again.asked(), [], "all was said before");
}

#[test]
fn a_restarted_leader_sends_the_same_proposal() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_me(1);
    let head = signed(key(0), about(Kind::Propose, view, 0, 1));
    let admitting: Vec<_> = (1..view).map(|v| certificate(&set(4, 0), nullify(v), &[0, 1, 2])).collect();
    for (block, votes) in [(Some(meta(1, 0, 1)), true), (None, false)] {
        let votes_before = vec![OwnVote { signed: head, block }];
        let recovered = Recovered { finality: None, certificates: admitting.clone(), votes: votes_before };
        hand = Hand::with(0, recovered, context(4, 0));
        hand.tell(Input::Work(true)).wait_ms(1);
        let sends = |effect: &Effect| matches!(effect, Effect::SendProposal { head: sent, .. } if *sent == head);
        assert!(hand.out.iter().any(sends), "the shell stays silent if it lost the block");
        let builds = |effect: &Effect| matches!(effect, Effect::Build { .. });
        assert!(!hand.out.iter().any(builds), "never a second proposal");
        assert_eq!(hand.asked().contains(&head.statement.with_kind(Kind::Notarize)), votes);
    }
    // Somebody else still has it.
    hand.tell(Input::Proposal { head, block: meta(1, 0, 1), from: key(2) });
    assert_eq!(hand.asked(), [head.statement.with_kind(Kind::Notarize)]);
}

#[test]
fn other_epochs_and_chains_are_not_heard() {
    let mut hand = Hand::new(0);
    let view = hand.led_by_other(1);
    hand.go_to(view);
    let mut foreign = about(Kind::Finalize, 40, 0, 1);
    foreign.epoch = Epoch(1);
    let mut other_chain = about(Kind::Finalize, 40, 0, 1);
    other_chain.chain = types::ChainId::default();
    for statement in [foreign, other_chain] {
        for seat in 0..4 {
            hand.vote(seat, statement);
        }
        let bogus = certificate(&set(4, 0), statement, &[0, 1, 2]);
        hand.tell(Input::Certificate(bogus));
    }
    assert_eq!(hand.engine.view(), View(view));
    assert!(hand.out.is_empty());
}

#[test]
fn an_epochs_engine_starts_at_its_base_with_what_admits_to_it() {
    let admitting = certificate(&set(4, 0), about(Kind::Finalize, 12, 11, 9), &[0, 1, 2]);
    let context = Context { admitting: Some(admitting.clone()), base: digest(9), ..context(4, 1) };
    let mut hand = Hand::with(0, Recovered::default(), context);
    assert_eq!((hand.engine.view(), hand.engine.final_view()), (View(1), View(0)));
    hand.tell(Input::Work(true)).wait_ms(400);
    let nullify = types::Statement::nullify(crate::hand::CHAIN, Epoch(1), View(1));
    let mine = hand.engine.leader(View(1)) == key(0);
    if !mine {
        assert!(hand.out.contains(&Effect::Sign { statement: nullify, certificate: Some(admitting) }));
    } else {
        let parent = digest(9);
        let build = Effect::Build { view: View(1), parent_view: View(0), parent, notarization: None };
        assert!(hand.out.contains(&build));
        hand.tell(Input::Built {
            view: View(1),
            block: Some(consensus::BlockMeta { digest: digest(1), parent, height: Height(11) }),
        });
        assert!(hand.out.iter().any(|effect| matches!(effect, Effect::Sign { certificate: Some(c), .. } if *c == admitting)));
    }
}

#[test]
fn a_follower_learns_finality_and_says_nothing() {
    let mut follower = Hand::new(0);
    follower.engine = Engine::new(Config::default(), context(4, 0), Some(key(77)), Recovered::default(), Tick(0));
    follower.propose(1, 0, meta(1, 0, 1)).wait_ms(60_000).certify(about(Kind::Finalize, 1, 0, 1));
    assert_eq!(follower.engine.final_view(), View(1));
    assert_eq!(follower.asked(), []);
    while let Some(due) = follower.engine.poll_timeout() {
        assert!(due > follower.now, "it sleeps");
        follower.now = due;
        follower.tell(Input::Timeout);
        assert_eq!(follower.sent(), []);
        if follower.now > Tick(100_000_000) {
            break;
        }
    }
}

#[test]
fn far_views_take_no_memory() {
    let mut hand = Hand::new(0);
    for view in 1..10_000 {
        hand.vote(1, nullify(view));
        hand.vote(2, about(Kind::Finalize, view, 0, 1));
    }
    assert_eq!(hand.engine.open_views(), 65, "64 ahead of view 1");
    // A certificate jumps over any distance, and leaves no room for votes of what was jumped over.
    hand.certify(nullify(9_000));
    assert_eq!(hand.engine.view(), View(9_001));
    for view in 1..9_000 {
        hand.vote(3, nullify(view));
    }
    assert!(hand.engine.open_views() <= 65 + 1 + 64, "{}", hand.engine.open_views());
}

#[test]
fn a_long_run_of_nullified_views_is_remembered_as_a_fact() {
    let mut hand = Hand::new(0);
    let config = Config { certificates_max: 8, ..Config::default() };
    hand.engine = Engine::new(config, context(4, 0), Some(key(0)), Recovered::default(), Tick(0));
    for view in 1..500 {
        hand.certify(nullify(view));
    }
    assert!(hand.engine.open_views() <= 9);
    let view = hand.led_by_other(500);
    for v in 500..view {
        hand.certify(nullify(v));
    }
    hand.out.clear();
    hand.propose(view, 0, meta(1, 0, 1));
    assert_eq!(hand.asked(), [about(Kind::Notarize, view, 0, 1)], "no gap between the base and here");
    // With one view of the run jumped over there is one.
    let config = Config { certificates_max: 8, ..Config::default() };
    hand.engine = Engine::new(config, context(4, 0), Some(key(0)), Recovered::default(), Tick(0));
    for v in (1..view).filter(|v| *v != 100) {
        hand.certify(nullify(v));
    }
    hand.out.clear();
    hand.propose(view, 0, meta(1, 0, 1));
    assert_eq!(hand.asked(), []);
}
