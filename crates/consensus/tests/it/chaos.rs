//! One engine, whatever it hears: verified statements and certificates in any order, also such as no honest set would make.

use consensus::{Config, Effect, Engine, Input, OwnVote, Recovered, Verdict};
use proptest::prelude::*;
use types::{Certificate, Epoch, Kind, Statement, Tick, View};

use crate::hand::{about, certificate, context, key, meta, nullify, set, signed};

const VIEWS: u64 = 8;

#[derive(Clone, Debug)]
enum Step {
    Vote { by: u8, kind: usize, view: u64, parent: u64, block: u8 },
    Certificate { kind: usize, view: u64, parent: u64, block: u8 },
    Proposal { view: u64, parent: u64, block: u8, on: u8, height: u64 },
    Wait(u64),
    Work(bool),
    Verdict(bool),
    Reconnect(u8),
    Fetch(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let view = 1..=VIEWS;
    let statement = (0usize..3, view.clone(), 0..VIEWS, 1u8..4);
    prop_oneof![
        6 => (0u8..4, statement.clone()).prop_map(|(by, (kind, view, parent, block))| Step::Vote { by, kind, view, parent, block }),
        5 => statement.prop_map(|(kind, view, parent, block)| Step::Certificate { kind, view, parent, block }),
        4 => (view.clone(), 0..VIEWS, 1u8..4, 0u8..4, 1u64..12).prop_map(|(view, parent, block, on, height)| {
            Step::Proposal { view, parent, block, on, height }
        }),
        2 => (1u64..3_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Work),
        1 => any::<bool>().prop_map(Step::Verdict),
        1 => (1u8..4).prop_map(Step::Reconnect),
        1 => view.prop_map(Step::Fetch),
        1 => Just(Step::Restart),
    ]
}

/// What was said, or certified to the engine.
#[derive(Default)]
struct Heard {
    said: Vec<(Statement, Option<Certificate>)>,
    certified: Vec<Statement>,
    /// What became certified here, quorums of single votes among it.
    effects: Vec<Statement>,
}

struct Run {
    config: Config,
    engine: Engine,
    now: Tick,
    verdict: Verdict,
    heard: Heard,
}

impl Run {
    fn tell(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Sign { statement, certificate } => {
                    self.check(&statement);
                    self.heard.said.push((statement, certificate));
                    self.engine.handle(Input::Signed(signed(key(0), statement)), self.now);
                }
                Effect::Judge { view, block, .. } => {
                    let input = Input::Judged { view, digest: block.digest, verdict: self.verdict };
                    self.engine.handle(input, self.now);
                }
                Effect::Build { view, parent, parent_view, .. } => {
                    let block = consensus::BlockMeta { parent, height: types::Height(parent_view.0 + 1), ..meta(99, 0, 0) };
                    self.engine.handle(Input::Built { view, block: Some(block) }, self.now);
                }
                Effect::Notarized(c) | Effect::Nullified(c) | Effect::Finalized(c) => self.heard.effects.push(c.statement),
                Effect::Evidence(evidence) => assert!(evidence.first.0.contradicts(&evidence.second.0)),
                _ => {}
            }
        }
    }

    /// The rules, from the outside: what was certified to this engine decides what it may say.
    fn check(&self, statement: &Statement) {
        let certified = |wanted: &dyn Fn(&Statement) -> bool| self.heard.certified.iter().chain(&self.heard.effects).any(wanted);
        assert!(statement.is_well_formed());
        assert!(!self.heard.said.iter().any(|(said, _)| said == statement), "twice: {statement:?}");
        assert!(!self.heard.said.iter().any(|(said, _)| said.contradicts(statement)), "contradiction: {statement:?}");
        match statement.kind {
            Kind::Nullify => {}
            Kind::Finalize => assert!(certified(&|c| *c == statement.with_kind(Kind::Notarize))),
            Kind::Propose | Kind::Notarize => {
                let parent = statement.parent_view;
                let stands = |c: &Statement| c.view == parent && matches!(c.kind, Kind::Notarize | Kind::Finalize);
                assert!(parent == View(0) || certified(&stands), "no parent: {statement:?}");
                for between in parent.0 + 1..statement.view.0 {
                    assert!(certified(&|c| *c == nullify(between)), "gap at {between}: {statement:?}");
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        let of = |kind: usize, view: u64, parent: u64, block: u8| match kind {
            0 => about(Kind::Notarize, view, parent.min(view - 1), block),
            1 => about(Kind::Finalize, view, parent.min(view - 1), block),
            _ => nullify(view),
        };
        match step {
            Step::Vote { by, kind, view, parent, block } => {
                // Nobody else has this node's key.
                if by != 0 {
                    self.tell(Input::Vote { signed: signed(key(by), of(kind, view, parent, block)), from: key(by) });
                }
            }
            Step::Certificate { kind, view, parent, block } => {
                let statement = of(kind, view, parent, block);
                self.heard.certified.push(statement);
                self.tell(Input::Certificate(certificate(&set(4, 0), statement, &[1, 2, 3])));
            }
            Step::Proposal { view, parent, block, on, height } => {
                let leader = self.engine.leader(View(view));
                if leader != key(0) {
                    let statement = about(Kind::Propose, view, parent.min(view - 1), block);
                    let block = meta(block, on, height);
                    self.tell(Input::Proposal { head: signed(leader, statement), block, from: leader });
                }
            }
            Step::Wait(ms) => {
                let until = self.now.plus_ms(ms);
                for _ in 0..10_000 {
                    let Some(due) = self.engine.poll_timeout().filter(|due| *due <= until) else {
                        self.now = until;
                        return;
                    };
                    self.now = self.now.max(due);
                    self.tell(Input::Timeout);
                }
                panic!("spins at {}", self.now);
            }
            Step::Work(work) => self.tell(Input::Work(work)),
            Step::Verdict(valid) => self.verdict = if valid { Verdict::Valid } else { Verdict::Invalid },
            Step::Reconnect(peer) => {
                self.tell(Input::PeerDisconnected(key(peer)));
                self.tell(Input::PeerConnected(key(peer)));
            }
            Step::Fetch(view) => {
                self.tell(Input::FetchCertificate { epoch: Epoch(0), view: View(view), kind: Kind::Nullify, from: key(1) });
                self.tell(Input::FetchProposal { epoch: Epoch(0), view: View(view), from: key(1) });
            }
            Step::Restart => {
                let recovered = Recovered {
                    finality: self.engine.finality().cloned(),
                    certificates: self.heard.said.iter().filter_map(|(_, certificate)| certificate.clone()).collect(),
                    votes: self.heard.said.iter().map(|(s, _)| OwnVote { signed: signed(key(0), *s), block: None }).collect(),
                };
                self.engine = Engine::new(self.config.clone(), context(4, 0), Some(key(0)), recovered, self.now);
                self.drain();
            }
        }
    }
}

fn run(config: Config, steps: Vec<Step>) {
    let engine = Engine::new(config.clone(), context(4, 0), Some(key(0)), Recovered::default(), Tick(0));
    let mut run = Run { config, engine, now: Tick(0), verdict: Verdict::Valid, heard: Heard::default() };
    run.drain();
    for step in steps {
        run.step(step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// It never contradicts itself, never votes over a gap, never without a parent, never spins, over any restarts.
    #[test]
    fn rules_hold_whatever_is_heard(steps in prop::collection::vec(step(), 1..80)) {
        run(Config::default(), steps);
    }
}

/// The test above can fail: it finds each of the bugs that may be planted.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    use consensus::Bugs;
    use proptest::test_runner::{TestError, TestRunner};
    let bugs = [Bugs { no_gap_check: true, nullify_and_finalize: false }, Bugs { no_gap_check: false, nullify_and_finalize: true }];
    for bugs in bugs {
        let config = Config { bugs, ..Config::default() };
        let cases = ProptestConfig { cases: 2_000, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() };
        let found = TestRunner::new(cases).run(&prop::collection::vec(step(), 1..80), |steps| {
            run(config.clone(), steps);
            Ok(())
        });
        assert!(matches!(found, Err(TestError::Fail(..))), "{bugs:?}");
    }
}
