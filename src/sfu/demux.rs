//! Who a datagram belongs to: by address, and on first contact by the user name of a STUN request.
//!
//! An address is only believed after the transport has checked the request's integrity
//! ([`super::transport::Transport::accepts`]); this table does not check anything.

use std::{collections::HashMap, net::SocketAddr};

/// Addresses that one transport may be reached at: a client tries a handful of its own; more is an attack on memory.
const ADDRESSES_PER_ROUTE_MAX: usize = 16;
/// STUN magic cookie, RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// STUN attribute USERNAME, RFC 8489 section 14.3.
const USERNAME: u16 = 0x0006;
/// STUN header length.
const STUN_HEADER: usize = 20;

/// The demultiplexer's tables. `R` names a transport.
pub struct Demux<R> {
    addresses: HashMap<SocketAddr, Bound<R>>,
    /// Addresses bound so far.
    bound: u64,
    ufrags: HashMap<String, R>,
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
    pub fn by_address(&self, address: SocketAddr) -> Option<R> {
        self.addresses.get(&address).map(|bound| bound.route)
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

    /// Binds the address; one that was another's moves. Where the transport has too many, the oldest of them goes.
    pub fn bind(&mut self, address: SocketAddr, route: R) {
        self.bound += 1;
        self.addresses.insert(address, Bound { route, order: self.bound });
        let its = || self.addresses.iter().filter(|(_, bound)| bound.route == route);
        if its().count() > ADDRESSES_PER_ROUTE_MAX
            && let Some(oldest) = its().min_by_key(|(_, bound)| bound.order).map(|(address, _)| *address)
        {
            self.addresses.remove(&oldest);
        }
    }

    pub fn remove(&mut self, route: R) {
        self.addresses.retain(|_, bound| bound.route != route);
        self.ufrags.retain(|_, r| *r != route);
    }
}

/// The receiver's half of the USERNAME of a STUN binding request (`ours:theirs`, RFC 8445 section 7.2.2).
/// `None` for anything else, malformed input included.
pub fn stun_request_ufrag(datagram: &[u8]) -> Option<&str> {
    let header = datagram.get(..STUN_HEADER)?;
    if header[..2] != [0x00, 0x01] || header[4..8] != MAGIC_COOKIE {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut attributes = datagram.get(STUN_HEADER..STUN_HEADER.checked_add(length)?)?;
    while attributes.len() >= 4 {
        let kind = u16::from_be_bytes([attributes[0], attributes[1]]);
        let length = usize::from(u16::from_be_bytes([attributes[2], attributes[3]]));
        let value = attributes.get(4..4 + length)?;
        if kind == USERNAME {
            return std::str::from_utf8(value).ok()?.split_once(':').map(|(ours, _)| ours);
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
    None
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
        assert_eq!(stun_request_ufrag(&request(b"ours:theirs")), Some("ours"));
        assert_eq!(stun_request_ufrag(&request(b"nocolon")), None);
        assert_eq!(stun_request_ufrag(&request(&[0xff, b':'])), None);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_an_address_may_move() {
        let mut demux = Demux::default();
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        for port in 1..100 {
            demux.bind(address(port), 1);
        }
        let kept: Vec<u16> = (1..100).filter(|port| demux.by_address(address(*port)).is_some()).collect();
        assert_eq!(kept, (84..100).collect::<Vec<_>>(), "the oldest went first");
        demux.bind(address(99), 2);
        assert_eq!(demux.by_address(address(99)), Some(2));
        demux.remove(1);
        assert_eq!(demux.addresses.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = stun_request_ufrag(&bytes);
        }

        #[test]
        fn any_cut_or_flipped_request_is_parsed_without_panic(cut in 0usize..60, at in 0usize..60, with: u8) {
            let mut bytes = request(b"ours:theirs");
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            bytes.truncate(cut);
            let _ = stun_request_ufrag(&bytes);
        }
    }
}
