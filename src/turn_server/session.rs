//! One client of the relay: its requests, its allocation, its data. Pure: time is an argument, and what is to be done
//! comes out of [`Session::poll_output`].
//!
//! The protocol (authentication, lifetimes, permissions, channels) is `turn-server-proto`'s machine, one for each client
//! and always in its form for datagrams. Policy is ours: before it, `gate` refuses; behind it, [`Peers`] decides where a
//! datagram may go, whatever the machine permits.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use turn_server_proto::{
    api::{SocketAllocateError, TurnServerApi, TurnServerPollRet},
    server::TurnServer as Machine,
    stun::types::{
        TransportType,
        attribute::{ErrorCode, MessageIntegrity},
        message::{BINDING, Message, MessageClass},
        prelude::AttributeStaticType,
    },
    types::{
        AddressFamily, Instant as MachineTime,
        message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND},
        prelude::DelayedTransmitBuild,
    },
};

use super::{
    credentials,
    framing::Frames,
    gate::{self, Caller, REALM},
    peers::Peers,
    quotas::{Full, Quotas, Slot},
    rate::Rate,
};
use crate::auth::Secret;

/// How long a client may be here without an allocation: two round trips, with retransmissions.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The machine tells clients and listeners apart by address; it only ever sees one of each.
const MACHINE_LISTENS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 3478);

/// What all sessions share.
#[derive(Debug)]
pub struct Policy {
    pub secret: Secret,
    pub peers: Peers,
    pub quotas: Arc<Quotas>,
    /// Bytes per second in each direction of one allocation.
    pub bytes_per_sec_max: u64,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub at: Instant,
    /// Unix seconds.
    pub unix: u64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    ToClient(Vec<u8>),
    /// From the allocation's socket.
    ToTarget(SocketAddr, Vec<u8>),
    /// Open the allocation's socket and say so with [`Session::opened`].
    Open {
        ipv6: bool,
    },
    /// Close it.
    Close,
    /// Something was refused or dropped; the label of a metric.
    Refused(&'static str),
}

pub struct Session {
    machine: Machine,
    policy: Arc<Policy>,
    client: SocketAddr,
    began: Instant,
    username: Option<String>,
    /// The machine's question whose answer is awaited.
    opening: Option<AddressFamily>,
    relayed: Option<SocketAddr>,
    slot: Option<Slot>,
    /// Since when there is no allocation.
    idle_since: Option<Instant>,
    wake: Instant,
    last_peer: Option<SocketAddr>,
    up: Rate,
    down: Rate,
    outputs: VecDeque<Output>,
}

impl Session {
    pub fn new(now: Now, client: SocketAddr, policy: Arc<Policy>) -> Self {
        let rate = || Rate::new(now.at, policy.bytes_per_sec_max);
        Self {
            machine: Machine::new(TransportType::Udp, MACHINE_LISTENS, REALM.to_owned()),
            client: SocketAddr::new(client.ip().to_canonical(), client.port()),
            began: now.at,
            username: None,
            opening: None,
            relayed: None,
            slot: None,
            idle_since: Some(now.at),
            wake: now.at,
            last_peer: None,
            up: rate(),
            down: rate(),
            outputs: VecDeque::new(),
            policy,
        }
    }

    /// A message or channel data from the client.
    pub fn handle_client(&mut self, now: Now, bytes: &[u8]) {
        if bytes.first().is_some_and(|first| first >> 6 == 1) {
            return self.feed(now, bytes);
        }
        let Ok(message) = Message::from_bytes(bytes) else { return self.refused("malformed") };
        match (message.class(), message.method()) {
            (MessageClass::Request, BINDING) => {
                let answer = gate::binding(&message, self.client);
                self.outputs.extend(answer.map(Output::ToClient));
            }
            (MessageClass::Request, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
                self.handle_request(now, &message, bytes);
            }
            (MessageClass::Indication, SEND) => self.feed(now, bytes),
            // TCP allocations (RFC 6062) and all that nobody needs here.
            _ => self.refused("malformed"),
        }
    }

    fn handle_request(&mut self, now: Now, message: &Message<'_>, bytes: &[u8]) {
        let Some(caller) = Caller::of(message, &self.policy.secret, now.unix) else {
            // The first request of every client has no credentials: the machine asks for them, with a nonce that it will
            // know again. (Chromium gives up on a relay that calls its nonce stale when it allocates.)
            if !message.has_attribute(MessageIntegrity::TYPE) {
                return self.feed(now, bytes);
            }
            self.refused("unauthorized");
            self.outputs.extend(gate::challenge(message).map(Output::ToClient));
            return;
        };
        let refusal = gate::forbidden(message, &self.policy.peers).map(|code| match code {
            ErrorCode::FORBIDDEN => (code, "peer"),
            _ => (code, "transport"),
        });
        if let Some((code, label)) = refusal.or_else(|| self.over_quota(message, &caller)) {
            self.outputs.extend(caller.refusal(message, code).map(Output::ToClient));
            return self.refused(label);
        }
        if self.username.is_none() {
            self.machine.add_user(caller.username.clone(), caller.password.clone());
            self.username = Some(caller.username.clone());
        }
        self.feed(now, bytes);
        if self.relayed.is_none() && self.opening.is_none() {
            self.slot = None;
        }
    }

    fn over_quota(&mut self, message: &Message<'_>, caller: &Caller) -> Option<(u16, &'static str)> {
        if message.method() != ALLOCATE || self.slot.is_some() {
            return None;
        }
        match self.policy.quotas.take(credentials::user(&caller.username)) {
            Ok(slot) => {
                self.slot = Some(slot);
                None
            }
            Err(Full::User) => Some((ErrorCode::ALLOCATION_QUOTA_REACHED, "quota")),
            Err(Full::Total) => Some((ErrorCode::INSUFFICIENT_CAPACITY, "capacity")),
        }
    }

