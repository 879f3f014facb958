//! The relay's promises: on its machine by simulated time, and on its ports by real clients.

use std::time::Instant;

use proptest::prelude::*;
use turn_server_proto::{
    stun::types::{
        attribute::{ErrorCode, Nonce, Realm, Username},
        message::{
            BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials,
            MessageType, MessageWriteVec, Method, TransactionId,
        },
        prelude::{MessageWrite, MessageWriteExt},
    },
    types::{
        attribute::{ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress},
        message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND},
    },
};

use super::{
    credentials::Credentials,
    probe::{Probe, ProbeError},
    session::{Now, Output, Session},
    *,
};

#[test]
fn addresses_of_relays_are_checked() {
    for good in ["turn:a", "turn:a:3478", "turn:[::1]:3478?transport=tcp", "turns:a.example:443?transport=tcp"] {
        assert_eq!(url_mistake(good), None, "{good}");
    }
    for bad in ["", "a", "stun:a", "turn:", "turn://a", "turn:a?transport=quic", "turn:a b", "turn:a>;x=\"", "https:a"]
    {
        assert!(url_mistake(bad).is_some(), "{bad}");
    }
}

const UNIX: u64 = 1_800_000_000;
const MEDIA: &str = "198.51.100.7:7882";

fn policy(per_user: usize) -> Arc<Policy> {
    Arc::new(Policy {
        secret: "north".into(),
        peers: Peers::new([(MEDIA.parse().unwrap(), None)], |_| true),
        quotas: Quotas::new(per_user, 100),
        bytes_per_sec_max: 100_000,
    })
}

/// A client of one session, in simulated time.
struct Client {
    session: Session,
    now: Now,
    credentials: Credentials,
    nonce: Option<String>,
}

type Write<'a> = &'a dyn Fn(&mut MessageWriteVec, TransactionId);

impl Client {
    fn new(policy: &Arc<Policy>, tag: u64) -> Self {
        let now = Now { at: Instant::now(), unix: UNIX };
        let credentials = Credentials::new(&"north".into(), UNIX + 3600, tag);
        Self {
            session: Session::new(now, "203.0.113.9:4000".parse().unwrap(), policy.clone()),
            now,
            credentials,
            nonce: None,
        }
    }

    fn bytes(&self, class: MessageClass, method: Method, write: Write<'_>) -> Vec<u8> {
        let id = TransactionId::generate();
        let mut message = Message::builder(MessageType::from_class_method(class, method), id, MessageWriteVec::new());
        write(&mut message, id);
        if let Some(nonce) = self.nonce.as_ref().filter(|_| class == MessageClass::Request) {
            let Credentials { username, password } = &self.credentials;
            message.add_attribute(&Username::new(username).unwrap()).unwrap();
            message.add_attribute(&Realm::new("viva").unwrap()).unwrap();
            message.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
            let key = LongTermKeyCredentials::new(username.clone(), password.clone(), "viva".into());
            message.add_message_integrity(&MessageIntegrityCredentials::from(key), IntegrityAlgorithm::Sha1).unwrap();
        }
        message.finish()
    }

    /// The answer's error code, 0 for success; and its relayed address.
    fn ask(&mut self, method: Method, write: Write<'_>) -> (u16, Option<SocketAddr>) {
        let bytes = self.bytes(MessageClass::Request, method, write);
        self.session.handle_client(self.now, &bytes);
        let mut answer = None;
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::ToClient(bytes) => answer = Some(bytes),
                Output::Open { ipv6 } => self.session.opened(self.now, (!ipv6).then_some(50_000)),
                Output::Refused(_) | Output::Close => {}
                Output::ToTarget(..) => panic!("a request sends nothing to anybody else"),
            }
        }
        let answer = answer.expect("an answer");
        let message = Message::from_bytes(&answer).expect("STUN");
        if let Ok(nonce) = message.attribute::<Nonce>() {
            self.nonce = Some(nonce.nonce().to_owned());
        }
        let relayed = message.attribute::<XorRelayedAddress>().ok().map(|at| at.addr(message.transaction_id()));
        (message.attribute::<ErrorCode>().map_or(0, |error| error.code()), relayed)
    }

    fn allocate(&mut self) -> (u16, Option<SocketAddr>) {
        self.ask(ALLOCATE, &|message, _| message.add_attribute(&RequestedTransport::new(17)).unwrap())
    }

    /// The two requests that ask for credentials and for the machine's nonce, then the one that counts.
    fn enter(&mut self) -> (u16, Option<SocketAddr>) {
        assert_eq!(self.allocate().0, 401);
        match self.allocate() {
            (438, _) => self.allocate(),
            other => other,
        }
    }

    fn permit(&mut self, peer: &str) -> u16 {
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        self.ask(CREATE_PERMISSION, &|message, id| message.add_attribute(&XorPeerAddress::new(peer, id)).unwrap()).0
    }

    fn bind(&mut self, peer: &str) -> u16 {
        let peer = peer.parse().unwrap();
        let write: Write<'_> = &|message, id| {
            message.add_attribute(&XorPeerAddress::new(peer, id)).unwrap();
            message.add_attribute(&ChannelNumber::new(0x4000)).unwrap();
        };
        self.ask(CHANNEL_BIND, write).0
    }

    /// Where data for this peer goes; `None` where it goes nowhere.
    fn send(&mut self, peer: &str, length: usize) -> Option<SocketAddr> {
        let (peer, data) = (peer.parse().unwrap(), vec![7; length]);
        let bytes = self.bytes(MessageClass::Indication, SEND, &|message, id| {
            message.add_attribute(&XorPeerAddress::new(peer, id)).unwrap();
            message.add_attribute(&Data::new(&data)).unwrap();
        });
        self.session.handle_client(self.now, &bytes);
        self.outputs().into_iter().find_map(|output| match output {
            Output::ToTarget(target, sent) => Some(target).filter(|_| sent == data),
            _ => None,
        })
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    fn later(&mut self, secs: u64) -> Vec<Output> {
        self.now.at += Duration::from_secs(secs);
        self.now.unix += secs;
        self.session.handle_timeout(self.now);
        self.outputs()
    }
}

