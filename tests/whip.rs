//! WHIP and WHEP over real sockets: every status that a client can get, and media from one to the other.

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    format::Codec,
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::RtpWrite,
};
use tower::ServiceExt;
use viva::{
    auth::{ApiKeys, Claims, Grants},
    rooms::{self, Rooms},
    signalling::{self, livekit::Signalling},
    telemetry::Metrics,
    turn_server::{IceServers, Relay, credentials::password},
    worker,
};

/// Longest that anything here may take; a busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(20);
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

struct Server {
    router: Router,
    rooms: Rooms,
    keys: ApiKeys,
    metrics: Arc<Metrics>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: impl header::AsHeaderName) -> String {
        self.headers.get(name).map_or(String::new(), |value| value.to_str().expect("text").to_owned())
    }

    /// Checks that it is a problem document of this kind that says what to do.
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header(header::CONTENT_TYPE), "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())));
        assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 15), "{}", self.body);
    }
}

fn server() -> Server {
    let metrics = Arc::new(Metrics::new());
    let media = worker::Config {
        workers: 1,
        udp_port_base: 0,
        advertise_ips: vec![[127, 0, 0, 1].into()],
        ..worker::Config::default()
    };
    let workers = worker::start(&media, metrics.clone()).expect("media starts");
    let rooms = Rooms::new(rooms::Config::default(), workers, metrics.clone());
    let keys = ApiKeys::dev();
    let urls = ["turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:5349?transport=tcp"];
    let relay = Relay { urls: urls.map(str::to_owned).to_vec(), secret: "north".into() };
    let ice_servers = IceServers::new(vec![relay], Duration::from_secs(3600), false);
    let keys_of_doors = Arc::new(keys.clone());
    let state = Signalling {
        config: Default::default(),
        rooms: rooms.clone(),
        keys: keys_of_doors,
        ice_servers,
        metrics: metrics.clone(),
    };
    Server { router: signalling::router(state), rooms, keys, metrics }
}

impl Server {
    fn token_with(&self, identity: &str, change: impl FnOnce(&mut Grants)) -> String {
        let mut grants = Grants::participant(&"room".into());
        change(&mut grants);
        self.keys.mint(Claims::new(&identity.into(), grants), Duration::from_secs(600)).expect("there is a key")
    }

    fn token(&self, identity: &str) -> String {
        self.token_with(identity, |_| {})
    }

    async fn ask(&self, method: Method, path: &str, token: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("valid");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn offer(&self, path: &str, token: &str, sdp: &str) -> Answer {
        self.ask(Method::POST, path, token, &[("content-type", SDP)], sdp).await
    }

    async fn patch(&self, path: &str, token: &str, if_match: &str, fragment: &str) -> Answer {
        let headers = [("content-type", FRAGMENT), ("if-match", if_match)];
        self.ask(Method::PATCH, path, token, &headers, fragment).await
    }

    fn joins(&self, protocol: &str, result: &str) -> u64 {
        self.metrics.participant_joins.with_label_values(&[protocol, result]).get()
    }
}

/// A WebRTC client that knows nothing of us, with a socket on loopback.
struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    pending: Option<SdpPendingOffer>,
    mids: Vec<Mid>,
    connected: bool,
    payloads: Vec<Vec<u8>>,
}

impl Client {
    fn new(direction: Direction, kinds: &[MediaKind]) -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
        let mut api = rtc.sdp_api();
        let mids = kinds.iter().map(|kind| api.add_media(*kind, direction, None, None, None)).collect();
        let (offer, pending) = api.apply().unwrap();
        let client = Self { rtc, socket, pending: Some(pending), mids, connected: false, payloads: Vec::new() };
        (client, offer.to_sdp_string())
    }

    fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("SDP");
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).expect("fits the offer");
    }

    /// Offers an ICE restart; returns its new credentials as a fragment.
    fn restart(&mut self) -> String {
        let mut api = self.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        let offer = offer.to_sdp_string();
        let line = |name: &str| offer.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        format!("{}\r\n{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n", line("a=ice-ufrag"), line("a=ice-pwd"))
    }

    /// Does what is due, and takes one datagram if there is one.
    fn step(&mut self) {
        let deadline = loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => _ = self.socket.send_to(&transmit.contents, transmit.destination),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.payloads.push(packet.payload.to_vec()),
                Output::Event(_) => {}
            }
        };
        let wait = deadline.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), Duration::from_millis(5)))).unwrap();
        let mut buffer = [0; 2_000];
        let input = match self.socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let destination = self.socket.local_addr().unwrap();
                let receive = Receive::new(Protocol::Udp, source, destination, &buffer[..length]).unwrap();
                Input::Receive(Instant::now(), receive)
            }
            Err(_) => Input::Timeout(Instant::now()),
        };
        self.rtc.handle_input(input).unwrap();
    }

    fn send(&mut self, n: u32) {
        let pt = self.rtc.codec_config().params().iter().find(|it| it.spec().codec == Codec::Opus).unwrap().pt();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(self.mids[0], None).expect("negotiated");
        stream.write_rtp(RtpWrite::new(
            pt,
            u64::from(1_000 + n).into(),
            n * 960,
            Instant::now(),
            [n as u8, 7, 7].as_slice(),
        ));
        self.step();
    }
}

