//! Crashes, restarts, partitions, twins' changing views, and connections.

use replica::{Input, Peer};

use crate::adversary::twin;
use crate::keys;
use crate::world::{Event, World};

impl World {
    /// The power goes with the node's next effects, or inside a sync of its journal.
    pub(crate) fn arm_crash(&mut self, at: usize) {
        if self.healed || !self.instances[at].honest || self.instances[at].replica.is_none() {
            return;
        }
        self.instances[at].crash_armed = true;
        if self.dice.chance(300) {
            self.instances[at].journal.fail_next_sync();
        }
    }

    /// Power loss: the process is gone, and what was not synced with it.
    pub(crate) fn crash(&mut self, at: usize) {
        if self.instances[at].replica.is_none() {
            return;
        }
        self.mark("crash");
        self.say(at, || "crashes".to_owned());
        self.trace.add(self.now, "crash", at as u64, &[]);
        let instance = &mut self.instances[at];
        instance.replica = None;
        instance.life += 1;
        instance.wake = None;
        instance.crash_armed = false;
        instance.journal.crash(&mut self.dice);
        instance.store.crash(&mut self.dice, self.plan.keeps_unsynced);
        self.storage_free[at] = self.now;
        let others: Vec<usize> = self.instances[at].handles.keys().copied().collect();
        for other in others {
            self.disconnect(at, other);
        }
        let pause = self.dice.range(5, 500);
        self.after_ms(pause, Event::Restart(at));
    }

    /// A machine starts, or starts again.
    pub(crate) fn start(&mut self, at: usize) {
        let now = self.now;
        self.trace.add(now, "start", at as u64, &[]);
        let started = self.instances[at].start(&self.plan, &self.config, &self.signer, now);
        if let Err(error) = started {
            let name = &self.instances[at].name;
            return self.fail(format!("RECOVERY {name}: {error}"));
        }
        self.say(at, || format!("starts: {:?}", self.instances[at].replica.as_ref().map(replica::Replica::summary)));
        self.carry_out(at);
        for other in 0..self.instances.len() {
            self.connect(at, other);
        }
    }

    /// All honest machines lose power at once.
    pub(crate) fn power_loss(&mut self) {
        if self.healed {
            return;
        }
        self.mark("power loss everywhere");
        for at in 0..self.instances.len() {
            if self.instances[at].honest {
                self.crash(at);
            }
        }
    }

    pub(crate) fn connect(&mut self, one: usize, other: usize) {
        let apart = self.instances[one].node != self.instances[other].node;
        let up = self.instances[one].replica.is_some() && self.instances[other].replica.is_some();
        if !apart || !up || self.instances[one].handles.contains_key(&other) {
            return;
        }
        for (at, to) in [(one, other), (other, one)] {
            self.next_peer += 1;
            let peer = Peer(self.next_peer);
            self.instances[at].peers.insert(peer, to);
            self.instances[at].handles.insert(to, peer);
        }
        for (at, to) in [(one, other), (other, one)] {
            let Some(peer) = self.instances[at].handles.get(&to).copied() else { continue };
            let node = self.instances[to].node;
            let validator = (node < self.plan.validators).then(|| keys::validator(node).public());
            self.input(at, Input::PeerConnected { peer, validator });
        }
    }

    pub(crate) fn disconnect(&mut self, one: usize, other: usize) {
        for (at, to) in [(one, other), (other, one)] {
            let Some(peer) = self.instances[at].handles.remove(&to) else { continue };
            self.instances[at].peers.remove(&peer);
            self.input(at, Input::PeerDisconnected(peer));
        }
    }

    /// Resets a connection: what is in flight is lost.
    pub(crate) fn reset(&mut self, one: usize, other: usize) {
        self.disconnect(one, other);
        self.connect(one, other);
    }

    /// Cuts links anew: not at all, in halves, one node apart, or one way only.
    pub(crate) fn partition(&mut self) {
        if self.healed {
            return;
        }
        let nodes = self.reach.len();
        self.reach.fill(u64::MAX);
        let next = self.dice.range(60, 500);
        if self.options.over_third {
            self.halve_with_twins();
        } else if self.plan.partitions {
            match self.dice.below(4) {
                0 => {}
                1 => {
                    let half = self.dice.subset(nodes);
                    for node in 0..nodes {
                        self.reach[node] = if half >> node & 1 == 1 { half } else { !half };
                    }
                    self.mark("halves");
                }
                2 => {
                    let apart = self.dice.below(nodes);
                    self.reach.iter_mut().for_each(|reach| *reach &= !(1 << apart));
                    self.reach[apart] = 1 << apart;
                    self.mark("island");
                }
                _ => {
                    let mute = self.dice.below(nodes);
                    self.reach[mute] = self.dice.any() | 1 << mute;
                    self.mark("one-way cut");
                }
            }
        }
        if self.dice.chance(300) {
            let (one, other) = (self.dice.below(self.instances.len()), self.dice.below(self.instances.len()));
            if self.instances[one].handles.contains_key(&other) {
                self.reset(one, other);
            }
        }
        self.after_ms(next, Event::Partition);
    }

    /// The control: honest nodes in two halves, of every bad key one twin in each.
    fn halve_with_twins(&mut self) {
        let nodes = self.reach.len();
        let bad: u64 = (0..nodes).filter(|node| !self.plan.is_honest(*node)).fold(0, |bits, node| bits | 1 << node);
        let half = self.dice.subset(nodes);
        for node in (0..nodes).filter(|node| bad >> node & 1 == 0) {
            self.reach[node] = bad | if half >> node & 1 == 1 { half } else { !half };
        }
        for (first, second) in self.twins() {
            self.sees[first] = half | bad;
            self.sees[second] = !half | bad;
        }
    }

    /// Pairs of machines under one key.
    fn twins(&self) -> Vec<(usize, usize)> {
        let nodes = self.reach.len();
        let second = nodes..self.instances.len();
        second.map(|second| (self.instances[second].node, second)).collect()
    }

    /// Each twin sees other nodes than before.
    pub(crate) fn split_twins(&mut self) {
        let nodes = self.reach.len();
        for (first, second) in self.twins() {
            (self.sees[first], self.sees[second]) = twin::split(&mut self.dice, nodes);
        }
        let next = self.dice.range(100, 900);
        self.after_ms(next, Event::Twins);
    }

    /// The end of chaos: everything runs, everybody reaches everybody, connections are new.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.reach.fill(u64::MAX);
        for at in 0..self.instances.len() {
            self.instances[at].crash_armed = false;
            if self.instances[at].replica.is_some() && self.instances[at].honest {
                // An armed failure of the disk that has not come is taken back.
                self.instances[at].journal.work_again();
            }
        }
        for at in 0..self.instances.len() {
            if self.instances[at].replica.is_none() {
                self.start(at);
            }
        }
        for one in 0..self.instances.len() {
            for other in 0..one {
                self.reset(one, other);
            }
        }
    }
}
