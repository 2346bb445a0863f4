//! Makes batches of transactions that nobody can pay for, more than its share, some with bad signatures, announces what does
//! not exist, and asks for everything.

use std::sync::Arc;

use types::{
    AccountKey, Action, Amount, Batch, BatchHeader, BatchId, Hash, Height, Message, Nonce, Sequence, SignedTransaction,
    Transaction, transactions_root,
};

use super::{Adversary, Context, Parcel};

/// First account number of its own, unfunded, senders.
const ACCOUNTS: u32 = 1_000_000;

/// Floods with batches.
#[derive(Default)]
pub struct BatchSpammer {
    made: u64,
}

impl BatchSpammer {
    fn batch(&mut self, context: &mut Context<'_>) -> Batch {
        self.made += 1;
        let expiry = Height(context.height.0 + context.epoch.params.batch_life);
        let count = context.dice.range(1, 3);
        let mut transactions: Vec<SignedTransaction> = (0..count)
            .map(|i| {
                let sender = AccountKey::development(ACCOUNTS + (self.made * 4 + i) as u32);
                let action = Action::Transfer { to: sender.public().address(), amount: Amount(1), memo: Vec::new() };
                Transaction { chain: context.chain, sender: sender.public(), nonce: Nonce(0), expiry, action }.sign(&sender)
            })
            .collect();
        if context.dice.chance(200) {
            transactions[0].signature.0[3] ^= 1;
        }
        let header = BatchHeader {
            chain: context.chain,
            epoch: context.epoch.epoch,
            author: context.key.public(),
            sequence: Sequence(1_000_000 + self.made),
            expiry,
            count: transactions.len() as u32,
            bytes: transactions.iter().map(SignedTransaction::size).sum::<usize>() as u32,
            root: transactions_root(transactions.iter().map(SignedTransaction::id)),
        };
        let mut signature = context.key.sign(&header.signing_bytes());
        if context.dice.chance(100) {
            signature.0[9] ^= 1;
        }
        Batch { header, signature, transactions }
    }
}

impl Adversary for BatchSpammer {
    fn send(&mut self, _context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>) {
        out.push(parcel);
    }

    fn act(&mut self, context: &mut Context<'_>, out: &mut Vec<Parcel>) {
        if context.dice.chance(300) {
            let ids: Vec<BatchId> = (0..8).map(|_| BatchId(Hash([context.dice.below(256) as u8; 32]))).collect();
            let to = context.dice.below(context.nodes);
            out.push(Parcel::new(to, Message::Announce(ids.clone())));
            out.push(Parcel::new(to, Message::FetchBatches(ids)));
            return;
        }
        let batch = Arc::new(self.batch(context));
        let audience = context.dice.any();
        for to in (0..context.nodes).filter(|to| audience >> to & 1 == 1) {
            out.push(Parcel::new(to, Message::Batch(Arc::clone(&batch))));
        }
    }
}
