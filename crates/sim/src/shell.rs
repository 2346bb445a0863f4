//! What a node's shell does in the simulation: effects are carried out, messages take to the wire, and the judges listen.

use std::sync::Arc;

use replica::{Effect, Event as Told, Fatal, Input, Peer, StoreOp};
use types::{Certificate, Message, Offence, SignedStatement};

use crate::adversary::{Context, Parcel};
use crate::keys;
use crate::plan::CLASSES;
use crate::world::{Answer, Event, World};

/// The class of a message, for loss.
fn class(message: &Message) -> usize {
    let class = match message {
        Message::Proposal(_) => 0,
        Message::Vote(vote) if vote.signed.statement.kind == types::Kind::Finalize => 1,
        Message::Vote(_) => 2,
        Message::Certificate(_) | Message::Certificates(_) => 3,
        Message::Batch(_) | Message::Announce(_) | Message::Transactions(_) => 4,
        _ => 5,
    };
    class.min(CLASSES - 1)
}

impl World {
    /// Carries out all effects of a replica. An armed crash comes between two of them.
    pub(crate) fn carry_out(&mut self, at: usize) {
        let mut effects = Vec::new();
        if let Some(replica) = &mut self.instances[at].replica {
            while let Some(effect) = replica.poll_effect() {
                effects.push(effect);
            }
        }
        let visible = effects.iter().any(|effect| matches!(effect, Effect::Send { .. } | Effect::Store { .. }));
        if self.instances[at].crash_armed && visible {
            let keep = self.dice.below(effects.len() + 1);
            effects.truncate(keep);
            effects.into_iter().for_each(|effect| self.effect(at, effect));
            return self.crash(at);
        }
        for effect in effects {
            self.effect(at, effect);
        }
        self.schedule_wake(at);
    }

