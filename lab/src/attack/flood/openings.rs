//! Genuine openings of QUIC connections: what a client's first flight is, made by the same libraries that the node uses.
//!
//! Each costs its receiver keys, a TLS handshake with a signature, and the state of a connection until that times out, and costs the
//! attacker nothing once it is made: the addresses outside are not part of what is encrypted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};

/// The server name that libp2p's clients give.
const SERVER_NAME: &str = "l";
/// Connections of one endpoint; then comes another, so that no state piles up.
const ENDPOINT_MAX: usize = 512;

/// The datagrams of a first flight, in their order.
pub type Opening = Vec<Vec<u8>>;

/// Makes openings of that many connections, each with ids and keys of its own. About 0.2 ms of CPU each.
///
/// # Errors
/// If the libraries refuse.
pub fn make(count: usize) -> Result<Vec<Opening>> {
    let key = network::Keypair::generate_ed25519();
    let tls = libp2p_tls::make_client_config(&key, None).context("make a TLS configuration")?;
    let crypto = QuicClientConfig::try_from(tls).context("make a QUIC configuration")?;
    let client = ClientConfig::new(Arc::new(crypto));
    let anybody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let (mut openings, mut endpoint) = (Vec::with_capacity(count), None);
    for index in 0..count {
        if index.is_multiple_of(ENDPOINT_MAX) {
            endpoint = None;
        }
        let endpoint = endpoint.get_or_insert_with(|| Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None));
        let now = Instant::now();
        let (_, mut connection) = endpoint.connect(now, client.clone(), anybody, SERVER_NAME).context("open a connection")?;
        let mut opening = Opening::new();
        let mut datagram = Vec::new();
        while connection.poll_transmit(now, 1, &mut datagram).is_some() {
            opening.push(std::mem::take(&mut datagram));
        }
        openings.push(opening);
    }
    Ok(openings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_initials_of_different_connections() {
        let openings = make(3).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for opening in &openings {
            assert!(!opening.is_empty());
            for datagram in opening {
                assert!(datagram.len() >= 1_200, "{}", datagram.len());
                // Long header, fixed bit, type Initial; version 1.
                assert_eq!(datagram[0] & 0xf0, 0xc0);
                assert_eq!(datagram[1..5], [0, 0, 0, 1]);
            }
            ids.insert(opening[0][6..14].to_vec());
        }
        assert_eq!(ids.len(), 3);
    }
}
