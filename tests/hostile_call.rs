//! A call between two WebRTC clients goes on, and loses nothing, while everything that is malformed comes at the server.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use futures::{SinkExt, StreamExt};
use rand::{Rng, SeedableRng, rngs::StdRng};
use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    format::Codec,
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::RtpWrite,
};
use tokio_tungstenite::tungstenite::Message as Frame;
use tower::ServiceExt;
use viva::{
    auth::{ApiKeys, Claims, Grants},
    fuzzing,
    rooms::{self, Rooms},
    signalling::{
        self,
        livekit::{Signalling, codec},
    },
    telemetry::Metrics,
    turn_server::IceServers,
    worker,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Malformed frames of each kind.
const FRAMES: usize = 10_000;
/// Datagrams between two packets of the call: a few, so that the kernel drops none.
const BATCH: usize = 40;
/// What the whole process may have grown by in the end: allocators keep some.
const GROWTH_MAX: usize = 64 * 1024 * 1024;

/// A client with a socket on loopback.
struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    pending: Option<SdpPendingOffer>,
    mid: Mid,
    connected: bool,
    received: Vec<u32>,
}

impl Client {
    fn new(direction: Direction) -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().expect("bound"), "udp").expect("an address"));
        let mut api = rtc.sdp_api();
        let mid = api.add_media(MediaKind::Audio, direction, None, None, None);
        let (offer, pending) = api.apply().expect("an offer");
        (Self { rtc, socket, pending: Some(pending), mid, connected: false, received: vec![] }, offer.to_sdp_string())
    }

    fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("SDP");
        self.rtc.sdp_api().accept_answer(self.pending.take().expect("offered"), answer).expect("fits the offer");
    }

    fn step(&mut self) {
        let deadline = loop {
            match self.rtc.poll_output().expect("works") {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => _ = self.socket.send_to(&transmit.contents, transmit.destination),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    let number = packet.payload.first_chunk::<4>().map_or(u32::MAX, |four| u32::from_be_bytes(*four));
                    self.received.push(number);
                }
                Output::Event(_) => {}
            }
        };
        let wait = deadline.saturating_duration_since(Instant::now());
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(2));
        self.socket.set_read_timeout(Some(wait)).expect("settable");
        let mut buffer = [0; 2_000];
        let input = match self.socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let here = self.socket.local_addr().expect("bound");
                match Receive::new(Protocol::Udp, source, here, &buffer[..length]) {
                    Ok(receive) => Input::Receive(Instant::now(), receive),
                    Err(_) => return,
                }
            }
            Err(_) => Input::Timeout(Instant::now()),
        };
        self.rtc.handle_input(input).expect("works");
    }

    fn send(&mut self, n: u32) {
        let pt = self.rtc.codec_config().params().iter().find(|it| it.spec().codec == Codec::Opus).expect("Opus").pt();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(self.mid, None).expect("negotiated");
        let payload = n.to_be_bytes();
        stream.write_rtp(RtpWrite::new(pt, u64::from(1_000 + n).into(), n * 960, Instant::now(), payload.as_slice()));
        self.step();
    }
}

struct Call {
    publisher: Client,
    player: Client,
    sent: u32,
}

impl Call {
    /// One packet of the call, and waits for it: were it lost, this would be the place.
    fn talk(&mut self) {
        self.publisher.send(self.sent);
        self.sent += 1;
        let give_up = Instant::now() + PATIENCE;
        while self.player.received.last() != Some(&(self.sent - 1)) {
            assert!(Instant::now() < give_up, "packet {} of the call was lost", self.sent - 1);
            self.publisher.step();
            self.player.step();
        }
    }
}

struct Server {
    router: Router,
    keys: ApiKeys,
    rooms: Rooms,
    metrics: Arc<Metrics>,
}

