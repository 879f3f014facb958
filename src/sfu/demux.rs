//! Who a datagram belongs to: by address, and on first contact by the user name of a STUN request.
//!
//! An address is only believed after the transport has checked the request's integrity
//! ([`super::transport::Transport::accepts`]); this table does not check anything.

use std::{collections::HashMap, net::SocketAddr};

use super::path::{Path, Protocol};

/// Paths that one transport may be reached by: a client tries a handful of its own addresses by UDP, and opens a TCP
/// connection from each to each of ours; more is an attack on memory.
const ADDRESSES_PER_ROUTE_MAX: usize = 64;
/// STUN magic cookie, RFC 8489 section 5.
pub(super) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// STUN attribute USERNAME, RFC 8489 section 14.3.
pub(super) const USERNAME: u16 = 0x0006;
/// STUN attribute USE-CANDIDATE, RFC 8445 section 16.1.
const USE_CANDIDATE: u16 = 0x0025;
/// STUN header length.
const STUN_HEADER: usize = 20;

/// The demultiplexer's tables. `R` names a transport.
pub struct Demux<R> {
    addresses: HashMap<Address, Bound<R>>,
    /// Addresses bound so far.
    bound: u64,
    ufrags: HashMap<String, R>,
}

/// What tells clients apart. Two TCP connections may come from one address, if they go to two ports of ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    Udp(SocketAddr),
    Tcp(SocketAddr, SocketAddr),
}

impl From<Path> for Address {
    fn from(path: Path) -> Self {
        match path.protocol {
            Protocol::Udp => Self::Udp(path.remote),
            Protocol::Tcp => Self::Tcp(path.remote, path.local),
        }
    }
}

struct Bound<R> {
    route: R,
    /// Higher is later.
    order: u64,
}

impl<R> Default for Demux<R> {
    fn default() -> Self {
        Self { addresses: HashMap::new(), bound: 0, ufrags: HashMap::new() }
    }
}

impl<R: Copy + Eq> Demux<R> {
    pub fn by_path(&self, path: Path) -> Option<R> {
        self.addresses.get(&path.into()).map(|bound| bound.route)
    }

    pub fn by_ufrag(&self, ufrag: &str) -> Option<R> {
        self.ufrags.get(ufrag).copied()
    }

    pub fn add_ufrag(&mut self, ufrag: String, route: R) {
        self.ufrags.insert(ufrag, route);
    }

    pub fn remove_ufrag(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// Binds the path; one that was another's moves. Where the transport has too many, the oldest of them goes.
    pub fn bind(&mut self, path: Path, route: R) {
        self.bound += 1;
        self.addresses.insert(path.into(), Bound { route, order: self.bound });
        let its = || self.addresses.iter().filter(|(_, bound)| bound.route == route);
        if its().count() > ADDRESSES_PER_ROUTE_MAX
            && let Some(oldest) = its().min_by_key(|(_, bound)| bound.order).map(|(address, _)| *address)
        {
            self.addresses.remove(&oldest);
        }
    }

    /// What led to one transport leads to another name of it.
    pub fn rename(&mut self, from: R, to: R) {
        let addresses = self.addresses.values_mut().map(|bound| &mut bound.route);
        for route in addresses.chain(self.ufrags.values_mut()).filter(|route| **route == from) {
            *route = to;
        }
    }

    pub fn remove(&mut self, route: R) {
        self.addresses.retain(|_, bound| bound.route != route);
        self.ufrags.retain(|_, r| *r != route);
    }
}

/// What matters here of a STUN binding request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRequest<'a> {
    /// The receiver's half of the USERNAME (`ours:theirs`, RFC 8445 section 7.2.2).
    pub ufrag: &'a str,
    /// The client wants this path used.
    pub nominates: bool,
    pub transaction: [u8; 12],
}

