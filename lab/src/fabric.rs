//! The fabric: one bridge in a namespace of its own, one namespace a node, a veth pair between. The host's network has no
//! part in it, and deleting the namespaces deletes it all.
//!
//! ```text
//!   <prefix>-node1          <prefix>-fabric            <prefix>-node2
//!   eth0 10.77.0.11 ═════ v-node1 ─ br0 ─ v-node2 ═════ eth0 10.77.0.12
//!   ▲ XDP, native                    │                  ▲ XDP, native
//!                                v-attacker ═════ eth0 10.77.0.2xx  <prefix>-attacker
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::namespace;

/// The bridge's name inside the fabric's namespace.
pub const BRIDGE: &str = "br0";
/// The network of nodes and guests: private, so the egress guard must be told of it.
pub const NETWORK: &str = "10.77.0.0/24";
/// A node's interface inside its namespace.
pub const INTERFACE: &str = "eth0";
/// Most nodes: addresses .11 to .110, so that guests have the rest of the /24.
pub const NODES_MAX: usize = 100;

/// Namespaces that belong together, by their common prefix (`ebpf-devnet-1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    prefix: String,
}

/// The address of node `index`, counted from 0: 10.77.0.11 and on.
pub fn node_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(11 + index).unwrap_or(u8::MAX))
}

/// The address of guest `index`, counted from 0: 10.77.0.201 and on.
pub fn guest_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 201u8.saturating_add(index))
}

impl Fabric {
    /// Makes the bridge's namespace and the bridge.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn create(prefix: &str) -> Result<Fabric> {
        let fabric = Fabric::existing(prefix);
        namespace::create(&fabric.namespace()).context("make the fabric")?;
        let commands = format!(
            "link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set {BRIDGE} up\n"
        );
        namespace::ip(Some(&fabric.namespace()), &commands).context("make the bridge")?;
        Ok(fabric)
    }

    /// The handle of a fabric that somebody made.
    pub fn existing(prefix: &str) -> Fabric {
        Fabric { prefix: prefix.to_owned() }
    }

    /// The bridge's namespace.
    pub fn namespace(&self) -> String {
        format!("{}-fabric", self.prefix)
    }

    /// The namespace of a member.
    pub fn member_namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }

    /// Makes a namespace for a member and plugs it into the bridge; returns its name.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn plug(&self, member: &str, address: Ipv4Addr) -> Result<String> {
        let name = self.member_namespace(member);
        let port = port(member);
        let fabric = self.namespace();
        namespace::create(&name).with_context(|| format!("make the namespace of {member}"))?;
        let inside = format!(
            "link add {INTERFACE} type veth peer name {port} netns {fabric}\n\
             addr add {address}/24 dev {INTERFACE}\n\
             link set {INTERFACE} up\n"
        );
        namespace::ip(Some(&name), &inside).with_context(|| format!("plug in {member}"))?;
        namespace::ip(Some(&fabric), &format!("link set {port} master {BRIDGE} up\n"))
            .with_context(|| format!("plug in {member}"))?;
        Ok(name)
    }

    /// Removes one member's namespace and its veth pair.
    ///
    /// The pair first: the kernel takes its time to clear a namespace away, and whoever takes the member's name meanwhile would find its port.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn unplug(&self, member: &str) -> Result<()> {
        let pair = namespace::ip(Some(&self.namespace()), &format!("link delete {}", port(member)));
        namespace::delete(&self.member_namespace(member))?;
        pair.with_context(|| format!("unplug {member}"))
    }
}

/// The bridge's port of a member. Interface names have at most 15 bytes.
fn port(member: &str) -> String {
    format!("v-{member}").chars().take(15).collect()
}

/// Removes every namespace of a fabric, guests included; says what it could not remove.
pub fn delete_all(prefix: &str) -> Vec<anyhow::Error> {
    let names = namespace::list(&format!("{prefix}-"));
    names.iter().filter_map(|name| namespace::delete(name).err()).collect()
}