#[test]
fn an_allocation_carries_data_both_ways_until_it_is_not_refreshed() {
    let mut ada = Client::new(&policy(2), 1);
    assert_eq!(ada.enter(), (0, Some("198.51.100.7:50000".parse().unwrap())));
    assert_eq!(ada.send(MEDIA, 100), None, "not before there is a permission");
    assert_eq!(ada.permit("198.51.100.7"), 0);
    assert_eq!(ada.send(MEDIA, 100), Some(MEDIA.parse().unwrap()));
    ada.session.handle_target(ada.now, MEDIA.parse().unwrap(), b"back");
    let [Output::ToClient(back)] = &ada.outputs()[..] else { panic!("one message") };
    let back = Message::from_bytes(back).unwrap();
    assert_eq!(back.attribute::<Data>().unwrap().data(), b"back");

    assert_eq!(ada.bind(MEDIA), 0);
    ada.session.handle_client(ada.now, b"\x40\x00\x00\x05hello");
    assert_eq!(ada.outputs(), [Output::ToTarget(MEDIA.parse().unwrap(), b"hello".to_vec())]);
    ada.session.handle_target(ada.now, MEDIA.parse().unwrap(), b"world");
    assert_eq!(ada.outputs(), [Output::ToClient(b"\x40\x00\x00\x05world".to_vec())]);

    assert_eq!(ada.later(599), []);
    assert!(!ada.session.is_over(ada.now));
    assert!(ada.later(2).contains(&Output::Close), "ten minutes without a refresh");
    ada.later(10);
    assert!(ada.session.is_over(ada.now));
}

#[test]
fn a_client_that_says_goodbye_gives_its_place_back_at_once() {
    let policy = policy(1);
    let mut ada = Client::new(&policy, 1);
    assert_eq!(ada.enter().0, 0);
    let mut second = Client::new(&policy, 1);
    assert_eq!(second.allocate().0, 401);
    assert_eq!(second.allocate().0, 486, "the quota of these credentials");
    let mut bob = Client::new(&policy, 2);
    assert_eq!(bob.enter().0, 0, "others are not concerned");
    assert_eq!(ada.ask(REFRESH, &|message, _| message.add_attribute(&Lifetime::new(0)).unwrap()).0, 0);
    let again = second.allocate().0;
    assert!(again == 0 || (again == 438 && second.allocate().0 == 0), "{again}");
}

#[test]
fn nobody_is_let_through_to_anything_but_the_media_ports() {
    let mut eve = Client::new(&policy(2), 1);
    assert_eq!(eve.enter().0, 0);
    for peer in ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "8.8.8.8"] {
        assert_eq!((eve.permit(peer), eve.bind(&format!("{peer}:7882"))), (403, 403), "{peer}");
        let mapped = format!("::ffff:{peer}");
        assert_eq!((eve.permit(&mapped), eve.bind(&format!("[{mapped}]:7882"))), (403, 403), "{mapped}");
    }
    assert_eq!((eve.permit("::1"), eve.permit("::ffff:198.51.100.7")), (403, 403));
    let carried = eve.ask(CREATE_PERMISSION, &|message, id| {
        message.add_attribute(&XorPeerAddress::new(MEDIA.parse().unwrap(), id)).unwrap();
        message.add_attribute(&XorPeerAddress::new("127.0.0.1:22".parse().unwrap(), id)).unwrap();
    });
    assert_eq!(carried.0, 403, "an allowed peer carries no other in");
    assert_eq!(eve.permit("198.51.100.7"), 0);
    assert_eq!(eve.bind("198.51.100.7:22"), 0, "a permission is for an address");
    eve.session.handle_client(eve.now, b"\x40\x00\x00\x05hello");
    assert_eq!(eve.outputs(), [Output::Refused("peer")], "but only the media port is reached");
    assert_eq!(eve.send("198.51.100.7:22", 10), None);
    eve.session.handle_target(eve.now, "198.51.100.7:22".parse().unwrap(), b"x");
    assert_eq!(eve.outputs(), [Output::Refused("peer")]);
}

