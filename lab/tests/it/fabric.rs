//! Guests come and go: names and ports are free again at once, and nobody takes another's.

use crate::ground::namespaces;
use lab::fabric::{Fabric, delete_all, guest_address};

/// A prefix of this test process's own, cleared away at the end whatever happens.
struct Own(String);

impl Drop for Own {
    fn drop(&mut self) {
        delete_all(&self.0);
    }
}

#[test]
fn a_guest_that_is_unplugged_leaves_its_place_at_once() {
    if !namespaces() {
        return;
    }
    let own = Own(format!("ebpf-test-{}", std::process::id()));
    let fabric = Fabric::create(&own.0).unwrap();
    for _ in 0..10 {
        fabric.plug("attacker1", guest_address(0)).unwrap();
        assert!(fabric.plug("attacker1", guest_address(0)).is_err(), "the name is taken");
        fabric.unplug("attacker1").unwrap();
    }
}
