//! Where clients reach a worker, and which of its addresses a datagram came to.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Candidates per worker and protocol; each one more is a line in every answer and a pair in every client's checks.
const ADDRESSES_MAX: usize = 16;

/// An address that clients are told, as `203.0.113.7`; and the machine's own that stands behind it, where each has
/// another behind 1:1 translation, as `203.0.113.7/10.0.0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisedIp {
    pub public: IpAddr,
    pub local: Option<IpAddr>,
}

impl<T: Into<IpAddr>> From<T> for AdvertisedIp {
    fn from(public: T) -> Self {
        Self { public: public.into(), local: None }
    }
}

impl FromStr for AdvertisedIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ip = |text: &str| {
            text.trim().parse::<IpAddr>().map_err(|_| {
                format!("`{text}` is no IP address: write 203.0.113.7, or 203.0.113.7/10.0.0.5 for public/local")
            })
        };
        let (public, local) = match text.split_once('/') {
            Some((public, local)) => (ip(public)?, Some(ip(local)?)),
            None => (ip(text)?, None),
        };
        match local {
            Some(local) if local.is_ipv4() != public.is_ipv4() => {
                Err(format!("`{text}` joins an IPv4 with an IPv6 address: both must be of one kind"))
            }
            _ => Ok(Self { public, local }),
        }
    }
}

impl fmt::Display for AdvertisedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{}/{local}", self.public),
            None => write!(f, "{}", self.public),
        }
    }
}

impl Serialize for AdvertisedIp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AdvertisedIp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The addresses that a worker tells clients to send to, and those that are truly its own.
#[derive(Clone, Debug)]
pub struct Addresses {
    ips: Vec<AdvertisedIp>,
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
}

impl Addresses {
    /// `advertise` as configured; where it is empty, every address of the machine that a client could use.
    pub fn new(advertise: &[AdvertisedIp], port: u16, ipv6: bool) -> io::Result<Self> {
        let own = local_ips()?;
        let mut ips: Vec<AdvertisedIp> = match advertise {
            [] => own.iter().copied().map(Into::into).collect(),
            some => some.to_vec(),
        };
        // What the machine itself has stands for itself: answers leave from it. The kernel would let those to a sender on
        // this machine, as the relay inside is one, leave from loopback.
        for ip in ips.iter_mut().filter(|ip| ip.local.is_none() && own.contains(&ip.public)) {
            ip.local = Some(ip.public);
        }
        let ips: Vec<AdvertisedIp> = ips
            .into_iter()
            .filter(|ip| !ip.public.is_unspecified() && !ip.public.is_multicast() && (ipv6 || ip.public.is_ipv4()))
            .take(ADDRESSES_MAX)
            .collect();
        let udp = ips.iter().map(|ip| SocketAddr::new(ip.public, port)).collect();
        Ok(Self { ips, udp, tcp: Vec::new() })
    }

    /// Where TCP connections for media are taken: `listening` as the listeners are bound, `ports` what clients are told
    /// instead of their ports, if anything.
    pub fn with_tcp(mut self, listening: &[SocketAddr], ports: &[u16]) -> Self {
        for listener in listening {
            let own = [listener.port()];
            for port in if ports.is_empty() { &own } else { ports } {
                let ips = self.ips.iter().filter(|ip| self.is_reached(ip, listener.ip()));
                let addresses: Vec<_> = ips.map(|ip| SocketAddr::new(ip.public, *port)).collect();
                self.tcp.extend(addresses);
            }
        }
        let mut seen = std::collections::HashSet::new();
        self.tcp.retain(|address| seen.insert(*address));
        self.tcp.truncate(ADDRESSES_MAX);
        self
    }

    /// Whether who calls this advertised address comes to a listener that is bound to `bound`.
    fn is_reached(&self, ip: &AdvertisedIp, bound: IpAddr) -> bool {
        match bound {
            IpAddr::V6(bound) if bound.is_unspecified() => true,
            IpAddr::V4(bound) if bound.is_unspecified() => ip.public.is_ipv4(),
            _ if ip.public == bound || ip.local == Some(bound) => true,
            // Behind translation nobody knows better; but what is bound to loopback is not translated to.
            _ => ip.local.is_none() && !bound.is_loopback() && ip.public.is_ipv4() == bound.is_ipv4(),
        }
    }

    pub fn udp(&self) -> &[SocketAddr] {
        &self.udp
    }

