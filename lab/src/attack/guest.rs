//! A guest's namespace on a running devnet's fabric. Dropping it unplugs it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::fabric::{Fabric, guest_address};
use crate::namespace;
use crate::state::State;

/// Most guests at once.
const GUESTS_MAX: u8 = 50;

/// The guest.
#[derive(Debug)]
pub struct Guest {
    fabric: Fabric,
    name: String,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// Its namespace.
    pub netns: PathBuf,
}

impl Guest {
    /// Plugs in the first free guest.
    ///
    /// # Errors
    /// If the devnet has no fabric, or no room.
    pub fn plug(state: &State) -> Result<Guest> {
        let fabric = state.fabric.as_ref().context("this devnet runs on loopback: there is no fabric to attack from")?;
        let fabric = Fabric::existing(&fabric.prefix);
        for index in 0..GUESTS_MAX {
            let name = format!("attacker{}", index + 1);
            if namespace::path(&fabric.member_namespace(&name)).exists() {
                continue;
            }
            let address = guest_address(index);
            let namespace = fabric.plug(&name, address)?;
            return Ok(Guest { fabric, name, address, netns: namespace::path(&namespace) });
        }
        bail!("{GUESTS_MAX} attackers are here already")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = self.fabric.unplug(&self.name) {
            eprintln!("ebpf-lab: could not unplug {}: {error:#}", self.name);
        }
    }
}
