//! A node's home folder: keys, genesis, configuration.

use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, chown};
use types::{GenesisRecord, PublicKey};

use crate::files::write_json;

/// Which transport nodes dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// TCP with noise and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Identity {
    /// libp2p identity, base58.
    pub peer_id: String,
    /// Its validator key.
    pub validator_key: PublicKey,
}

/// A node's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name, `node1` and on.
    pub name: String,
    /// Its folder.
    pub home: PathBuf,
    /// Where peers reach it: the same port for TCP and UDP.
    pub address: SocketAddr,
    /// The guard's socket.
    pub guard: Option<PathBuf>,
}

/// Makes the home with `ebpf-node init` and asks who it is.
///
/// # Errors
/// If the program fails or answers something else.
pub fn init(program: &Path, home: &Path) -> Result<Identity> {
    run(program, &["init"], home)?;
    let output = run(program, &["keys", "show", "--json"], home)?;
    serde_json::from_slice(&output).with_context(|| format!("identity of {}", home.display()))
}

fn run(program: &Path, arguments: &[&str], home: &Path) -> Result<Vec<u8>> {
    // What it says is shown as one line, so no stack belongs in it.
    let output = Command::new(program).args(arguments).arg("--home").arg(home).env("RUST_BACKTRACE", "0").output();
    let output = output.with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {}: {}", program.display(), arguments.join(" "), said.trim());
    }
    Ok(output.stdout)
}

/// Writes genesis and configuration: everybody is everybody's peer, so any restart order heals.
///
/// # Errors
/// If a file can't be written.
pub fn configure(
    place: &Place,
    everybody: &[(Place, Identity)],
    genesis: &GenesisRecord,
    transport: Transport,
    api: SocketAddr,
) -> Result<()> {
    write_json(&place.home.join("genesis.json"), genesis)?;
    let text = config(place, everybody, transport, api)?;
    std::fs::write(place.home.join("node.toml"), text).with_context(|| format!("write the configuration of {}", place.name))
}

fn config(place: &Place, everybody: &[(Place, Identity)], transport: Transport, api: SocketAddr) -> Result<String> {
    let others = everybody.iter().filter(|(other, _)| other.name != place.name);
    let peers: Vec<String> =
        others.map(|(other, identity)| format!("{}/p2p/{}", multiaddr(other.address, transport), identity.peer_id)).collect();
    let listen = [multiaddr(place.address, Transport::Tcp), multiaddr(place.address, Transport::Quic)];
    let mut text = String::new();
    writeln!(text, "# Written by ebpf-lab devnet at each start.")?;
    writeln!(text, "[node]\nname = {:?}\ngenesis = \"genesis.json\"\ndata_dir = \"data\"\n", place.name)?;
    writeln!(text, "[validator]\nkey = \"validator.key\"\n")?;
    writeln!(text, "[network]\nkey = \"network.key\"\nlisten = {listen:?}\npeers = {peers:?}\n")?;
    writeln!(text, "[api]\nlisten = \"{api}\"\n")?;
    if let Some(socket) = &place.guard {
        writeln!(text, "[guard]\nsocket = {:?}\n", socket.display().to_string())?;
    }
    writeln!(text, "[log]\nlevel = \"info\"\nformat = \"json\"")?;
    Ok(text)
}

fn multiaddr(address: SocketAddr, transport: Transport) -> String {
    match transport {
        Transport::Tcp => format!("/ip4/{}/tcp/{}", address.ip(), address.port()),
        Transport::Quic => format!("/ip4/{}/udp/{}/quic-v1", address.ip(), address.port()),
    }
}

/// Gives a folder and all in it to a user, for nobody else to read.
///
/// # Errors
/// If the kernel refuses.
pub fn give_to(folder: &Path, uid: u32) -> Result<()> {
    let own = |path: &Path| {
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).with_context(|| format!("give {} to {uid}", path.display()))
    };
    own(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("close {}", folder.display()))?;
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            give_to(&entry.path(), uid)?;
        } else {
            own(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: usize) -> Place {
        Place {
            name: format!("node{}", index + 1),
            home: PathBuf::from("/nowhere"),
            address: SocketAddr::from((crate::fabric::node_address(index), 9_000)),
            guard: Some(PathBuf::from("/run/g.sock")),
        }
    }

    #[test]
    fn configuration_names_all_others() {
        let identity = |n: u8| Identity { peer_id: format!("12D3Peer{n}"), validator_key: PublicKey([n; 32]) };
        let everybody = [(place(0), identity(0)), (place(1), identity(1)), (place(2), identity(2))];
        let api = SocketAddr::from(([127, 0, 0, 1], 8_545));
        let text = config(&everybody[1].0, &everybody, Transport::Quic, api).unwrap();
        assert!(text.contains("name = \"node2\""));
        assert!(text.contains("/ip4/10.77.0.12/tcp/9000") && text.contains("/ip4/10.77.0.12/udp/9000/quic-v1"));
        assert!(text.contains("/ip4/10.77.0.11/udp/9000/quic-v1/p2p/12D3Peer0"));
        assert!(text.contains("/ip4/10.77.0.13/udp/9000/quic-v1/p2p/12D3Peer2"));
        assert!(!text.contains("12D3Peer1"));
    }
}
