//! No bytes from a peer make the decoder panic.

use proptest::prelude::*;
use types::{Lane, Message};

use crate::world::{batch, vote};

fn survives(bytes: &[u8]) {
    for lane in Lane::ALL {
        if let Ok(message) = Message::from_bytes(bytes, lane) {
            assert_eq!(message.lane(), lane);
            assert_eq!(message.to_bytes(), bytes, "one message has one encoding");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survives(&bytes);
    }

    /// Every message's tag, then anything.
    #[test]
    fn random_bodies(tag in 0u8..16, body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..600)) {
        survives(&[&[tag], body.as_slice()].concat());
    }

    /// A good message with some bytes changed, cut or added.
    #[test]
    fn bent_messages(bulk in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>()) {
        let message = if bulk { batch(1, 200) } else { vote(1) };
        let mut bytes = message.to_bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        survives(&bytes);
    }
}