    pub(crate) fn schedule_wake(&mut self, at: usize) {
        let due = self.instances[at].replica.as_ref().and_then(replica::Replica::poll_timeout);
        let due = due.map(|due| due.max(self.now.next()));
        if due != self.instances[at].wake {
            self.instances[at].wake = due;
            if let Some(due) = due {
                let life = self.instances[at].life;
                self.at(due, Event::Wake(at, life));
            }
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let life = self.instances[at].life;
        match effect {
            Effect::Send { peer, message } => self.send(at, peer, &message),
            Effect::Verify { token, transactions } => {
                let good = self.verdicts(transactions.transactions());
                let delay = self.dice.range(0, self.plan.verify_ms);
                self.after_ms(delay, Event::Answer(at, life, Answer::Verified(token, good)));
            }
            Effect::Store { token, op } => {
                self.observe_store(at, &op);
                let synced = matches!(op, StoreOp::Batches(_) | StoreOp::Final(_));
                let number = self.instances[at].store.write(op);
                let (low, high) = self.plan.sync_ms;
                let delay = if synced { self.dice.range(low, high) } else { 0 };
                let done = self.storage_free[at].max(self.now).plus_ms(delay);
                self.storage_free[at] = done;
                self.at(done, Event::Answer(at, life, Answer::Stored(token, number, synced)));
            }
            Effect::Load { token, load } => {
                self.after_ms(1, Event::Answer(at, life, Answer::Loaded(token, load)));
            }
            Effect::Offence { peer, offence, detail } => self.offence(at, peer, offence, detail),
            Effect::CloseStreams { validator } => {
                if self.instances[at].honest && self.is_honest_key(&validator) {
                    self.fail(format!("ACCUSED streams of honest {validator} are closed"));
                }
            }
            Effect::Evidence(evidence) => {
                self.mark("evidence");
                if self.instances[at].honest && (!evidence.verify() || self.is_honest_key(&evidence.key)) {
                    self.fail(format!("ACCUSED evidence against {}", evidence.key));
                }
            }
            Effect::Answer { token, results } => self.submitted(at, token, &results),
            Effect::Event(event) => self.told(at, event),
            Effect::Fatal(fatal) => self.fatal(at, &fatal),
        }
    }

    fn is_honest_key(&self, key: &types::PublicKey) -> bool {
        (0..self.plan.validators).any(|node| self.plan.is_honest(node) && keys::validator(node).public() == *key)
    }

    fn offence(&mut self, at: usize, peer: Peer, offence: Offence, detail: &'static str) {
        self.mark("offence");
        let Some(other) = self.instances[at].peers.get(&peer).copied() else { return };
        self.say(at, || format!("charges {} with {offence}: {detail}", self.instances[other].name));
        if self.instances[at].honest && self.instances[other].honest {
            let (name, accused) = (&self.instances[at].name, &self.instances[other].name);
            self.fail(format!("ACCUSED {name} charges honest {accused} with {offence}: {detail}"));
        }
    }

    fn fatal(&mut self, at: usize, fatal: &Fatal) {
        self.say(at, || format!("stops: {fatal}"));
        let expected = matches!(fatal, Fatal::Journal(_)) && self.instances[at].crash_armed;
        if self.instances[at].honest && !expected {
            self.fail(format!("FATAL {}: {fatal}", self.instances[at].name));
        }
        if expected {
            self.mark("crash inside a sync");
        }
        self.crash(at);
    }

    fn told(&mut self, at: usize, event: Told) {
        let life = self.instances[at].life;
        match event {
            Told::Executed(executed) => {
                let probe = self.clients.probe;
                if executed.receipts.iter().any(|receipt| Some(receipt.id) == probe) {
                    self.clients.executed_probe.insert(at);
                }
            }
            Told::TransactionDropped(dropped) => {
                self.mark("transaction dropped");
                self.clients.dropped.insert((dropped.id, at, life));
            }
            Told::Finalized(finalized) => {
                self.mark("finalized");
                self.say(at, || format!("final height {} view {}", finalized.block.header.height, finalized.view));
            }
            Told::Nullified { view, .. } => {
                self.mark("nullified");
                self.say(at, || format!("nullified view {view}"));
            }
            Told::Notarized { view, .. } => self.say(at, || format!("notarized view {view}")),
            Told::SignRefused(statement) => {
                self.mark("signature refused");
                self.say(at, || format!("refused to sign {statement:?}"));
            }
            Told::StorageBehind => {
                self.mark("storage behind the journal");
                if self.instances[at].honest && !self.instances[at].muted {
                    self.fail(format!("CUT {}: the journal was cut above the synced tip", self.instances[at].name));
                }
            }
            Told::Syncing { .. } => self.mark("sync"),
            Told::Entered { epoch, view, .. } => self.say(at, || format!("enters {epoch}/{view}")),
            Told::Nullifying { view, reason, .. } => self.say(at, || format!("gives up view {view}: {}", reason.as_str())),
            Told::Proposed { view, height, .. } => self.say(at, || format!("proposes height {height} in view {view}")),
            Told::Validated { .. } | Told::BatchMade { .. } | Told::TransactionRefused(_) => {}
        }
    }

    /// What honest nodes write is what they hold true.
    fn observe_store(&mut self, at: usize, op: &StoreOp) {
        if !self.instances[at].honest {
            return;
        }
        match op {
            StoreOp::Batches(batches) => batches.iter().for_each(|batch| self.chain.batch(batch)),
            StoreOp::Final(blocks) => {
                for block in blocks {
                    self.trace.add(self.now, "final", at as u64, &block.block.hash().0.0);
                }
                if let Err(broken) = self.chain.finalized(&self.instances[at].name, blocks) {
                    self.fail(broken);
                }
            }
            StoreOp::Executed(_) | StoreOp::Epoch(_) => {}
        }
    }

    /// A replica sends: an honest one's words are noted, a bad one's are bent.
    fn send(&mut self, at: usize, peer: Peer, message: &Arc<Message>) {
        let Some(to) = self.instances[at].peers.get(&peer).copied() else { return };
        if self.instances[at].honest {
            self.hear(at, message);
            return self.wire(at, to, message, 0);
        }
        if self.hushed {
            return;
        }
        let node = self.instances[to].node;
        let parcels = self.bend(at, Parcel { to: node, message: Arc::clone(message), delay_ms: 0 });
        for parcel in parcels {
            // A twin's other half gets its own copy of what its node is sent.
            self.wire_to_node(at, to, &parcel);
        }
    }

    fn bend(&mut self, at: usize, parcel: Parcel) -> Vec<Parcel> {
        let mut parcels = vec![parcel];
        self.with_adversaries(at, |adversaries, context| {
            for adversary in adversaries {
                let mut out = Vec::new();
                for parcel in parcels.drain(..) {
                    adversary.send(context, parcel, &mut out);
                }
                parcels = out;
            }
        });
        parcels
    }

    fn with_adversaries(&mut self, at: usize, act: impl FnOnce(&mut Vec<Box<dyn crate::adversary::Adversary>>, &mut Context<'_>)) {
        let Some(replica) = &self.instances[at].replica else { return };
        let (epoch, height) = (replica.epochs()[0].clone(), replica.summary().height);
        let node = self.instances[at].node;
        let key = keys::validator(node);
        let mut adversaries = std::mem::take(&mut self.instances[at].adversaries);
        let nodes = self.plan.validators + self.plan.followers;
        let chain = self.plan.genesis.chain_id();
        let mut context = Context { dice: &mut self.dice, key: &key, me: node, nodes, chain, epoch, height };
        act(&mut adversaries, &mut context);
        self.instances[at].adversaries = adversaries;
    }

    /// A bad machine acts unasked.
    pub(crate) fn mischief(&mut self) {
        if self.hushed || self.settling {
            return;
        }
        let pause = self.dice.range(5, 60);
        self.after_ms(pause, Event::Mischief);
        let bad: Vec<usize> = (0..self.instances.len()).filter(|at| !self.instances[*at].adversaries.is_empty()).collect();
        if bad.is_empty() {
            return;
        }
        let at = *self.dice.pick(&bad);
        let mut parcels = Vec::new();
        self.with_adversaries(at, |adversaries, context| {
            for adversary in adversaries {
                adversary.act(context, &mut parcels);
            }
        });
        for parcel in parcels {
            let to: Vec<usize> = self.instances[at].handles.keys().copied().collect();
            for to in to {
                self.mark("mischief");
                self.wire_to_node(at, to, &parcel);
            }
        }
    }

    fn wire_to_node(&mut self, at: usize, to: usize, parcel: &Parcel) {
        if self.instances[to].node == parcel.to {
            self.hear(at, &parcel.message);
            self.wire(at, to, &parcel.message, parcel.delay_ms);
        }
    }

    /// Notes what a message's sender signed itself, and all that its certificates say.
    fn hear(&mut self, at: usize, message: &Message) {
        let mut own: Vec<SignedStatement> = Vec::new();
        let mut certificates: Vec<&Certificate> = Vec::new();
        match message {
            Message::Proposal(proposal) => {
                own.push(proposal.head);
                certificates.extend(&proposal.admitting);
            }
            Message::Vote(vote) => {
                own.push(vote.signed);
                certificates.extend(&vote.certificate);
            }
            Message::Certificate(certificate) => certificates.push(certificate),
            Message::Certificates(list) => certificates.extend(list),
            _ => return,
        }
        let instance = &self.instances[at];
        let key = keys::validator(instance.node).public();
        for signed in own.into_iter().filter(|signed| signed.key == key) {
            self.all_speech.hear(&signed);
            if instance.honest
                && let Some(guilt) = self.honest_speech.hear(&signed)
            {
                let statement = signed.statement;
                let what = format!("DOUBLE {} epoch {} view {}: {guilt}", instance.name, statement.epoch, statement.view);
                return self.fail(what);
            }
        }
        if !self.options.over_third {
            return;
        }
        let seats = &self.plan.genesis.epochs[0].validators;
        for certificate in certificates {
            for (seat, signature) in certificate.seats().zip(&certificate.signatures) {
                if let Some(validator) = seats.get(seat.index()) {
                    let statement = certificate.statement;
                    self.all_speech.hear(&SignedStatement { statement, key: validator.key, signature: *signature });
                }
            }
        }
    }

    /// In the control each half has its own set of twins: between the sets the plot would leak.
    fn betrays_twins(&self, from: usize, to: usize) -> bool {
        let bad = !self.instances[from].honest && !self.instances[to].honest;
        let nodes = self.reach.len();
        self.options.over_third && bad && (from < nodes) != (to < nodes)
    }

    /// A message takes to the wire: it may be cut off, lost, doubled, delayed.
    fn wire(&mut self, from: usize, to: usize, message: &Arc<Message>, extra_ms: u64) {
        let (sender, receiver) = (self.instances[from].node, self.instances[to].node);
        let seen = self.sees[from] >> receiver & 1 == 1 && self.sees[to] >> sender & 1 == 1;
        if !seen || self.reach[sender] >> receiver & 1 == 0 || self.betrays_twins(from, to) {
            return;
        }
        if self.hushed && !self.instances[to].honest {
            return;
        }
        self.messages += 1;
        if !self.healed && self.dice.chance(self.plan.loss[class(message)]) {
            return;
        }
        let Some(peer) = self.instances[to].handles.get(&from).copied() else { return };
        self.say(from, || format!("-> {} {}", self.instances[to].name, brief(message)));
        let copies = if self.dice.chance(self.plan.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let (low, high) = if self.healed { (1, self.plan.healed_delay_ms) } else { self.plan.delay_ms };
            let mut delay_us = self.dice.range(low * 1_000, high.max(low) * 1_000) + extra_ms * 1_000;
            if !self.healed && self.dice.chance(30) {
                delay_us += self.dice.range(50_000, 600_000);
            }
            let message = Arc::clone(message);
            self.at(self.now.plus(delay_us), Event::Deliver { at: to, peer, message });
        }
    }

    /// A message arrives, if its connection still stands. Now and then it goes through its bytes.
    pub(crate) fn deliver(&mut self, at: usize, peer: Peer, message: &Arc<Message>) {
        if !self.instances[at].peers.contains_key(&peer) {
            return;
        }
        self.trace.message(self.now, at as u64, message);
        if self.dice.chance(10) {
            match Message::from_bytes(&message.to_bytes(), message.lane()) {
                Ok(read) if read == **message => {}
                _ => return self.fail(format!("BYTES a {} does not survive its bytes", message.as_str())),
            }
        }
        if !self.instances[at].adversaries.is_empty() {
            self.with_adversaries(at, |adversaries, context| {
                adversaries.iter_mut().for_each(|adversary| adversary.receive(context, message));
            });
        }
        self.input(at, Input::Message { peer, message: Message::clone(message) });
    }
}

/// A message in a few words.
fn brief(message: &Message) -> String {
    let said = |s: &types::Statement| format!("{} {}/{} on {} {:?}", s.kind.as_str(), s.epoch, s.view, s.parent_view, s.digest);
    match message {
        Message::Proposal(proposal) => format!("{} height {}", said(&proposal.head.statement), proposal.block.header.height),
        Message::Vote(vote) => said(&vote.signed.statement),
        Message::Certificate(certificate) => format!("certificate {}", said(&certificate.statement)),
        Message::Certificates(list) => {
            format!("certificates {}", list.iter().map(|c| said(&c.statement)).collect::<Vec<_>>().join(", "))
        }
        Message::Announce(ids) => format!("announce {ids:?}"),
        Message::FetchBatches(ids) => format!("fetch batches {ids:?}"),
        Message::FetchBlock(hash) => format!("fetch block {hash:?}"),
        Message::Batch(batch) => format!("batch {:?} of {:?} expiry {}", batch.id(), batch.header.author, batch.header.expiry),
        Message::Sync(height) => format!("sync from {height}"),
        Message::SyncBlocks(sync) => format!("{} synced blocks, certificate {}", sync.blocks.len(), sync.certificate.is_some()),
        Message::Status(status) => format!("{status:?}"),
        other => other.as_str().to_owned(),
    }
}