#[test]
fn credentials_are_good_until_their_end_and_only_as_they_were_issued() {
    let mut ada = Client::new(&policy(2), 1);
    assert_eq!(ada.enter().0, 0);
    ada.now.unix = UNIX + 3601;
    assert_eq!(ada.permit("198.51.100.7"), 401);
    let policy = policy(2);
    for change in [
        |made: &mut Credentials| made.password.push('x'),
        |made: &mut Credentials| made.username = "1900000000:1".into(),
        |made: &mut Credentials| made.username = "ada".into(),
        |made: &mut Credentials| *made = Credentials::new(&"south".into(), UNIX + 3600, 1),
    ] {
        let mut eve = Client::new(&policy, 1);
        change(&mut eve.credentials);
        assert_eq!((eve.allocate().0, eve.allocate().0, eve.allocate().0), (401, 401, 401));
    }
    let mut tcp = Client::new(&policy, 1);
    let wanted: Write<'_> = &|message, _| message.add_attribute(&RequestedTransport::new(6)).unwrap();
    assert_eq!((tcp.ask(ALLOCATE, wanted).0, tcp.ask(ALLOCATE, wanted).0), (401, 442), "no relaying of TCP");
}

#[test]
fn what_is_too_fast_is_dropped() {
    let mut ada = Client::new(&policy(2), 1);
    ada.enter();
    ada.permit("198.51.100.7");
    let sent = (0..100).filter(|_| ada.send(MEDIA, 1000).is_some()).count();
    assert_eq!(sent, 25, "a quarter of a second's bytes at once");
    ada.later(1);
    assert!(ada.send(MEDIA, 1000).is_some());
}

proptest! {
    #[test]
    fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0usize..100, to: u8, kind in 0..5) {
        let mut eve = Client::new(&policy(2), 1);
        eve.session.handle_client(eve.now, &bytes);
        eve.enter();
        eve.permit("198.51.100.7");
        eve.session.handle_client(eve.now, &bytes);
        eve.session.handle_target(eve.now, MEDIA.parse().unwrap(), &bytes);
        let method = [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, BINDING][kind as usize];
        let mut good = eve.bytes(MessageClass::Request, method, &|_, _| {});
        if let Some(byte) = good.get_mut(at) {
            *byte = to;
        }
        eve.session.handle_client(eve.now, &good);
        eve.later(10_000);
    }
}

/// A relay on real ports of this machine, with a media port that echoes, and another port that must stay silent.
struct Real {
    server: TurnServer,
    media: SocketAddr,
    closed: std::net::UdpSocket,
    metrics: Arc<Metrics>,
    _stop: tokio_util::sync::DropGuard,
}

impl Real {
    async fn start() -> Self {
        Self::start_with(Crowd::default()).await
    }

