//! The socket: who has a place there, and what ends when a caller leaves.

use crate::support::{Lab, until};
use guard::{ClientError, ErrorCode, kernel::events::SUBSCRIBERS_MAX};

#[test]
fn subscribers_that_hang_up_give_their_places_back_without_a_drop() {
    let Some(lab) = Lab::new("subscribers_that_hang_up_give_their_places_back_without_a_drop") else { return };
    let guard = lab.start(&[]);
    let subscribe = || {
        let mut client = guard.client();
        client.subscribe().map(|()| client)
    };
    let all: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscribe().unwrap()).collect();
    assert!(matches!(subscribe(), Err(ClientError::Refused { code: ErrorCode::Full, .. })));
    drop(all);
    until("a place", || subscribe().ok());
}
