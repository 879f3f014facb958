//! Whom the relay may reach: the media ports of this server, and nobody else.
//!
//! Invariant: whatever a client asks for, a datagram goes to an address that is a value of this table.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An address that clients send media to, and that of this machine behind it.
pub type Media = (SocketAddr, Option<IpAddr>);

/// The server's media addresses as clients know them, and where each is reached from inside.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    targets: HashMap<SocketAddr, SocketAddr>,
}

impl Peers {
    /// `media`: what clients are told to send media to, and the address of this machine that stands behind it, where
    /// that is known. `is_own` says whether this machine has an address: one that it has not (behind address translation)
    /// is reached over loopback.
    ///
    /// Loopback itself is no place for relayed media where there is any other address.
    pub fn new(media: impl IntoIterator<Item = Media>, is_own: impl Fn(IpAddr) -> bool) -> Self {
        let mut all: Vec<Media> = media.into_iter().collect();
        if all.iter().any(|(peer, _)| !peer.ip().is_loopback()) {
            all.retain(|(peer, _)| !peer.ip().is_loopback());
        }
        let target = |(peer, inside): Media| match (peer.ip(), inside) {
            (_, Some(inside)) => (inside, peer.port()).into(),
            (ip, None) if is_own(ip) => peer,
            (IpAddr::V4(_), None) => (Ipv4Addr::LOCALHOST, peer.port()).into(),
            (IpAddr::V6(_), None) => (Ipv6Addr::LOCALHOST, peer.port()).into(),
        };
        Self { targets: all.into_iter().map(|media| (media.0, target(media))).collect() }
    }

    /// Whether permissions may be asked for this address. Forms that only mean the same (IPv4 in IPv6) are not it.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.targets.keys().any(|peer| peer.ip() == ip)
    }

    /// Where to send what is for this peer.
    pub fn target(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.targets.get(&peer).copied()
    }

    /// The peer that a datagram comes from: `last`, whom the client last sent to, where several share one target.
    pub fn peer(&self, from: SocketAddr, last: Option<SocketAddr>) -> Option<SocketAddr> {
        let is_it = |peer: &SocketAddr| self.targets.get(peer) == Some(&from);
        last.filter(is_it).or_else(|| self.targets.keys().copied().filter(is_it).min())
    }

    /// An address of this family that clients can be told as the relay's own.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.targets.keys().map(SocketAddr::ip).filter(|ip| ip.is_ipv6() == ipv6).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn media(text: &str) -> Media {
        (at(text), None)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_media_ports_are_reached() {
        let advertised = [media("10.0.0.5:7882"), media("127.0.0.1:7882"), media("[2001:db8::5]:7882")];
        let peers = Peers::new(advertised, |_| true);
        assert_eq!(peers.target(at("10.0.0.5:7882")), Some(at("10.0.0.5:7882")));
        for closed in ["10.0.0.5:22", "127.0.0.1:7882", "[::ffff:10.0.0.5]:7882", "169.254.169.254:80", "[::1]:7882"] {
            assert_eq!(peers.target(at(closed)), None, "{closed}");
        }
        let forbidden =
            ["127.0.0.1", "10.0.0.6", "192.168.0.1", "169.254.169.254", "::ffff:10.0.0.5", "::1", "0.0.0.0"];
        for ip in forbidden {
            assert!(!peers.allows(ip.parse().unwrap()), "{ip}");
        }
        assert!(peers.allows("2001:db8::5".parse().unwrap()));
    }

    #[test]
    fn a_public_address_that_the_machine_has_not_is_reached_over_loopback() {
        let public = at("203.0.113.7:7882");
        let peers = Peers::new([(public, None)], |_| false);
        assert_eq!(peers.target(public), Some(at("127.0.0.1:7882")));
        assert_eq!(peers.peer(at("127.0.0.1:7882"), None), Some(public));
        assert_eq!(peers.peer(at("127.0.0.1:7883"), Some(public)), None);
        let known = Peers::new([(public, Some("10.0.0.5".parse().unwrap()))], |_| false);
        assert_eq!(known.target(public), Some(at("10.0.0.5:7882")), "where it is known what stands behind it");
        let two = Peers::new([(public, None), media("203.0.113.8:7882")], |_| false);
        assert_eq!(two.peer(at("127.0.0.1:7882"), Some(at("203.0.113.8:7882"))), Some(at("203.0.113.8:7882")));
    }

    #[test]
    fn a_server_for_this_machine_alone_is_reached_over_loopback() {
        let peers = Peers::new([media("127.0.0.1:7882")], |_| true);
        assert_eq!(peers.target(at("127.0.0.1:7882")), Some(at("127.0.0.1:7882")));
        assert_eq!(peers.target(at("127.0.0.1:22")), None);
    }

    proptest! {
        #[test]
        fn no_address_leads_elsewhere(ip: IpAddr, port: u16, v4: [u8; 4]) {
            let peers = Peers::new([media("198.51.100.1:7882")], |_| false);
            for ip in [ip, IpAddr::from(v4), IpAddr::V6(Ipv4Addr::from(v4).to_ipv6_mapped())] {
                let target = peers.target(SocketAddr::new(ip, port));
                prop_assert!(target.is_none_or(|target| target == at("127.0.0.1:7882")));
            }
        }
    }
}