impl Server {
    fn start() -> Self {
        let metrics = Arc::new(Metrics::new());
        let media = worker::Config {
            workers: 1,
            udp_port_base: 0,
            advertise_ips: vec![[127, 0, 0, 1].into()],
            ..worker::Config::default()
        };
        let workers = worker::start(&media, metrics.clone()).expect("media starts");
        // How often one may join is another test's.
        let config = rooms::Config { joins_per_key_per_sec: 0, ..rooms::Config::default() };
        let rooms = Rooms::new(config, workers, metrics.clone());
        let keys = ApiKeys::dev();
        let state = Signalling {
            config: signalling::livekit::Config::default(),
            rooms: rooms.clone(),
            keys: Arc::new(keys.clone()),
            ice_servers: IceServers::default(),
            metrics: metrics.clone(),
        };
        Self { router: signalling::router(state), keys, rooms, metrics }
    }

    fn token(&self, identity: &str, room: &str) -> String {
        let claims = Claims::new(&identity.into(), Grants::participant(&room.into()));
        self.keys.mint(claims, Duration::from_secs(600)).expect("there is a key")
    }

    async fn post(&self, path: &str, token: &str, body: Vec<u8>) -> (u16, String) {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/sdp")
            .body(Body::from(body))
            .expect("valid");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

fn address_of(sdp: &str) -> SocketAddr {
    let candidate = sdp.lines().find(|line| line.starts_with("a=candidate:")).expect("a candidate");
    let words: Vec<&str> = candidate.split(' ').collect();
    format!("{}:{}", words[4], words[5]).parse().expect("an address")
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

/// A datagram that looks like one of this kind at its beginning, and is none.
fn datagram(kind: &str, ufrag: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0u8; rng.random_range(1..1_300)];
    rng.fill(&mut bytes[..]);
    let mut begin = |head: &[u8]| {
        let length = head.len().min(bytes.len());
        bytes[..length].copy_from_slice(&head[..length]);
    };
    match kind {
        "STUN" => {
            // Right but for what proves it, then with a few bytes changed.
            let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
            request.extend(rng.random::<[u8; 12]>());
            let username = format!("{ufrag}:abcd");
            let mut attributes = vec![0, 6, 0, username.len() as u8];
            attributes.extend(username.as_bytes());
            attributes.resize(attributes.len().next_multiple_of(4), 0);
            attributes.extend([0, 8, 0, 20]);
            attributes.extend(rng.random::<[u8; 20]>());
            request[3] = attributes.len() as u8;
            request.extend(attributes);
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..request.len());
                request[at] = rng.random();
            }
            request.truncate(rng.random_range(1..=request.len()));
            return request;
        }
        "DTLS" => begin(&[rng.random_range(20..=25), 0xfe, 0xfd, 0, rng.random_range(0..2)]),
        "RTP" => begin(&[rng.random_range(128..192), [0, 96, 111, 127, 239][rng.random_range(0..5)]]),
        "RTCP" => begin(&[rng.random_range(128..192), rng.random_range(192..=223), 0, rng.random_range(0..20)]),
        "SCTP" => begin(&[0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0]),
        _ => {}
    }
    bytes
}