    pub fn tcp(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// The candidate that a datagram to this address of ours was meant for. Behind address translation it is the
    /// advertised one of the same family, whatever address of the machine the datagram came to.
    pub fn candidate(&self, destination: Option<IpAddr>) -> Option<SocketAddr> {
        let at = self.index(destination)?;
        self.udp.get(at).copied()
    }

    /// The same for a TCP connection. `None` where clients are told of none.
    pub fn tcp_candidate(&self, local: SocketAddr) -> Option<SocketAddr> {
        let ip = self.ips.get(self.index(Some(local.ip()))?)?.public;
        let told = || self.tcp.iter().filter(|address| address.ip() == ip);
        told().find(|address| address.port() == local.port()).or_else(|| told().next()).copied()
    }

    fn index(&self, destination: Option<IpAddr>) -> Option<usize> {
        let destination = destination.map(|ip| ip.to_canonical());
        let find = |is: &dyn Fn(&AdvertisedIp) -> bool| self.ips.iter().position(is);
        find(&|ip| Some(ip.public) == destination)
            .or_else(|| find(&|ip| ip.local.is_some() && ip.local == destination))
            .or_else(|| find(&|ip| ip.public.is_ipv4() == destination.is_none_or(|ip| ip.is_ipv4())))
    }

    /// The address of the machine to send from, where it matters and is known.
    pub fn source(&self, candidate: SocketAddr) -> Option<IpAddr> {
        self.ips.iter().find(|ip| ip.public == candidate.ip())?.local
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn advertising(ips: &[&str]) -> Addresses {
        let ips: Vec<AdvertisedIp> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Addresses::new(&ips, 7882, true).unwrap()
    }

    #[test]
    fn without_configuration_the_machines_addresses_are_used_and_loopback_is_among_them() {
        let addresses = Addresses::new(&[], 7882, false).unwrap();
        assert!(addresses.udp().contains(&address("127.0.0.1:7882")));
        assert!(addresses.udp().iter().all(|address| !address.ip().is_unspecified()));
        assert_eq!(addresses.candidate(Some(ip("::ffff:127.0.0.1"))), Some(address("127.0.0.1:7882")));
    }

    #[test]
    fn behind_translation_any_local_address_stands_for_the_advertised_one_of_its_kind() {
        let addresses = advertising(&["203.0.113.7", "2001:db8::7"]);
        let candidate = addresses.candidate(Some(ip("172.17.0.2"))).unwrap();
        assert_eq!(candidate, address("203.0.113.7:7882"));
        assert_eq!(addresses.source(candidate), None);
        assert_eq!(addresses.candidate(Some(ip("fd00::2"))), Some(address("[2001:db8::7]:7882")));
        assert_eq!(addresses.candidate(None), Some(candidate));
    }

    #[test]
    fn an_advertised_address_that_the_machine_has_is_answered_from() {
        let addresses = advertising(&["127.0.0.1", "203.0.113.7"]);
        assert_eq!(addresses.source(address("127.0.0.1:7882")), Some(ip("127.0.0.1")));
        assert_eq!(addresses.source(address("203.0.113.7:7882")), None);
    }

    #[test]
    fn of_several_translated_addresses_each_answers_from_its_own() {
        let addresses = advertising(&["203.0.113.7/10.0.0.5", "203.0.113.8/10.0.0.6"]);
        for (local, public) in [("10.0.0.5", "203.0.113.7:7882"), ("10.0.0.6", "203.0.113.8:7882")] {
            let candidate = addresses.candidate(Some(ip(local))).unwrap();
            assert_eq!((candidate, addresses.source(candidate)), (address(public), Some(ip(local))));
        }
    }

    #[test]
    fn a_mapping_is_written_as_it_is_read_and_mistakes_say_how() {
        for text in ["203.0.113.7", "203.0.113.7/10.0.0.5", "2001:db8::7/fd00::5"] {
            assert_eq!(text.parse::<AdvertisedIp>().unwrap().to_string(), text);
        }
        for wrong in ["example.org", "203.0.113.7/", "203.0.113.7/fd00::5", ""] {
            let error = wrong.parse::<AdvertisedIp>().unwrap_err();
            assert!(error.contains("203.0.113.7/"), "{error}");
        }
    }

    #[test]
    fn tcp_is_told_where_its_listeners_are_reached() {
        let all = advertising(&["203.0.113.7", "2001:db8::7"]);
        let told = |listening: &[&str], ports: &[u16]| {
            let listening: Vec<_> = listening.iter().map(|at| address(at)).collect();
            let tcp = all.clone().with_tcp(&listening, ports);
            tcp.tcp().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&["[::]:7881"], &[]), ["203.0.113.7:7881", "[2001:db8::7]:7881"]);
        let both = ["203.0.113.7:7881", "[2001:db8::7]:7881", "203.0.113.7:443"];
        assert_eq!(told(&["[::]:7881", "0.0.0.0:443"], &[]), both);
        assert_eq!(told(&["127.0.0.1:7880"], &[]), Vec::<String>::new(), "nobody else reaches loopback");
        assert_eq!(told(&["10.0.0.5:443"], &[]), ["203.0.113.7:443"]);
        assert_eq!(told(&["0.0.0.0:7881", "0.0.0.0:7880"], &[443]), ["203.0.113.7:443"]);
        let own = Addresses::new(&[], 7882, false).unwrap().with_tcp(&[address("127.0.0.1:7880")], &[]);
        assert_eq!(own.tcp(), [address("127.0.0.1:7880")]);
    }

    #[test]
    fn a_connection_belongs_to_what_the_client_was_told() {
        let addresses = advertising(&["203.0.113.7"]);
        let direct = addresses.clone().with_tcp(&[address("0.0.0.0:7881"), address("0.0.0.0:443")], &[]);
        assert_eq!(direct.tcp_candidate(address("10.0.0.5:443")), Some(address("203.0.113.7:443")));
        let mapped = addresses.clone().with_tcp(&[address("0.0.0.0:7881")], &[443]);
        assert_eq!(mapped.tcp_candidate(address("10.0.0.5:7881")), Some(address("203.0.113.7:443")));
        assert_eq!(addresses.tcp_candidate(address("10.0.0.5:7881")), None);
    }
}