    async fn start_with(crowd: Crowd) -> Self {
        let media = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        closed.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let at = media.local_addr().unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = media.recv_from(&mut datagram).await {
                let _ = media.send_to(&datagram[..length], from).await;
            }
        });
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let config =
            Config { udp_listen: listen, tcp_listen: listen, allocations_per_user_max: 3, ..Config::default() };
        let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
        let started =
            TurnServer::start(&config, &[(at, None)], Public::default(), crowd, metrics.clone(), stop.clone()).await;
        let server = started.unwrap();
        Self { server, media: at, closed, metrics, _stop: stop.drop_guard() }
    }

    fn credentials(&self, tag: u64) -> Credentials {
        Credentials::new(&self.server.relay().secret, client::now().unix + 600, tag)
    }

    fn port(&self, transport: &str) -> SocketAddr {
        let urls = self.server.relay().urls;
        let url =
            urls.iter().find_map(|url| url.strip_prefix("turn:")?.strip_suffix(&format!("?transport={transport}")));
        url.expect("an address").parse().expect("an address with a port")
    }

    async fn client(&self, transport: &str, tag: u64) -> Probe {
        let (at, credentials) = (self.port(transport), self.credentials(tag));
        match transport {
            "udp" => Probe::udp(at, credentials).await.unwrap(),
            _ => Probe::tcp(at, credentials).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn clients_reach_the_media_port_by_udp_and_tcp_and_nothing_else() {
    let real = Real::start().await;
    for transport in ["udp", "tcp"] {
        let mut ada = real.client(transport, 1).await;
        ada.binding().await.unwrap();
        ada.allocate().await.unwrap();
        for peer in ["10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            let refused = ada.permit(peer.parse().unwrap()).await;
            assert!(matches!(refused, Err(ProbeError::Refused(403))), "{transport} {peer}: {refused:?}");
        }
        ada.permit(real.media.ip()).await.unwrap();
        ada.send(real.closed.local_addr().unwrap(), b"must not arrive").await.unwrap();
        ada.send(real.media, b"odd").await.unwrap();
        assert_eq!(ada.data().await.unwrap(), (real.media, b"odd".to_vec()), "{transport}");
        ada.send(real.media, b"even").await.unwrap();
        assert_eq!(ada.data().await.unwrap(), (real.media, b"even".to_vec()), "{transport}");
        ada.release().await.unwrap();
    }
    let heard = real.closed.recv(&mut [0; 64]);
    assert!(heard.is_err(), "another port of the same address got {heard:?}");
    assert!(real.metrics.turn_server_refused.with_label_values(&["peer"]).get() >= 10);
}

#[tokio::test]
async fn one_greedy_client_leaves_room_for_others() {
    let real = Real::start().await;
    let mut held = Vec::new();
    let mut refused = 0;
    for later in 0..10 {
        // With new credentials each time.
        let credentials = Credentials::new(&real.server.relay().secret, client::now().unix + 600 + later, 66);
        let mut eve = Probe::udp(real.port("udp"), credentials).await.unwrap();
        match eve.allocate().await {
            Ok(_) => held.push(eve),
            Err(ProbeError::Refused(486)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((held.len(), refused), (3, 7));
    real.client("tcp", 1).await.allocate().await.expect("others have quotas of their own");
    assert_eq!(real.metrics.turn_server_allocations.with_label_values(&["udp"]).get(), 3);
    held.pop().unwrap().release().await.unwrap();
    real.client("udp", 66).await.allocate().await.expect("one place is free again");
}

#[tokio::test]
async fn one_source_cannot_take_every_place_of_the_relay() {
    // By TCP the third connection is closed, whatever it would have said.
    let real = Real::start_with(Crowd::new(2, Some)).await;
    let mut held = Vec::new();
    for tag in 1..=2 {
        let mut ada = real.client("tcp", tag).await;
        ada.allocate().await.unwrap();
        held.push(ada);
    }
    assert!(real.client("tcp", 3).await.binding().await.is_err());
    // By UDP a third that asks for an allocation is not remembered, and the first two keep theirs.
    let real = Real::start_with(Crowd::new(2, Some)).await;
    for tag in 1..=2 {
        let mut ada = real.client("udp", tag).await;
        ada.allocate().await.unwrap();
        held.push(ada);
    }
    let refused = async {
        while real.metrics.turn_server_refused.with_label_values(&["capacity"]).get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut third = real.client("udp", 3).await;
    tokio::select! {
        allocated = third.allocate() => panic!("{allocated:?}"),
        () = refused => {}
    }
    held.last_mut().unwrap().permit(real.media.ip()).await.unwrap();
}

#[tokio::test]
async fn strangers_leave_nothing_behind() {
    let real = Real::start().await;
    let wrong = Credentials::new(&"guess".into(), client::now().unix + 600, 1);
    for (at, transport) in [(real.port("udp"), "udp"), (real.port("tcp"), "tcp")] {
        let mut eve = match transport {
            "udp" => Probe::udp(at, wrong.clone()).await.unwrap(),
            _ => Probe::tcp(at, wrong.clone()).await.unwrap(),
        };
        let refused = eve.allocate().await;
        assert!(matches!(refused, Err(ProbeError::Refused(401))), "{transport}: {refused:?}");
        assert_eq!(real.metrics.turn_server_allocations.with_label_values(&[transport]).get(), 0);
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = Config { udp_listen: taken.local_addr().ok(), tcp_listen: None, ..Config::default() };
    let media = [("127.0.0.1:9".parse().unwrap(), None)];
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let started = TurnServer::start(&config, &media, Public::default(), Crowd::default(), metrics, stop).await;
    let error = started.err().expect("the port is taken").to_string();
    assert!(error.contains("turn_server.udp_listen") && error.contains("another TURN server"), "{error}");
}
