//! Where a request comes from: the connection's other end, or whom trusted proxies name.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Proxies that one request may have come through.
const HOPS_MAX: usize = 16;

/// The other end of a request's connection; an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Addresses with a common beginning, as `10.0.0.0/8`; without a length, one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))) = (self.base, address) else {
            return false;
        };
        let free = if self.base.is_ipv4() { 32 } else { 128 } - u32::from(self.prefix);
        let differs = bits(self.base) ^ bits(address);
        differs.checked_shr(free).unwrap_or(0) == 0
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or network, as 10.0.0.1 or 10.0.0.0/8");
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| wrong())?;
        if prefix > longest { Err(wrong()) } else { Ok(Self { base, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who asks. `X-Forwarded-For` grows on its right end: from there, the first that is no trusted proxy is the client. What
/// stands left of it may be invented.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(*address));
    let mut client = peer.to_canonical();
    let mut values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    values.reverse();
    let mut hops = values.iter().flat_map(|value| value.rsplit(',')).take(HOPS_MAX);
    while is_trusted(&client) {
        match hops.next().and_then(address) {
            Some(hop) => client = hop,
            None => break,
        }
    }
    client
}

/// One entry of the header: an address, some proxies add a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let address = bare.unwrap_or(entry).parse::<IpAddr>().ok();
    address.or_else(|| entry.split_once(':')?.0.parse().ok()).map(|address| address.to_canonical())
}

/// What counts as one source: an address, or the network of 64 bits that one customer gets.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asks(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_client_is_who_a_trusted_proxy_says_and_nobody_else() {
        for (peer, forwarded, trusted, wanted) in [
            ("198.51.100.7", &["203.0.113.1"][..], &[][..], "198.51.100.7"),
            ("198.51.100.7", &["203.0.113.1"], &["10.0.0.0/8"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.1"], &["10.0.0.0/8"], "203.0.113.1"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.1"], &["10.0.0.0/8"], "203.0.113.1"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.1, 10.2.3.4"], &["10.0.0.0/8"], "203.0.113.1"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.1:4711"], &["10.0.0.1"], "203.0.113.1"),
            ("10.0.0.1", &["nonsense"], &["10.0.0.1"], "10.0.0.1"),
            ("10.0.0.1", &[], &["10.0.0.1"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["[2001:db8::1]:80"], &["10.0.0.1"], "2001:db8::1"),
            ("2001:db8::5", &["203.0.113.1"], &["2001:db8::/32"], "203.0.113.1"),
        ] {
            assert_eq!(asks(peer, forwarded, trusted), wanted, "{peer} {forwarded:?} {trusted:?}");
        }
    }

    #[test]
    fn networks_are_read_and_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0", "192.0.2.1/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<Network>().unwrap().to_string(), "192.0.2.1/32");
        for text in ["", "10.0.0.0/33", "proxy.example", "10.0.0.0/x", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains([203, 0, 113, 1].into()));
    }

    #[test]
    fn one_customers_network_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap()).to_string();
        assert_eq!((of("2001:db8:1:2:3:4:5:6"), of("::ffff:192.0.2.1")), ("2001:db8:1:2::".into(), "192.0.2.1".into()));
    }

    proptest! {
        #[test]
        fn any_header_names_somebody(value in "[0-9a-f:., \\[\\]x]{0,200}") {
            let named = asks("10.0.0.1", &[value.as_str()], &["10.0.0.0/8"]);
            prop_assert!(named.parse::<IpAddr>().is_ok());
        }
    }
}
