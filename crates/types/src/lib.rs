//! The vocabulary of ebpf-blockchain: ids, keys, amounts, transactions, batches, blocks, statements, certificates, proofs,
//! with their canonical bytes and pure checks. It is all that a light client needs. The formats are described for other
//! languages in `docs/spec/wire.md` and frozen by its vectors.
//!
//! Never here: I/O, floats, iteration over hash maps, clocks, randomness of its own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod block;
mod epoch;
mod genesis;
mod handshake;
mod hash;
mod ids;
mod key;
pub mod merkle;
mod message;
mod offence;
mod proof;
mod receipt;
mod state;
mod statement;
mod transaction;

pub use batch::{Batch, BatchError, BatchHeader, transactions_root};
pub use block::{BLOCK_VERSION, Block, Body, BodyItem, Header};
pub use epoch::{EpochError, EpochRecord, Params, Seat, VALIDATORS_MAX, Validator, ValidatorSet};
pub use genesis::{GenesisError, GenesisRecord};
pub use handshake::{Hello, PEER_ID_BYTES_MAX, ProofOfValidator, WIRE_VERSION};
pub use hash::{Address, BatchId, BlockHash, ChainId, DecodeError, HASH_BYTES, Hash, TxId, decode, encode};
pub use ids::{Amount, Epoch, Height, Nonce, Sequence, Stake, Tick, UnixMs, View};
pub use key::{AccountKey, BadSignature, BatchItem, PublicKey, SCHEME_ED25519, Signature, verify_batch};
pub use message::{
    BULK_LANE_BYTES_MAX, CERTIFICATES_MAX, FORWARD_MAX, IDS_MAX, Lane, Message, Proposal, SYNC_BLOCKS_MAX, Status, SyncBlocks,
    VOTE_LANE_BYTES_MAX, Vote,
};
pub use offence::Offence;
pub use proof::{FinalityProof, PROOF_HEADERS_MAX, ProofError, StateProof, TransactionProof};
pub use receipt::{Receipt, TxResult, receipts_root};
pub use state::{Account, LeafKind, NONCE_WINDOW, StateKey, StateLeaf, StateValue, Supply, ValidatorState, state_root};
pub use statement::{Certificate, CertificateError, Evidence, Kind, SignedStatement, Statement};
pub use transaction::{Action, SignedTransaction, Transaction, TransactionError};
