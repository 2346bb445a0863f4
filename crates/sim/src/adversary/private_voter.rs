//! Completes certificates for one peer alone: each view's votes go to a favourite; certificates go to nobody.

use types::Message;

use super::{Adversary, Context, Parcel};

/// Shows its votes to one peer a view.
pub struct PrivateVoter;

impl Adversary for PrivateVoter {
    fn send(&mut self, context: &mut Context<'_>, parcel: Parcel, out: &mut Vec<Parcel>) {
        let keep = match &*parcel.message {
            Message::Vote(vote) => {
                let view = vote.signed.statement.view.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                parcel.to == view as usize % context.nodes
            }
            Message::Certificate(_) | Message::Certificates(_) => context.dice.chance(100),
            _ => true,
        };
        if keep {
            let delay_ms = if context.dice.chance(200) { context.dice.range(50, 800) } else { 0 };
            out.push(Parcel { delay_ms, ..parcel });
        }
    }
}
