//! Hand-made statements, certificates and one engine under test. Signatures are not verified by an engine, so any bytes do.

use consensus::{BlockMeta, Config, Context, Effect, Engine, Input, Recovered};
use types::{
    BlockHash, Certificate, ChainId, Epoch, Hash, Height, Kind, Message, PublicKey, Seat, Signature, SignedStatement, Stake,
    Statement, Tick, Validator, ValidatorSet, View,
};

pub const CHAIN: ChainId = ChainId(Hash([7; 32]));

pub fn key(i: u8) -> PublicKey {
    PublicKey([i; 32])
}

pub fn set(n: u8, epoch: u64) -> ValidatorSet {
    ValidatorSet::new(Epoch(epoch), (0..n).map(|i| Validator { key: key(i), weight: Stake(1) }).collect())
}

pub fn context(n: u8, epoch: u64) -> Context {
    Context {
        chain: CHAIN,
        set: set(n, epoch),
        base: digest(0),
        base_height: Height(10 * epoch),
        last_height: Height(10 * (epoch + 1)),
        admitting: None,
    }
}

pub fn digest(i: u8) -> BlockHash {
    BlockHash(Hash([i; 32]))
}

pub fn meta(block: u8, parent: u8, height: u64) -> BlockMeta {
    BlockMeta { digest: digest(block), parent: digest(parent), height: Height(height) }
}

pub fn about(kind: Kind, view: u64, parent_view: u64, block: u8) -> Statement {
    Statement { chain: CHAIN, epoch: Epoch(0), view: View(view), kind, parent_view: View(parent_view), digest: digest(block) }
}

pub fn nullify(view: u64) -> Statement {
    Statement::nullify(CHAIN, Epoch(0), View(view))
}

pub fn signed(by: PublicKey, statement: Statement) -> SignedStatement {
    let mut signature = [statement.kind as u8; 64];
    signature[..32].copy_from_slice(&by.0);
    SignedStatement { statement, key: by, signature: Signature(signature) }
}

pub fn certificate(set: &ValidatorSet, statement: Statement, seats: &[u16]) -> Certificate {
    let votes: Vec<_> = seats.iter().map(|i| (Seat(*i), signed(set.get(Seat(*i)).unwrap().key, statement).signature)).collect();
    Certificate::assemble(set, statement, &votes)
}

/// One engine of four validators, whose signer signs at once and whose shell calls everything valid.
pub struct Hand {
    pub engine: Engine,
    pub me: PublicKey,
    pub now: Tick,
    /// Everything that came out, in order.
    pub out: Vec<Effect>,
    pub sign: bool,
    pub verdict: Option<consensus::Verdict>,
}

impl Hand {
    pub fn new(me: u8) -> Hand {
        Hand::with(me, Recovered::default(), context(4, 0))
    }

    pub fn with(me: u8, recovered: Recovered, context: Context) -> Hand {
        let engine = Engine::new(Config::default(), context, Some(key(me)), recovered, Tick(0));
        let verdict = Some(consensus::Verdict::Valid);
        let mut hand = Hand { engine, me: key(me), now: Tick(0), out: Vec::new(), sign: true, verdict };
        hand.drain();
        for i in 0..4 {
            if i != me {
                hand.tell(Input::PeerConnected(key(i)));
            }
        }
        hand
    }

    fn drain(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            self.out.push(effect.clone());
            match effect {
                Effect::Sign { statement, .. } if self.sign => {
                    self.engine.handle(Input::Signed(signed(self.me, statement)), self.now);
                }
                Effect::Judge { view, block, .. } => {
                    if let Some(verdict) = self.verdict {
                        self.engine.handle(Input::Judged { view, digest: block.digest, verdict }, self.now);
                    }
                }
                _ => {}
            }
        }
    }

    pub fn tell(&mut self, input: Input) -> &mut Hand {
        self.engine.handle(input, self.now);
        self.drain();
        self
    }

    pub fn vote(&mut self, by: u8, statement: Statement) -> &mut Hand {
        self.tell(Input::Vote { signed: signed(key(by), statement), from: key(by) })
    }

    pub fn certify(&mut self, statement: Statement) -> &mut Hand {
        let certificate = certificate(&set(4, 0), statement, &[0, 1, 2]);
        self.tell(Input::Certificate(certificate))
    }

    /// The leader's proposal of a block.
    pub fn propose(&mut self, view: u64, parent_view: u64, block: BlockMeta) -> &mut Hand {
        let leader = self.engine.leader(View(view));
        let mut statement = about(Kind::Propose, view, parent_view, 0);
        statement.digest = block.digest;
        self.tell(Input::Proposal { head: signed(leader, statement), block, from: leader })
    }

    pub fn wait_ms(&mut self, ms: u64) -> &mut Hand {
        self.now = self.now.plus_ms(ms);
        self.tell(Input::Timeout)
    }

    /// Statements that the signer was asked for since the last call, and clears all that came out.
    pub fn asked(&mut self) -> Vec<Statement> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .filter_map(|effect| if let Effect::Sign { statement, .. } = effect { Some(statement) } else { None })
            .collect()
    }

    /// Messages since the last call, and clears all that came out.
    pub fn sent(&mut self) -> Vec<(consensus::Target, Message)> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .filter_map(|effect| if let Effect::Send { to, message } = effect { Some((to, message)) } else { None })
            .collect()
    }

    /// A view from `from` on that this engine does not lead.
    pub fn led_by_other(&self, from: u64) -> u64 {
        (from..from + 64).find(|view| self.engine.leader(View(*view)) != self.me).unwrap()
    }

    /// A view from `from` on that this engine leads.
    pub fn led_by_me(&self, from: u64) -> u64 {
        (from..from + 64).find(|view| self.engine.leader(View(*view)) == self.me).unwrap()
    }

    /// Goes to a view by its predecessor's nullification.
    pub fn go_to(&mut self, view: u64) -> &mut Hand {
        for v in self.engine.view().0..view {
            self.certify(nullify(v));
        }
        assert_eq!(self.engine.view(), View(view));
        self.out.clear();
        self
    }
}
