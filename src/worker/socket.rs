//! Datagrams in and out of the kernel in batches: `recvmmsg` with GRO, `sendmsg` with GSO.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use super::addresses::Addresses;
use crate::sfu::Run;

/// Kernel buffers: a third of a second at 100 Mbit/s. The default of 212 kB loses bursts of keyframes.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The largest payload of a UDP datagram, and so of a GSO batch and of a GRO read.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

pub struct UdpBatch {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
    ipv6: bool,
}

impl UdpBatch {
    /// Binds the port on all addresses, IPv6 included where the machine has it.
    pub fn bind(port: u16) -> io::Result<Self> {
        let (socket, ipv6) = match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(socket) => (socket, true),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => (bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?, false),
        };
        // The kernel may grant less; it says so to nobody, and we can do nothing.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new((&socket).into())?;
        let socket = UdpSocket::from_std(socket.into());
        Ok(Self {
            socket,
            state,
            buffers: (0..BATCH_SIZE).map(|_| vec![0; DATAGRAM_BYTES_MAX + 1]).collect(),
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            ipv6,
        })
    }

    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    pub fn local_port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Reads one batch. Returns whether there may be more; who comes later wakes us up.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, Option<IpAddr>, &[u8])) -> io::Result<bool> {
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [_; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..])));
        let read = match self.state.recv((&self.socket).into(), &mut slices, &mut self.metas) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // What ICMP says about a peer that is gone; ICE finds out by itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) => return Err(error),
        };
        for (buffer, meta) in self.buffers.iter().zip(&self.metas).take(read) {
            let source = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                each(source, meta.dst_ip, datagram);
            }
        }
        Ok(read == BATCH_SIZE)
    }

    /// Sends a run of datagrams in one call; returns how many were not taken.
    pub fn send(&self, addresses: &Addresses, run: &Run<'_>) -> u64 {
        let several = run.bytes.len() > run.segment;
        let transmit = quinn_udp::Transmit {
            destination: self.to_socket(run.path.remote),
            ecn: None,
            contents: run.bytes,
            segment_size: several.then_some(run.segment),
            src_ip: addresses.source(run.path.local),
        };
        if self.state.try_send((&self.socket).into(), &transmit).is_ok() {
            return 0;
        }
        if !several {
            return 1;
        }
        // Some network cards take no segments (the state remembers that): one by one then.
        let singly = run.bytes.chunks(run.segment).filter(|contents| {
            let single = quinn_udp::Transmit { contents, segment_size: None, ..transmit.clone() };
            self.state.try_send((&self.socket).into(), &single).is_err()
        });
        singly.count() as u64
    }

    /// How many datagrams a run may have.
    pub fn run_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// A dual-stack socket names IPv4 peers by mapped addresses.
    fn to_socket(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket as StdUdpSocket, time::Duration};

    use super::*;
    use crate::sfu::{Path, Transmits};

    #[test]
    fn runs_of_equal_size_and_their_shorter_end_arrive_as_single_datagrams() {
        let batch = UdpBatch::bind(0).unwrap();
        let port = batch.local_port().unwrap();
        let addresses = Addresses::new(&[], port, batch.is_ipv6()).unwrap();
        let peer = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sizes = [900, 900, 900, 300, 900, 1_000, 10];
        let mut transmits = Transmits::default();
        let path = Path::udp(SocketAddr::from(([127, 0, 0, 1], port)), peer.local_addr().unwrap());
        sizes.iter().for_each(|size| transmits.push(path, &vec![*size as u8; *size]));
        let dropped: u64 =
            transmits.runs(batch.run_max(), DATAGRAM_BYTES_MAX).map(|run| batch.send(&addresses, &run)).sum();
        assert_eq!(dropped, 0);
        let mut buffer = [0; 2_000];
        for size in sizes {
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((length, from.port()), (size, port));
            assert_eq!(from.ip().to_string(), "127.0.0.1");
        }
    }

    #[test]
    fn what_arrives_names_its_source_and_the_address_that_it_was_sent_to() {
        let mut batch = UdpBatch::bind(0).unwrap();
        let port = batch.local_port().unwrap();
        let peer = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        for size in [100, 100, 50] {
            peer.send_to(&vec![7; size], ("127.0.0.1", port)).unwrap();
        }
        let mut received = Vec::new();
        for _ in 0..1_000 {
            let local = peer.local_addr().unwrap();
            batch
                .receive(|source, destination, datagram| {
                    assert_eq!(source, local);
                    let destination = destination.map(|ip| ip.to_canonical().to_string());
                    assert_eq!(destination.as_deref(), Some("127.0.0.1"));
                    received.push(datagram.len());
                })
                .unwrap();
            if received.len() == 3 {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(received, [100, 100, 50]);
    }
}
