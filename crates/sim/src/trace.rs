//! A hash over everything that happened: equal seeds give equal hashes, in one process and in the next.

use types::{Certificate, Hash, Message, SignedStatement, Tick, encode};

const TAG: &str = "simulation-trace";
const CHUNK: usize = 1 << 14;

/// The running hash.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: Hash,
    buffer: Vec<u8>,
}

impl Trace {
    /// Adds an event: when, what, where, and the bytes that tell it from others.
    pub fn add(&mut self, now: Tick, what: &str, place: u64, bytes: &[u8]) {
        self.buffer.extend_from_slice(&now.0.to_le_bytes());
        self.buffer.extend_from_slice(what.as_bytes());
        self.buffer.extend_from_slice(&place.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.fold();
        }
    }

    /// Adds a message by its kind and signatures: hashing every byte would cost more than the simulation.
    pub fn message(&mut self, now: Tick, place: u64, message: &Message) {
        let signed = |signed: &SignedStatement| signed.signature.0[..16].to_vec();
        let certificate = |certificate: &Certificate| encode(&certificate.statement);
        let bytes = match message {
            Message::Proposal(proposal) => signed(&proposal.head),
            Message::Vote(vote) => signed(&vote.signed),
            Message::Certificate(one) => certificate(one),
            Message::Certificates(all) => all.iter().flat_map(certificate).collect(),
            Message::Batch(batch) => batch.signature.0[..16].to_vec(),
            Message::Block(block) => block.hash().0.0.to_vec(),
            Message::SyncBlocks(sync) => sync.blocks.iter().flat_map(|block| block.hash().0.0).collect(),
            Message::Transactions(list) => list.iter().flat_map(|tx| tx.signature.0).collect(),
            other => other.to_bytes(),
        };
        self.add(now, message.as_str(), place, &bytes);
    }

    fn fold(&mut self) {
        self.buffer.extend_from_slice(&self.hash.0);
        self.hash = Hash::tagged(TAG, &self.buffer);
        self.buffer.clear();
    }

    /// The hash so far.
    pub fn finish(mut self) -> Hash {
        self.fold();
        self.hash
    }
}
