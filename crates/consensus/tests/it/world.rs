//! Four or more engines in lockstep: every message takes one step, unless the test's filter loses it.

use std::collections::{BTreeMap, VecDeque};

use consensus::{BlockMeta, Config, Context, Effect, Engine, Input, OwnVote, Recovered, Target, Verdict};
use types::{BlockHash, Certificate, Epoch, Hash, Height, Kind, Message, PublicKey, SignedStatement, Statement, Tick, View};

use crate::hand::{self, key, signed};

/// A delay of every message.
pub const HOP_MS: u64 = 5;

/// What a record of the simulated journal holds.
#[derive(Clone)]
pub struct Journaled {
    pub signed: SignedStatement,
    pub certificate: Option<Certificate>,
    pub block: Option<BlockMeta>,
}

pub struct Node {
    pub key: PublicKey,
    pub engine: Engine,
    pub journal: Vec<Journaled>,
    pub finalized: Vec<Certificate>,
    pub evidence: Vec<types::Evidence>,
    pub up: bool,
    pub work: bool,
}

enum Wire {
    Message(Message),
    Proposal(Box<(SignedStatement, BlockMeta, Option<Certificate>)>),
}

type Filter = Box<dyn FnMut(PublicKey, PublicKey, Option<Kind>) -> bool>;

pub struct World {
    pub nodes: Vec<Node>,
    pub now: Tick,
    pub config: Config,
    pub context: Context,
    /// Held by everybody: what is consensus' affair is agreement, not payload.
    pub blocks: BTreeMap<BlockHash, BlockMeta>,
    wires: VecDeque<(Tick, PublicKey, PublicKey, Wire)>,
    /// Whether a message (of this kind, if it is a proposal or vote) from one to another arrives.
    pub filter: Filter,
    pub messages: u64,
}

impl World {
    pub fn new(n: u8, config: Config) -> World {
        let context = hand::context(n, 0);
        let mut world = World {
            nodes: Vec::new(),
            now: Tick(0),
            config: config.clone(),
            context: context.clone(),
            blocks: BTreeMap::new(),
            wires: VecDeque::new(),
            filter: Box::new(|_, _, _| true),
            messages: 0,
        };
        for i in 0..n {
            let engine = Engine::new(config.clone(), context.clone(), Some(key(i)), Recovered::default(), Tick(0));
            let (journal, finalized, evidence) = (Vec::new(), Vec::new(), Vec::new());
            world.nodes.push(Node { key: key(i), engine, journal, finalized, evidence, up: true, work: true });
        }
        for i in 0..n as usize {
            world.meet(i);
            world.tell(i, Input::Work(true));
        }
        world
    }

    fn meet(&mut self, i: usize) {
        for j in 0..self.nodes.len() {
            if i != j && self.nodes[j].up {
                let (a, b) = (self.nodes[i].key, self.nodes[j].key);
                self.tell(i, Input::PeerConnected(b));
                self.tell(j, Input::PeerConnected(a));
            }
        }
    }

    pub fn tell(&mut self, i: usize, input: Input) {
        if self.nodes[i].up {
            self.nodes[i].engine.handle(input, self.now);
            self.drain(i);
        }
    }

    fn drain(&mut self, i: usize) {
        while let Some(effect) = self.nodes[i].engine.poll_effect() {
            let me = self.nodes[i].key;
            match effect {
                Effect::Build { view, parent_view, parent, .. } => {
                    let block = self.build(me, view, parent_view, parent);
                    self.nodes[i].engine.handle(Input::Built { view, block: Some(block) }, self.now);
                }
                Effect::Judge { view, block, .. } => {
                    let input = Input::Judged { view, digest: block.digest, verdict: Verdict::Valid };
                    self.nodes[i].engine.handle(input, self.now);
                }
                Effect::Sign { statement, certificate } => {
                    let input = self.sign(i, statement, certificate);
                    self.nodes[i].engine.handle(input, self.now);
                }
                Effect::Send { to, message } => self.send(me, to, &message),
                Effect::SendProposal { to, head, admitting } => {
                    let block = self.blocks[&head.statement.digest];
                    for peer in self.targets(me, to) {
                        let at = self.now.plus_ms(HOP_MS);
                        self.wires.push_back((at, me, peer, Wire::Proposal(Box::new((head, block, admitting.clone())))));
                    }
                }
                Effect::Finalized(certificate) => {
                    self.nodes[i].finalized.push(certificate);
                    if self.height(i) == self.context.last_height {
                        // The shell would go on to the next epoch's engine.
                        self.nodes[i].engine.handle(Input::Work(false), self.now);
                    }
                }
                Effect::Evidence(evidence) => self.nodes[i].evidence.push(evidence),
                _ => {}
            }
        }
    }

    fn build(&mut self, me: PublicKey, view: View, parent_view: View, parent: BlockHash) -> BlockMeta {
        let height = self.blocks.get(&parent).map_or(self.context.base_height, |block| block.height);
        if height == self.context.last_height && parent_view > View(0) {
            return self.blocks[&parent];
        }
        let digest = BlockHash(Hash::of("test-block", &(parent, me, view)));
        let block = BlockMeta { digest, parent, height: height.next() };
        self.blocks.insert(digest, block);
        block
    }

    /// A signer that refuses contradictions.
    fn sign(&mut self, i: usize, statement: Statement, certificate: Option<Certificate>) -> Input {
        let node = &mut self.nodes[i];
        if node.journal.iter().any(|record| record.signed.statement.contradicts(&statement)) {
            return Input::SignRefused(statement);
        }
        let signed = signed(node.key, statement);
        let block = self.blocks.get(&statement.digest).copied();
        node.journal.push(Journaled { signed, certificate, block });
        Input::Signed(signed)
    }