    /// The answer to [`Output::Open`]: the socket's port, `None` where there is no socket to be had.
    pub fn opened(&mut self, now: Now, port: Option<u16>) {
        let Some(family) = self.opening.take() else { return };
        let told = self.policy.peers.address(family == AddressFamily::IPV6);
        let address = match (told, port) {
            (None, _) => Err(SocketAllocateError::AddressFamilyNotSupported),
            (Some(_), None) => Err(SocketAllocateError::InsufficientCapacity),
            (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        };
        match address {
            Ok(address) => {
                self.relayed = Some(address);
                self.idle_since = None;
            }
            Err(_) => {
                self.slot = None;
                self.refused("capacity");
            }
        }
        let time = self.time(now);
        let (client, udp) = (self.client, TransportType::Udp);
        self.machine.allocated_socket(udp, MACHINE_LISTENS, client, udp, family, address, time);
        self.settle(now);
    }

    /// A datagram that came to the allocation's socket.
    pub fn handle_target(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        let Some(relayed) = self.relayed else { return };
        let Some(peer) = self.policy.peers.peer(from, self.last_peer) else { return self.refused("peer") };
        if !self.down.take(now.at, bytes.len()) {
            return self.refused("bitrate");
        }
        self.pass(now, peer, relayed, bytes);
    }

    /// Time has passed; see [`Session::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.settle(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Instant {
        self.idle_since.map_or(self.wake, |since| self.wake.min(since + IDLE_MAX))
    }

    /// Whether nothing is to be expected of this client any more.
    pub fn is_over(&self, now: Now) -> bool {
        self.idle_since.is_some_and(|since| now.at >= since + IDLE_MAX)
    }

    fn feed(&mut self, now: Now, bytes: &[u8]) {
        let client = self.client;
        self.pass(now, client, MACHINE_LISTENS, bytes);
        self.settle(now);
    }

    fn pass(&mut self, now: Now, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let time = self.time(now);
        let transmit = turn_server_proto::api::Transmit::new(bytes, TransportType::Udp, from, to);
        let Some(out) = self.machine.recv(transmit, time) else { return };
        let (from, to) = (out.from, out.to);
        self.send(now, from, to, out.data.build());
    }

    fn send(&mut self, now: Now, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if to == self.client && from == MACHINE_LISTENS {
            return self.outputs.push_back(Output::ToClient(bytes));
        }
        // A permission is for an address; what may be reached there is the media port alone.
        let Some(target) = self.policy.peers.target(to).filter(|_| Some(from) == self.relayed) else {
            return self.refused("peer");
        };
        if !self.up.take(now.at, bytes.len()) {
            return self.refused("bitrate");
        }
        self.last_peer = Some(to);
        self.outputs.push_back(Output::ToTarget(target, bytes));
    }

    /// Takes from the machine all that it wants.
    fn settle(&mut self, now: Now) {
        let time = self.time(now);
        loop {
            match self.machine.poll(time) {
                TurnServerPollRet::AllocateSocket { family, .. }
                    if self.opening.is_none() && self.relayed.is_none() =>
                {
                    self.opening = Some(family);
                    self.outputs.push_back(Output::Open { ipv6: family == AddressFamily::IPV6 });
                }
                // A second family for the same allocation: one is enough to reach us.
                TurnServerPollRet::AllocateSocket { family, .. } => {
                    let (client, udp) = (self.client, TransportType::Udp);
                    let refused = Err(SocketAllocateError::AddressFamilyNotSupported);
                    self.machine.allocated_socket(udp, MACHINE_LISTENS, client, udp, family, refused, time);
                }
                TurnServerPollRet::SocketClose { .. } => {
                    self.relayed = None;
                    self.slot = None;
                    self.idle_since = Some(now.at);
                    self.outputs.push_back(Output::Close);
                }
                TurnServerPollRet::WaitUntil(until) => {
                    let left = until.saturating_duration_since(time);
                    // What ends at that moment is over only after it.
                    self.wake = now.at + left.max(Duration::from_millis(1));
                    break;
                }
                // Nothing here is TCP to the machine.
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
            }
        }
        while let Some(out) = self.machine.poll_transmit(time) {
            self.send(now, out.from, out.to, out.data);
        }
    }

    fn time(&self, now: Now) -> MachineTime {
        let nanos = now.at.saturating_duration_since(self.began).as_nanos();
        MachineTime::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    fn refused(&mut self, label: &'static str) {
        self.outputs.push_back(Output::Refused(label));
    }
}

/// Any bytes as a client's stream, and each message in it as a datagram of the relay's and as one of its target's; for
/// fuzzers.
pub fn fuzz(now: Now, bytes: &[u8]) {
    let media = SocketAddr::from(([198, 51, 100, 7], 7882));
    let policy = Policy {
        secret: "north".into(),
        peers: Peers::new([(media, None)], |_| true),
        quotas: Quotas::new(1, 1),
        bytes_per_sec_max: 100_000,
    };
    let mut session = Session::new(now, SocketAddr::from(([203, 0, 113, 9], 4000)), Arc::new(policy));
    let mut frames = Frames::default();
    frames.buffer.extend_from_slice(bytes);
    while let Ok(Some(message)) = frames.next() {
        session.handle_client(now, &message);
        session.opened(now, Some(50_000));
    }
    session.handle_client(now, bytes);
    session.handle_target(now, media, bytes);
    session.handle_timeout(Now { at: session.poll_timeout(), ..now });
    while session.poll_output().is_some() {}
}
