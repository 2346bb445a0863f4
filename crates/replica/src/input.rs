//! What the shell tells a replica.

use std::sync::Arc;

use types::{Batch, Block, Certificate, Message, PublicKey, SignedTransaction};

/// A peer's handle, given by the shell; of one life of its connection, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub u64);

/// Names an effect that is answered by an input. The replica's own tokens count from 1; the shell's (of
/// [`Input::Submit`]) are the shell's affair and only handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a replica is told, one at a time.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's handshake is done. `validator` is the key whose proof of validator it showed.
    PeerConnected {
        /// Its handle.
        peer: Peer,
        /// The validator key that it proved.
        validator: Option<PublicKey>,
    },
    /// The peer is gone; what was in flight is lost.
    PeerDisconnected(Peer),
    /// A decoded message, its lane and list bounds checked ([`Message::from_bytes`]).
    Message {
        /// From whom.
        peer: Peer,
        /// What it says.
        message: Message,
    },
    /// Transactions from the node's own API; answered by [`crate::Effect::Answer`] with the same token.
    Submit {
        /// The shell's token.
        token: Token,
        /// Decoded, not verified.
        transactions: Vec<SignedTransaction>,
    },
    /// Answers [`crate::Effect::Verify`]: a verdict for each of its transactions, in order.
    Verified {
        /// The effect's token.
        token: Token,
        /// Whether the signature verifies (ZIP-215).
        good: Vec<bool>,
    },
    /// Answers [`crate::Effect::Store`]: done, and synced if the operation says so. An error is not an input: it ends the
    /// process.
    Stored {
        /// The effect's token.
        token: Token,
    },
    /// Answers [`crate::Effect::Load`].
    Loaded {
        /// The effect's token.
        token: Token,
        /// What storage holds.
        loaded: Loaded,
    },
    /// Time has passed.
    Timeout,
}

/// What storage found.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Answers [`crate::Load::FinalBlocks`]: final blocks in order from the height asked, empty if there are none, with the
    /// finality certificate of the last one if it has its own.
    FinalBlocks {
        /// In order of height, without a gap.
        blocks: Vec<Arc<Block>>,
        /// Of the last of them.
        certificate: Option<Certificate>,
    },
    /// Answers [`crate::Load::Block`].
    Block(Option<Arc<Block>>),
    /// Answers [`crate::Load::Batches`]: those that are held, in any order.
    Batches(Vec<Arc<Batch>>),
    /// Answers [`crate::Load::Finality`].
    Certificate(Option<Certificate>),
}
