//! Which ports the kernel's drops are told apart by.
//!
//! The first ports that are protected get a slot, and keep it while the maps live, also over a reload and an adoption: a count never changes its
//! owner. All others are counted together.

use super::tables::{Table, TableError};
use crate::protocol::Protocol;
use kernel_shared::drops::{PORT_OTHER, PORTS_NAMED, port_of, port_word};
use std::path::Path;

/// The map's name.
pub const MAP: &str = "DROP_PORTS";
/// What ports without a slot are called.
pub const OTHER: &str = "other";

/// The slots.
pub struct DropPorts {
    table: Table,
    words: Vec<u64>,
}

impl DropPorts {
    /// Opens the map and gives these ports slots, as far as there are free ones.
    pub fn open(directory: &Path, protect: &[(Protocol, u16)]) -> Result<DropPorts, TableError> {
        let table = Table::open(directory, MAP)?;
        let word = |slot: u32| table.get::<u32, u64>(&slot).map(Option::unwrap_or_default);
        let words = (0..PORTS_NAMED).map(word).collect::<Result<Vec<u64>, TableError>>()?;
        let mut ports = DropPorts { table, words };
        ports.assign(protect)?;
        Ok(ports)
    }

    /// Gives these ports slots, those aside that have one.
    pub fn assign(&mut self, protect: &[(Protocol, u16)]) -> Result<(), TableError> {
        for (protocol, port) in protect {
            let word = port_word(protocol.number(), *port);
            if self.words.contains(&word) {
                continue;
            }
            let Some((slot, free)) = (0u32..).zip(&mut self.words).find(|(_, word)| **word == 0) else { return Ok(()) };
            self.table.set(&slot, &word, PORTS_NAMED as usize)?;
            *free = word;
        }
        Ok(())
    }

    /// Name of a slot's port: `udp/9000`, or `other`.
    pub fn label(&self, slot: u32) -> String {
        let named = self.words.get(slot.min(PORT_OTHER) as usize).and_then(|word| port_of(*word));
        let named = named.and_then(|(protocol, port)| Some((Protocol::from_number(protocol)?, port)));
        named.map_or(OTHER.to_string(), |(protocol, port)| format!("{}/{port}", protocol.as_str()))
    }
}
