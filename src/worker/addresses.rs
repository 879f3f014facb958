//! Where clients reach a worker, and which of its addresses a datagram came to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// Candidates per worker; each one more is a line in every answer and a pair in every client's checks.
const ADDRESSES_MAX: usize = 16;

/// The addresses that a worker tells clients to send to, and those that are truly its own.
#[derive(Clone, Debug)]
pub struct Addresses {
    advertised: Vec<SocketAddr>,
    /// Whether the advertised ones are the machine's own, so that answers can leave from them.
    local: bool,
}

impl Addresses {
    /// `advertise` as configured; where it is empty, every address of the machine that a client could use.
    pub fn new(advertise: &[IpAddr], port: u16, ipv6: bool) -> io::Result<Self> {
        let local = advertise.is_empty();
        let ips = if local { local_ips()? } else { advertise.to_vec() };
        let advertised = ips
            .into_iter()
            .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && (ipv6 || ip.is_ipv4()))
            .map(|ip| SocketAddr::new(ip, port))
            .take(ADDRESSES_MAX)
            .collect();
        Ok(Self { advertised, local })
    }

    pub fn advertised(&self) -> &[SocketAddr] {
        &self.advertised
    }

    /// The candidate that a datagram to this address of ours was meant for. Behind address translation it is the
    /// advertised one of the same family, whatever address of the machine the datagram came to.
    pub fn candidate(&self, destination: Option<IpAddr>) -> Option<SocketAddr> {
        let destination = destination.map(|ip| ip.to_canonical());
        let exact = self.advertised.iter().find(|address| Some(address.ip()) == destination);
        let of_family = || {
            let is_ipv4 = destination.is_none_or(|ip| ip.is_ipv4());
            self.advertised.iter().find(|address| address.is_ipv4() == is_ipv4)
        };
        exact.or_else(of_family).copied()
    }

    /// The address of the machine to send from, where it matters and is known.
    pub fn source(&self, candidate: SocketAddr) -> Option<IpAddr> {
        self.local.then_some(candidate.ip())
    }
}

/// Loopback last: clients try candidates in order of preference, and it only serves those on this machine.
fn local_ips() -> io::Result<Vec<IpAddr>> {
    let mut ips: Vec<IpAddr> = if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip()).collect();
    // Link-local IPv6 needs a zone, which candidates cannot name; `::1` is nobody's only address.
    ips.retain(|ip| match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    });
    ips.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    ips.dedup();
    Ok(ips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_configuration_the_machines_addresses_are_used_and_loopback_is_among_them() {
        let addresses = Addresses::new(&[], 7882, false).unwrap();
        assert!(addresses.advertised().contains(&"127.0.0.1:7882".parse().unwrap()));
        assert!(addresses.advertised().iter().all(|address| !address.ip().is_unspecified()));
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(addresses.candidate(Some(mapped)), Some("127.0.0.1:7882".parse().unwrap()));
    }

    #[test]
    fn behind_translation_any_local_address_stands_for_the_advertised_one() {
        let public: IpAddr = "203.0.113.7".parse().unwrap();
        let addresses = Addresses::new(&[public], 7882, false).unwrap();
        let candidate = addresses.candidate(Some("172.17.0.2".parse().unwrap())).unwrap();
        assert_eq!(candidate.ip(), public);
        assert_eq!(addresses.source(candidate), None);
    }
}