    fn targets(&self, me: PublicKey, to: Target) -> Vec<PublicKey> {
        match to {
            Target::One(peer) => vec![peer],
            Target::Validators | Target::Everyone => self.nodes.iter().map(|node| node.key).filter(|key| *key != me).collect(),
        }
    }

    fn send(&mut self, me: PublicKey, to: Target, message: &Message) {
        for peer in self.targets(me, to) {
            self.wires.push_back((self.now.plus_ms(HOP_MS), me, peer, Wire::Message(message.clone())));
        }
    }

    fn deliver(&mut self, from: PublicKey, to: PublicKey, wire: Wire) {
        let i = self.nodes.iter().position(|node| node.key == to).unwrap();
        let kind = match &wire {
            Wire::Proposal(..) => Some(Kind::Propose),
            Wire::Message(Message::Vote(vote)) => Some(vote.signed.statement.kind),
            Wire::Message(_) => None,
        };
        if !self.nodes[i].up || !(self.filter)(from, to, kind) {
            return;
        }
        self.messages += 1;
        match wire {
            Wire::Proposal(proposal) => {
                let (head, block, admitting) = *proposal;
                self.certificates(i, admitting);
                self.tell(i, Input::Proposal { head, block, from });
            }
            Wire::Message(Message::Vote(vote)) => {
                self.certificates(i, vote.certificate);
                self.tell(i, Input::Vote { signed: vote.signed, from });
            }
            Wire::Message(Message::Certificate(certificate)) => self.certificates(i, [*certificate]),
            Wire::Message(Message::Certificates(list)) => self.certificates(i, list),
            Wire::Message(Message::FetchCertificate { epoch, view, kind }) => {
                self.tell(i, Input::FetchCertificate { epoch, view, kind, from });
            }
            Wire::Message(Message::FetchProposal { epoch, view }) => self.tell(i, Input::FetchProposal { epoch, view, from }),
            Wire::Message(other) => panic!("an engine never sends {}", other.as_str()),
        }
    }

    fn certificates(&mut self, i: usize, list: impl IntoIterator<Item = Certificate>) {
        for certificate in list {
            self.tell(i, Input::Certificate(certificate));
        }
    }

    /// Runs for a while: messages in order of arrival, timers when due.
    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let timers = self.nodes.iter().enumerate().filter(|(_, node)| node.up);
            let timer = timers.filter_map(|(i, node)| node.engine.poll_timeout().map(|at| (at.max(self.now), i))).min();
            let wire = self.wires.front().map(|wire| wire.0);
            match (wire, timer) {
                (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    if let Some((_, from, to, wire)) = self.wires.pop_front() {
                        self.deliver(from, to, wire);
                    }
                }
                (_, Some((due, i))) if due <= end => {
                    self.now = due;
                    self.tell(i, Input::Timeout);
                    let next = self.nodes[i].engine.poll_timeout();
                    assert!(next.is_none_or(|next| next > due), "node {i} spins at {due}");
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub fn work(&mut self, work: bool) {
        for i in 0..self.nodes.len() {
            self.nodes[i].work = work;
            self.tell(i, Input::Work(work));
        }
    }

    pub fn crash(&mut self, i: usize) {
        self.nodes[i].up = false;
        let key = self.nodes[i].key;
        for j in 0..self.nodes.len() {
            self.tell(j, Input::PeerDisconnected(key));
        }
    }

    /// Back with its journal; storage remembers the first `finalities` finality certificates.
    pub fn restart(&mut self, i: usize, finalities: usize) {
        let node = &mut self.nodes[i];
        node.finalized.truncate(finalities);
        let recovered = Recovered {
            finality: node.finalized.last().cloned(),
            certificates: node.journal.iter().filter_map(|record| record.certificate.clone()).collect(),
            votes: node.journal.iter().map(|record| OwnVote { signed: record.signed, block: record.block }).collect(),
        };
        node.engine = Engine::new(self.config.clone(), self.context.clone(), Some(node.key), recovered, self.now);
        node.up = true;
        let work = node.work;
        self.drain(i);
        self.meet(i);
        self.tell(i, Input::Work(work));
    }

    /// Heights of the final chain as one node knows it.
    pub fn height(&self, i: usize) -> Height {
        let last = self.nodes[i].finalized.last();
        last.map_or(self.context.base_height, |certificate| self.blocks[&certificate.statement.digest].height)
    }

    /// All final blocks of all nodes lie on one chain.
    pub fn assert_agreement(&self) {
        let mut chain: BTreeMap<Height, BlockHash> = BTreeMap::new();
        for certificate in self.nodes.iter().flat_map(|node| &node.finalized) {
            let mut digest = certificate.statement.digest;
            while let Some(block) = self.blocks.get(&digest) {
                let first = *chain.entry(block.height).or_insert(digest);
                assert_eq!(first, digest, "two final blocks at height {}", block.height);
                digest = block.parent;
            }
        }
        let epoch = Epoch(0);
        assert!(self.nodes.iter().flat_map(|node| &node.finalized).all(|c| c.statement.epoch == epoch));
    }

    /// No honest node contradicts itself, and nobody convicts one.
    pub fn assert_honest(&self) {
        for node in &self.nodes {
            assert!(node.evidence.is_empty(), "{:?}", node.evidence);
            for (n, record) in node.journal.iter().enumerate() {
                assert!(!node.journal[..n].iter().any(|other| other.signed.statement.contradicts(&record.signed.statement)));
            }
        }
    }
}
