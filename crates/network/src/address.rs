//! Multiaddresses, as far as we speak them: `/ip4|ip6/…/tcp/…` and `/ip4|ip6/…/udp/…/quic-v1`, each with an optional `/p2p/…`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP with noise and yamux.
    Tcp,
    /// QUIC version 1.
    Quic,
}

impl Transport {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
        }
    }
}

/// The socket that an address names, and what is spoken there; none for any other form (relays, names, WebSockets).
pub fn socket_of(address: &Multiaddr) -> Option<(SocketAddr, Transport)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let (port, transport) = match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => (port, Transport::Tcp),
        (Protocol::Udp(port), Some(Protocol::QuicV1)) => match parts.next() {
            None | Some(Protocol::P2p(_)) => (port, Transport::Quic),
            _ => return None,
        },
        _ => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    Some((SocketAddr::new(ip, port), transport))
}

/// The identity that an address ends with.
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

/// What counts as one source for limits: an IPv4 address, or the /64 of an IPv6 one (what one subscriber gets).
pub(crate) fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// What counts as one network for limits: the /24 of an IPv4 address, or the /48 of an IPv6 one (what one site gets).
pub(crate) fn prefix_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, Transport)>) {
        let address: Multiaddr = text.parse().unwrap();
        let expect = expect.map(|(socket, transport)| (socket.parse::<SocketAddr>().unwrap(), transport));
        assert_eq!(socket_of(&address), expect, "{text}");
    }

    #[test]
    fn reads_what_we_speak() {
        let peer = PeerId::random();
        check("/ip4/10.0.0.1/tcp/9000", Some(("10.0.0.1:9000", Transport::Tcp)));
        check(&format!("/ip4/10.0.0.1/tcp/9000/p2p/{peer}"), Some(("10.0.0.1:9000", Transport::Tcp)));
        check("/ip6/::1/udp/9/quic-v1", Some(("[::1]:9", Transport::Quic)));
        check(&format!("/ip4/10.0.0.1/udp/9/quic-v1/p2p/{peer}"), Some(("10.0.0.1:9", Transport::Quic)));
        check("/ip4/10.0.0.1/udp/9", None);
        check("/ip4/10.0.0.1/tcp/9000/ws", None);
        check("/dns4/example.org/tcp/9000", None);
        check(&format!("/ip4/10.0.0.1/tcp/9000/p2p/{peer}/p2p-circuit"), None);
    }

    #[test]
    fn a_subscriber_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.2"), source("10.0.0.1"));
    }

    #[test]
    fn a_site_is_one_prefix() {
        let prefix = |text: &str| prefix_of(text.parse().unwrap());
        assert_eq!(prefix("10.0.0.1"), prefix("10.0.0.255"));
        assert_ne!(prefix("10.0.0.1"), prefix("10.0.1.1"));
        assert_eq!(prefix("::ffff:10.0.0.9"), prefix("10.0.0.1"));
        assert_eq!(prefix("2001:db8:0:1::1"), prefix("2001:db8:0:ffff::1"));
        assert_ne!(prefix("2001:db8:1::1"), prefix("2001:db8::1"));
    }
}