fn changed(seed: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] = rng.random();
    }
    bytes.truncate(rng.random_range(1..=bytes.len()));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_loses_nothing_while_everything_malformed_comes_at_the_server() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    let server = Server::start();
    let mut rng = StdRng::seed_from_u64(23);
    let (mut publisher, offer) = Client::new(Direction::SendOnly);
    let (status, answer) = server.post("/whip/v1", &server.token("camera", "call"), offer.into_bytes()).await;
    assert_eq!(status, 201, "{answer}");
    publisher.accept(&answer);
    let (mut player, offer) = Client::new(Direction::RecvOnly);
    let (status, played) = server.post("/whep/v1", &server.token("viewer", "call"), offer.into_bytes()).await;
    assert_eq!(status, 201, "{played}");
    player.accept(&played);
    let give_up = Instant::now() + PATIENCE;
    while !(publisher.connected && player.connected) {
        assert!(Instant::now() < give_up, "the call does not come up");
        publisher.step();
        player.step();
    }
    let mut call = Call { publisher, player, sent: 0 };
    // The first packets may come before the player is attached.
    while call.player.received.is_empty() {
        assert!(Instant::now() < give_up, "nothing is heard");
        call.publisher.send(call.sent);
        call.sent += 1;
        call.player.step();
    }
    call.talk();
    let (first, before) = (call.player.received[0], resident());

    // On the media port: from strangers, and every fourth from the publisher's own address.
    let port = address_of(&answer);
    let ufrag = answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("one").to_owned();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for kind in ["STUN", "DTLS", "RTP", "RTCP", "SCTP", "noise"] {
        for n in 0..FRAMES {
            let bytes = datagram(kind, &ufrag, &mut rng);
            let socket = if n % 4 == 0 { &call.publisher.socket } else { &stranger };
            socket.send_to(&bytes, port).expect("sends");
            if n % BATCH == BATCH - 1 {
                call.talk();
            }
        }
    }

    // On HTTP: offers and fragments.
    let token = server.token("eve", "attack");
    let seeds = (fuzzing::target("whip_sdp").expect("is there").seeds)();
    for n in 0..FRAMES {
        let body = changed(&seeds[n % seeds.len()], &mut rng);
        let (status, _) = server.post(["/whip/v1", "/whep/v1"][n % 2], &token, body).await;
        assert!([201, 400, 409, 422].contains(&status), "{status}");
        if n % BATCH == 0 {
            call.talk();
        }
    }

    // On signalling sockets: as many frames on each as may come at once, protobuf and JSON, then one that is no message.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let router = server.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("ws://{address}/rtc?protocol=17&access_token={}", server.token("mallory", "attack"));
    let binary = (fuzzing::target("signal_protobuf").expect("is there").seeds)();
    let json = (fuzzing::target("signal_json").expect("is there").seeds)();
    let (mut frames, mut sockets) = (0, 0);
    while frames < FRAMES {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("let in");
        sockets += 1;
        for n in 0..40 {
            // Behind the two bytes of its length.
            let bytes = loop {
                let bytes = changed(&binary[rng.random_range(0..binary.len())][2..], &mut rng);
                // Most are read, and mean nonsense; the last is no message, and ends the socket.
                if codec::decode_binary(&bytes).is_ok() == (n < 39) {
                    break bytes;
                }
            };
            let text = changed(&json[rng.random_range(0..json.len())], &mut rng);
            let text = String::from_utf8_lossy(&text).into_owned();
            let frame = if n % 8 == 6 && codec::decode_text(&text).is_ok() {
                Frame::Text(text.into())
            } else {
                Frame::Binary(bytes.into())
            };
            if socket.send(frame).await.is_err() {
                break;
            }
            frames += 1;
        }
        let closed = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(PATIENCE, closed).await.expect("the socket is closed");
        call.talk();
    }
    // JSON that is none, which ends the socket at once.
    for _ in 0..200 {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("let in");
        let seed = &json[rng.random_range(0..json.len())];
        let text = String::from_utf8_lossy(&seed[..seed.len() - 1]).into_owned();
        socket.send(Frame::Text(text.into())).await.expect("sends");
        let closed = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(PATIENCE, closed).await.expect("the socket is closed");
    }

    for _ in 0..50 {
        call.talk();
    }
    let wanted: Vec<u32> = (first..call.sent).collect();
    assert_eq!(call.player.received, wanted, "every packet of the call came, once and in order");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let grown = resident().saturating_sub(before);
    assert!(grown <= GROWTH_MAX, "grown by {grown} bytes");
    assert!(server.rooms.get(&"call".into()).is_some());
    assert!(server.metrics.render().contains("viva_sfu_packets_dropped_total"));
    println!(
        "{} packets of the call; {frames} frames on {sockets} sockets; grown by {} KiB",
        wanted.len(),
        grown / 1024
    );
}