/// `None` for anything else, malformed input included. Proves nothing: integrity is the transport's.
pub fn binding_request(datagram: &[u8]) -> Option<BindingRequest<'_>> {
    let header = datagram.get(..STUN_HEADER)?;
    if header[..2] != [0x00, 0x01] || header[4..8] != MAGIC_COOKIE {
        return None;
    }
    let transaction = header[8..].try_into().ok()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut attributes = datagram.get(STUN_HEADER..STUN_HEADER.checked_add(length)?)?;
    let (mut ufrag, mut nominates) = (None, false);
    while attributes.len() >= 4 {
        let kind = u16::from_be_bytes([attributes[0], attributes[1]]);
        let length = usize::from(u16::from_be_bytes([attributes[2], attributes[3]]));
        let value = attributes.get(4..4 + length)?;
        match kind {
            USERNAME => ufrag = Some(std::str::from_utf8(value).ok()?.split_once(':')?.0),
            USE_CANDIDATE => nominates = true,
            _ => {}
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(BindingRequest { ufrag: ufrag?, nominates, transaction })
}

/// Whether this is the answer to that request: a STUN binding success response.
pub fn is_answer_to(datagram: &[u8], transaction: &[u8; 12]) -> bool {
    datagram.starts_with(&[0x01, 0x01]) && datagram.get(8..STUN_HEADER) == Some(&transaction[..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(username: &[u8]) -> Vec<u8> {
        let mut attributes = vec![0x80, 0x22, 0x00, 0x03, b'a', b'b', b'c', 0];
        attributes.extend(USERNAME.to_be_bytes());
        attributes.extend((username.len() as u16).to_be_bytes());
        attributes.extend(username);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let mut datagram = vec![0, 1];
        datagram.extend((attributes.len() as u16).to_be_bytes());
        datagram.extend(MAGIC_COOKIE);
        datagram.extend([7; 12]);
        datagram.extend(attributes);
        datagram
    }

    #[test]
    fn the_receivers_half_of_the_user_name_is_found_behind_other_attributes() {
        let ufrag = |username| binding_request(&request(username)).map(|found| found.ufrag.to_owned());
        assert_eq!(ufrag(b"ours:theirs").as_deref(), Some("ours"));
        assert_eq!(ufrag(b"nocolon"), None);
        assert_eq!(ufrag(&[0xff, b':']), None);
    }

    #[test]
    fn a_nomination_is_seen_wherever_it_stands_and_an_answer_is_known_by_its_transaction() {
        let mut nominating = request(b"ours:theirs");
        assert!(!binding_request(&nominating).unwrap().nominates);
        nominating.extend(USE_CANDIDATE.to_be_bytes());
        nominating.extend([0, 0]);
        nominating[3] += 4;
        let found = binding_request(&nominating).unwrap();
        assert!(found.nominates);
        let mut answer = nominating.clone();
        answer[..2].copy_from_slice(&[1, 1]);
        assert!(is_answer_to(&answer, &found.transaction) && !is_answer_to(&nominating, &found.transaction));
        assert!(!is_answer_to(&answer, &[0; 12]) && !is_answer_to(&answer[..15], &found.transaction));
    }

    #[test]
    fn connections_from_one_address_to_two_ports_of_ours_are_two() {
        let mut demux = Demux::default();
        let (client, one, other) = (address(5), address(7881), address(443));
        demux.bind(Path::tcp(one, client), 1);
        demux.bind(Path::tcp(other, client), 2);
        demux.bind(Path::udp(one, client), 3);
        let found = [Path::tcp(one, client), Path::tcp(other, client), Path::udp(other, client)];
        assert_eq!(found.map(|path| demux.by_path(path)), [Some(1), Some(2), Some(3)]);
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_an_address_may_move() {
        let mut demux = Demux::default();
        let path = |port| Path::udp(address(1), address(port));
        for port in 1..100 {
            demux.bind(path(port), 1);
        }
        let kept: Vec<u16> = (1..100).filter(|port| demux.by_path(path(*port)).is_some()).collect();
        assert_eq!(kept, (36..100).collect::<Vec<_>>(), "the oldest went first");
        demux.bind(path(99), 2);
        assert_eq!(demux.by_path(path(99)), Some(2));
        demux.remove(1);
        assert_eq!(demux.addresses.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = binding_request(&bytes);
        }

        #[test]
        fn any_cut_or_flipped_request_is_parsed_without_panic(cut in 0usize..60, at in 0usize..60, with: u8) {
            let mut bytes = request(b"ours:theirs");
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            bytes.truncate(cut);
            let _ = binding_request(&bytes);
        }
    }
}