fn run(clients: &mut [&mut Client], until: impl Fn(&[&mut Client]) -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !until(clients) {
        assert!(Instant::now() < give_up, "out of patience");
        clients.iter_mut().for_each(|client| client.step());
    }
}

const AUDIO: &[MediaKind] = &[MediaKind::Audio];
const BOTH: &[MediaKind] = &[MediaKind::Audio, MediaKind::Video];

/// Publishes by WHIP and connects; the client, and the address of its session.
async fn publish(server: &Server, identity: &str) -> (Client, String, Answer) {
    let (mut client, offer) = Client::new(Direction::SendOnly, AUDIO);
    let answer = server.offer("/whip/v1", &server.token(identity), &offer).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    client.accept(&answer.body);
    run(&mut [&mut client], |clients| clients[0].connected);
    let location = answer.header(header::LOCATION);
    (client, location, answer)
}

/// Sends Opus until the player has got that much.
fn is_heard(publisher: &mut Client, player: &mut Client, packets: usize) {
    let (give_up, before) = (Instant::now() + PATIENCE, player.payloads.len());
    let mut n = 0;
    while player.payloads.len() < before + packets {
        assert!(Instant::now() < give_up, "not heard");
        publisher.send(n);
        player.step();
        n += 1;
    }
    assert!(player.payloads[before..].iter().all(|payload| payload[1..] == [7, 7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_by_whip_is_played_by_whep() {
    let server = server();
    let (mut publisher, location, answer) = publish(&server, "camera").await;
    assert_eq!(answer.header(header::CONTENT_TYPE), SDP);
    assert!(location.starts_with("/whip/v1/PA_"), "{location}");
    assert!(answer.header(header::ETAG).starts_with('"'));
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    let exposed = answer.header(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    assert!(["location", "etag", "link"].iter().all(|name| exposed.contains(name)), "{exposed}");
    assert!(answer.body.contains("a=recvonly") && answer.body.contains("a=ice-lite"), "{}", answer.body);
    // One who plays has a section for a picture too, which stays open though nobody publishes one.
    let (mut player, offer) = Client::new(Direction::RecvOnly, BOTH);
    let played = server.offer("/whep/v1", &server.token("viewer"), &offer).await;
    assert_eq!(played.status, StatusCode::CREATED, "{}", played.body);
    assert!(played.header(header::LOCATION).starts_with("/whep/v1/PA_"));
    assert_eq!(played.body.matches("a=sendonly").count(), 2, "{}", played.body);
    player.accept(&played.body);
    run(&mut [&mut publisher, &mut player], |clients| clients[1].connected);
    is_heard(&mut publisher, &mut player, 25);

    assert_eq!((server.joins("whip", "ok"), server.joins("whep", "ok")), (1, 1));
    let ended = server.ask(Method::DELETE, &location, &server.token("camera"), &[], "").await;
    assert_eq!(ended.status, StatusCode::OK);
    server.ask(Method::DELETE, &location, &server.token("camera"), &[], "").await.is_problem(404, "no_session");
    assert_eq!(server.metrics.participants.with_label_values(&["standard"]).get(), 1);

    // The next publisher takes the same section.
    let (mut next, ..) = publish(&server, "another").await;
    is_heard(&mut next, &mut player, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ice_restart_keeps_the_session() {
    let server = server();
    let (mut player, offer) = Client::new(Direction::RecvOnly, AUDIO);
    let played = server.offer("/whep/v1?participant=camera", &server.token("viewer"), &offer).await;
    assert_eq!(played.status, StatusCode::CREATED, "{}", played.body);
    player.accept(&played.body);
    let (mut publisher, path, answer) = publish(&server, "camera").await;
    run(&mut [&mut publisher, &mut player], |clients| clients[1].connected);
    is_heard(&mut publisher, &mut player, 5);

    let (token, etag) = (server.token("camera"), answer.header(header::ETAG));
    let fragment = publisher.restart();
    let restarted = server.patch(&path, &token, "*", &fragment).await;
    assert_eq!(restarted.status, StatusCode::OK, "{}", restarted.body);
    assert_eq!(restarted.header(header::CONTENT_TYPE), FRAGMENT);
    assert_ne!(restarted.header(header::ETAG), etag);
    let ufrag = restarted.header(header::ETAG);
    assert!(restarted.body.contains(&format!("a=ice-ufrag:{}\r\n", ufrag.trim_matches('"'))), "{}", restarted.body);
    assert!(restarted.body.contains("a=candidate:") && restarted.body.contains("a=ice-lite"), "{}", restarted.body);
    // A client puts the new credentials into the answer that it has.
    let new = |name: &str| restarted.body.lines().find(|line| line.starts_with(name)).unwrap();
    let amended: Vec<_> = answer
        .body
        .lines()
        .map(|line| match line {
            line if line.starts_with("a=ice-ufrag") => new("a=ice-ufrag"),
            line if line.starts_with("a=ice-pwd") => new("a=ice-pwd"),
            line => line,
        })
        .collect();
    publisher.accept(&format!("{}\r\n", amended.join("\r\n")));
    is_heard(&mut publisher, &mut player, 50);

    server.patch(&path, &token, &etag, "a=end-of-candidates\r\n").await.is_problem(412, "other_ice_session");
    server.patch(&path, &token, "\"*\"", &fragment).await.is_problem(422, "unsupported_offer");
    assert_eq!(server.metrics.participants.with_label_values(&["standard"]).get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_candidates_and_refuses_what_is_not_its_own() {
    let server = server();
    let (_publisher, path, answer) = publish(&server, "camera").await;
    let (token, etag) = (server.token("camera"), answer.header(header::ETAG));
    let trickle = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
        a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n";
    let taken = server.patch(&path, &token, &etag, trickle).await;
    assert_eq!((taken.status, taken.body.as_str()), (StatusCode::NO_CONTENT, ""));
    server.patch(&path, &token, "\"other\"", trickle).await.is_problem(412, "other_ice_session");
    server.patch(&path, &token, &etag, "nonsense").await.is_problem(400, "malformed_fragment");
    server.patch(&path, &token, "*", "a=end-of-candidates\r\n").await.is_problem(400, "malformed_fragment");
    let plain = [("content-type", "text/plain"), ("if-match", etag.as_str())];
    server.ask(Method::PATCH, &path, &token, &plain, trickle).await.is_problem(415, "wrong_content_type");
    let unconditional = [("content-type", FRAGMENT)];
    server.ask(Method::PATCH, &path, &token, &unconditional, trickle).await.is_problem(428, "if_match_required");

    server.patch(&path, "", &etag, trickle).await.is_problem(401, "unauthorized");
    server.patch(&path, &server.token("stranger"), &etag, trickle).await.is_problem(404, "no_session");
    let elsewhere = server.token_with("camera", |grants| grants.room = "another".into());
    server.patch(&path, &elsewhere, &etag, trickle).await.is_problem(404, "no_session");
    let as_player = path.replace("/whip/", "/whep/");
    server.patch(&as_player, &token, &etag, trickle).await.is_problem(404, "no_session");
    server.ask(Method::DELETE, &as_player, &token, &[], "").await.is_problem(404, "no_session");
    server.ask(Method::DELETE, "/whip/v1/PA_none", &token, &[], "").await.is_problem(404, "no_session");
    server.ask(Method::DELETE, &path, "", &[], "").await.is_problem(401, "unauthorized");
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::POST] {
        let refused = server.ask(method.clone(), &path, &token, &[], "").await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert!(refused.header(header::ALLOW).contains("PATCH"), "{:?}", refused.headers);
    }
    assert_eq!(server.metrics.participants.with_label_values(&["standard"]).get(), 1, "nothing of this ended it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_says_what_it_wants() {
    let server = server();
    let (_, offer) = Client::new(Direction::SendOnly, AUDIO);
    let (_, wish) = Client::new(Direction::RecvOnly, AUDIO);
    for (path, good) in [("/whip/v1", &offer), ("/whep/v1", &wish)] {
        let token = server.token("ada");
        server.offer(path, "", good).await.is_problem(401, "unauthorized");
        let unsigned = server.offer(path, "nonsense", good).await;
        unsigned.is_problem(401, "unauthorized");
        assert_eq!(unsigned.header(header::WWW_AUTHENTICATE), "Bearer");
        assert_eq!(unsigned.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*", "a page can read why");
        let no_join = server.token_with("ada", |grants| grants.room_join = false);
        server.offer(path, &no_join, good).await.is_problem(403, "forbidden");
        let nothing = server.token_with("ada", |grants| {
            (grants.can_publish, grants.can_subscribe) = (Some(false), Some(false));
        });
        server.offer(path, &nothing, good).await.is_problem(403, "forbidden");
        server.offer(path, &server.token(&"x".repeat(300)), good).await.is_problem(400, "invalid_request");

        let json = [("content-type", "application/json")];
        let wrong = server.ask(Method::POST, path, &token, &json, good).await;
        wrong.is_problem(415, "wrong_content_type");
        assert_eq!(wrong.header("accept-post"), SDP);
        server.offer(path, &token, "nonsense").await.is_problem(400, "malformed_sdp");
        server.offer(path, &token, &good.replace("a=fingerprint", "a=finger")).await.is_problem(400, "malformed_sdp");
        server.offer(path, &token, &good.replace("opus/", "L16/")).await.is_problem(422, "unsupported_offer");
        server.offer(path, &token, &"v=0\r\n".repeat(20_000)).await.is_problem(413, "too_large");
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let refused = server.ask(method.clone(), path, &token, &[], "").await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
        let asked = [("origin", "https://a.example"), ("access-control-request-headers", "authorization,content-type")];
        let options = server.ask(Method::OPTIONS, path, "", &asked, "").await;
        assert_eq!((options.status, options.header("accept-post").as_str()), (StatusCode::NO_CONTENT, SDP));
        assert_eq!(options.header(header::ACCESS_CONTROL_ALLOW_HEADERS), "authorization,content-type");
        assert!(options.header(header::ACCESS_CONTROL_ALLOW_METHODS).contains("POST"));
        let options = server.ask(Method::OPTIONS, &format!("{path}/PA_x"), "", &asked, "").await;
        assert_eq!((options.status, options.header("accept-patch").as_str()), (StatusCode::NO_CONTENT, FRAGMENT));
        assert!(options.header(header::ACCESS_CONTROL_ALLOW_METHODS).contains("DELETE"));
    }
    server.offer("/whip/v1", &server.token("ada"), &wish).await.is_problem(422, "unsupported_offer");
    server.offer("/whep/v1", &server.token("ada"), &offer).await.is_problem(422, "unsupported_offer");
    let only_camera = server.token_with("ada", |grants| grants.can_publish_sources = vec!["camera".into()]);
    server.offer("/whip/v1", &only_camera, &offer).await.is_problem(403, "forbidden");
    assert_eq!(server.metrics.participants.with_label_values(&["standard"]).get(), 0);
    assert_eq!(server.joins("whip", "ok"), 0);
    assert!(server.joins("whip", "unauthorized") >= 3 && server.joins("whip", "refused") >= 6);
    assert_eq!(server.joins("whip", "failed"), 1, "the offer that the media core refused");

    server.rooms.shutdown().await;
    let late = server.offer("/whip/v1", &server.token("ada"), &offer).await;
    late.is_problem(503, "unavailable");
    assert!(!late.header(header::RETRY_AFTER).is_empty());
}

#[tokio::test]
async fn clients_are_told_of_relays_when_they_begin_and_when_they_ask_with_a_token() {
    let server = server();
    let token = server.token("ada");
    let (_, offer) = Client::new(Direction::SendOnly, &[MediaKind::Audio]);
    let begun = server.offer("/whip/v1", &token, &offer).await;
    assert_eq!(begun.status, StatusCode::CREATED, "{}", begun.body);
    let asked = server.ask(Method::OPTIONS, "/whep/v1", &token, &[], "").await;
    for answer in [begun, asked] {
        let links: Vec<_> =
            answer.headers.get_all(header::LINK).iter().map(|link| link.to_str().expect("text")).collect();
        assert_eq!(links.len(), 2, "{links:?}");
        assert!(links[0].starts_with("<turn:turn.example.org:3478?transport=udp>; rel=\"ice-server\"; "), "{links:?}");
        assert!(links[1].starts_with("<turns:turn.example.org:5349?transport=tcp>; "), "{links:?}");
        let part = |name: &str| {
            links[0].split("; ").find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
        };
        let username = part("username").expect("a user name");
        assert_eq!(part("credential"), Some(password(&"north".into(), username).as_str()));
        assert_eq!(part("credential-type"), Some("password"));
    }
    server.rooms.revoke(&"room".into(), &"ada".into(), i64::MAX);
    let removed = server.ask(Method::OPTIONS, "/whip/v1", &token, &[], "").await;
    assert_eq!((removed.status, removed.headers.get(header::LINK)), (StatusCode::NO_CONTENT, None));
    let stranger = server.ask(Method::OPTIONS, "/whip/v1", "", &[], "").await;
    assert_eq!((stranger.status, stranger.headers.get(header::LINK)), (StatusCode::NO_CONTENT, None));
}
