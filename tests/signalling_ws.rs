//! LiveKit's signalling over a real socket: what a client sees that knows nothing of us.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::{
    JoinRequest, SignalRequest, SignalResponse, WrappedJoinRequest, leave_request::Action, participant_info::State,
    signal_request::Message as Ask, signal_response::Message as Response,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message as Frame, client::IntoClientRequest, protocol::CloseFrame},
};
use viva::{
    auth::{ApiKeys, Claims, DEFAULT_TTL, Grants},
    rooms::{self, Rooms},
    signalling::livekit::{self, Signalling},
    telemetry::Metrics,
    turn_server::{IceServers, Relay, credentials::password},
    worker,
};

/// Longest that anything here may take; a busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: String,
    rooms: Rooms,
    keys: Arc<ApiKeys>,
    metrics: Arc<Metrics>,
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

async fn server(config: rooms::Config) -> Server {
    server_with(config, IceServers::default()).await
}

async fn server_with(config: rooms::Config, ice_servers: IceServers) -> Server {
    let metrics = Arc::new(Metrics::new());
    let media = worker::Config { workers: 1, udp_port_base: 0, ..worker::Config::default() };
    let workers = worker::start(&media, metrics.clone()).expect("media starts");
    let rooms = Rooms::new(config, workers, metrics.clone());
    let keys = Arc::new(ApiKeys::dev());
    let state = Signalling {
        config: Default::default(),
        rooms: rooms.clone(),
        keys: keys.clone(),
        ice_servers,
        metrics: metrics.clone(),
    };
    let app = livekit::router(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server { address, rooms, keys, metrics }
}

fn wrap(request: &JoinRequest) -> String {
    let wrapped = WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D")
}

fn claims(identity: &str) -> Claims {
    Claims::new(&identity.into(), Grants::participant(&"room".into()))
}

impl Server {
    fn token(&self, claims: Claims) -> String {
        self.keys.mint(claims, DEFAULT_TTL).expect("there is a key")
    }

    fn url(&self, identity: &str, request: &JoinRequest) -> String {
        let token = self.token(claims(identity));
        format!("ws://{}/rtc/v1?access_token={token}&join_request={}", self.address, wrap(request))
    }

    async fn connect(&self, url: &str) -> Client {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("let in");
        Client { socket }
    }

    async fn join(&self, identity: &str) -> (Client, proto::JoinResponse) {
        let mut client = self.connect(&self.url(identity, &JoinRequest::default())).await;
        let Response::Join(join) = client.next().await else { panic!("the first message is no join response") };
        (client, join)
    }

    /// The status, the text and the `Retry-After` with which the upgrade is refused.
    async fn refusal(&self, path: &str) -> (u16, String, Option<String>) {
        match tokio_tungstenite::connect_async(format!("ws://{}{path}", self.address)).await {
            Err(tungstenite::Error::Http(response)) => {
                let retry = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
                let text = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
                (response.status().as_u16(), text, retry)
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("was let in"),
        }
    }
}

impl Client {
    async fn frame(&mut self) -> Frame {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("in time").expect("open");
            match frame.expect("readable") {
                Frame::Ping(_) | Frame::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    async fn next(&mut self) -> Response {
        match self.frame().await {
            Frame::Binary(bytes) => {
                SignalResponse::decode(bytes).expect("a SignalResponse").message.expect("a message")
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next message that `pick` takes.
    async fn wait<T>(&mut self, pick: impl Fn(Response) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    async fn leave(&mut self) -> (proto::DisconnectReason, Action) {
        self.wait(|m| if let Response::Leave(leave) = m { Some((leave.reason(), leave.action())) } else { None }).await
    }

    async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            if let Frame::Close(frame) = self.frame().await {
                return frame;
            }
        }
    }

    async fn ask(&mut self, ask: Ask) {
        let request = SignalRequest { message: Some(ask) };
        self.socket.send(Frame::Binary(request.encode_to_vec().into())).await.expect("open");
    }
}

async fn get(address: &str, path: &str) -> (u16, String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://elsewhere\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_client_joins_pings_and_gets_a_token_to_come_back_with() {
    let server = server(rooms::Config::default()).await;
    let (mut ada, join) = server.join("ada").await;
    assert_eq!(join.participant.as_ref().unwrap().identity, "ada");
    assert_eq!(join.room.as_ref().unwrap().name, "room");
    let token = ada.wait(|m| if let Response::RefreshToken(token) = m { Some(token) } else { None }).await;
    assert_eq!(server.keys.verify(&token).unwrap().identity(), Some("ada".into()));
    ada.ask(Ask::PingReq(proto::Ping { timestamp: 42, rtt: 0 })).await;
    let pong = ada.wait(|m| if let Response::PongResp(pong) = m { Some(pong) } else { None }).await;
    assert_eq!(pong.last_ping_timestamp, 42);
    assert!(pong.timestamp > 1_600_000_000_000, "milliseconds");
    // A second one, with its token in the header as native clients send it.
    let bare = format!("ws://{}/rtc/v1?join_request={}", server.address, wrap(&JoinRequest::default()));
    let mut request = bare.into_client_request().unwrap();
    let bearer = format!("Bearer {}", server.token(claims("bob")));
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("let in");
    let mut bob = Client { socket };
    let Response::Join(join) = bob.next().await else { panic!() };
    assert_eq!(join.other_participants[0].identity, "ada");
    let seen = ada.wait(|m| if let Response::Update(u) = m { u.participants.into_iter().next() } else { None }).await;
    assert_eq!((seen.identity.as_str(), seen.state()), ("bob", State::Joined));
    // Who goes without having connected is gone at once.
    drop(bob);
    let seen = ada.wait(|m| if let Response::Update(u) = m { u.participants.into_iter().next() } else { None }).await;
    assert_eq!((seen.identity.as_str(), seen.state()), ("bob", State::Disconnected));
    assert_eq!(server.metrics.participants.with_label_values(&["standard"]).get(), 1);
}

#[tokio::test]
async fn trap_05_a_client_that_speaks_json_is_answered_in_json_with_wide_numbers_as_text() {
    let server = server(rooms::Config::default()).await;
    let (mut ada, _) = server.join("ada").await;
    ada.socket.send(Frame::Text(r#"{"ping":"5"}"#.into())).await.unwrap();
    let text = loop {
        if let Frame::Text(text) = ada.frame().await {
            break text;
        }
    };
    assert!(text.starts_with(r#"{"pong":""#), "{text}");
    ada.ask(Ask::Ping(6)).await;
    ada.wait(|m| matches!(m, Response::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn every_refusal_is_a_status_with_words_before_the_upgrade() {
    let server =
        server(rooms::Config { auto_create: false, max_participants_per_room: 1, ..rooms::Config::default() }).await;
    let request = wrap(&JoinRequest::default());
    let path = |token: &str| format!("/rtc/v1?access_token={token}&join_request={request}");
    let mut nameless = claims("ada");
    nameless.grants.room = String::new();
    let forged = {
        let keys = std::collections::BTreeMap::from([("devkey".to_owned(), "not the secret".into())]);
        ApiKeys::new(keys).mint(claims("ada"), DEFAULT_TTL).unwrap()
    };
    let good = server.token(claims("ada"));
    for (path, status, words) in [
        (format!("/rtc/v1?join_request={request}"), 401, "no access token"),
        (path("nonsense"), 401, "malformed"),
        (path(&forged), 401, "signature"),
        (path(&server.token(nameless)), 401, "roomJoin"),
        (path(&server.token(claims(""))), 400, "identity"),
        (path(&server.token(claims(&"x".repeat(300)))), 400, "identity"),
        (format!("/rtc/v1?access_token={good}"), 400, "join_request"),
        (format!("/rtc/v1?access_token={good}&join_request=!!"), 400, "base64url"),
        (path(&good), 404, "requested room does not exist"),
        (format!("/rtc?access_token={good}&protocol=12"), 400, "too old"),
        (format!("/rtc?access_token={good}&protocol=17&attributes=!!"), 400, "base64url"),
        (format!("/rtc?access_token={good}&protocol=13"), 404, "requested room does not exist"),
    ] {
        let (got, text, _) = server.refusal(&path).await;
        assert_eq!(got, status, "{path:.60}: {text}");
        assert!(text.contains(words), "{text}");
    }
    server.rooms.open(&"room".into()).unwrap();
    let (_ada, _) = server.join("ada").await;
    let (status, text, retry) = server.refusal(&path(&server.token(claims("bob")))).await;
    assert_eq!((status, retry.as_deref()), (503, Some("2")), "{text}");
    assert!(text.contains("full"));
    let joins = |result| server.metrics.participant_joins.with_label_values(&["livekit", result]).get();
    assert_eq!((joins("ok"), joins("unauthorized")), (1, 4));
}

#[tokio::test]
async fn the_probe_says_why_and_lets_every_origin_read_it() {
    let server = server(rooms::Config::default()).await;
    let token = server.token(claims("ada"));
    let (status, head, body) = get(&server.address, &format!("/rtc/v1/validate?access_token={token}")).await;
    assert_eq!((status, body.as_str()), (200, "success"));
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let (status, head, body) = get(&server.address, "/rtc/v1/validate?access_token=x").await;
    assert_eq!(status, 401);
    assert!(head.contains("access-control-allow-origin: *") && body.contains("malformed"), "{head} {body}");
    assert_eq!(get(&server.address, &format!("/rtc/validate?access_token={token}")).await.2, "success");
    for path in ["/rtc", "/rtc/v1"] {
        assert_eq!(get(&server.address, &format!("{path}?access_token={token}")).await.0, 404, "no WebSocket");
    }
}

#[tokio::test]
async fn whoever_sends_nonsense_is_closed_and_nobody_else() {
    let server = server(rooms::Config::default()).await;
    let (mut ada, _) = server.join("ada").await;
    let (mut eve, _) = server.join("eve").await;
    eve.socket.send(Frame::Binary(vec![0xff; 100].into())).await.unwrap();
    assert_eq!(eve.closed().await.map(|close| u16::from(close.code)), Some(1007));
    let (mut eve, _) = server.join("eve").await;
    eve.socket.send(Frame::Text("{".into())).await.unwrap();
    assert_eq!(eve.closed().await.map(|close| u16::from(close.code)), Some(1007));
    let (mut eve, _) = server.join("eve").await;
    // The server may cut the line while we still write.
    let _ = eve.socket.send(Frame::Binary(vec![0; 2 * 1024 * 1024].into())).await;
    ada.ask(Ask::Ping(1)).await;
    ada.wait(|m| matches!(m, Response::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn trap_08_a_second_tab_takes_the_place_of_the_first_which_is_told_before_its_socket_closes() {
    let server = server(rooms::Config::default()).await;
    let (mut first, _) = server.join("ada").await;
    let (_second, _) = server.join("ada").await;
    assert_eq!(first.leave().await, (proto::DisconnectReason::DuplicateIdentity, Action::Disconnect));
    assert_eq!(first.closed().await.map(|close| u16::from(close.code)), Some(1000), "said first, closed after");
}

#[tokio::test]
async fn a_resume_into_nothing_is_told_to_start_anew() {
    let server = server(rooms::Config::default()).await;
    let request = JoinRequest { reconnect: true, participant_sid: "PA_gone".into(), ..JoinRequest::default() };
    let start_anew = (proto::DisconnectReason::StateMismatch, Action::Reconnect);
    let mut nowhere = server.connect(&server.url("ada", &request)).await;
    assert_eq!(nowhere.leave().await, start_anew, "no room");
    nowhere.closed().await;
    let (_ada, _) = server.join("ada").await;
    let mut unknown = server.connect(&server.url("ada", &request)).await;
    assert_eq!(unknown.leave().await, start_anew, "no such participant");
    unknown.closed().await;
}

#[tokio::test]
async fn a_shutdown_is_said_and_written_before_it_happens() {
    let server = server(rooms::Config::default()).await;
    let (mut ada, _) = server.join("ada").await;
    let rooms = server.rooms.clone();
    let shutdown = tokio::spawn(async move { rooms.shutdown().await });
    assert_eq!(ada.leave().await, (proto::DisconnectReason::ServerShutdown, Action::Reconnect));
    ada.closed().await;
    drop(ada);
    tokio::time::timeout(PATIENCE, shutdown).await.expect("in time").unwrap();
    let token = server.token(claims("bob"));
    let path = format!("/rtc/v1?access_token={token}&join_request={}", wrap(&JoinRequest::default()));
    let (status, text, retry) = server.refusal(&path).await;
    assert_eq!((status, retry.as_deref()), (503, Some("2")), "{text}");
    assert_eq!(server.rooms.count(), 0);
}

#[tokio::test]
async fn an_announced_track_is_granted_at_once() {
    let server = server(rooms::Config::default()).await;
    let (mut ada, _) = server.join("ada").await;
    let request = proto::AddTrackRequest {
        cid: "mic".into(),
        source: proto::TrackSource::Microphone as i32,
        ..proto::AddTrackRequest::default()
    };
    ada.ask(Ask::AddTrack(request)).await;
    let published = ada.wait(|m| if let Response::TrackPublished(p) = m { Some(p) } else { None }).await;
    assert_eq!(published.cid, "mic");
    assert!(published.track.unwrap().sid.starts_with("TR_"));
}

#[tokio::test]
async fn clients_are_told_of_relays_with_new_credentials_each_time() {
    const HOUR: Duration = Duration::from_secs(3600);
    let urls = vec!["turn:turn.example.org:3478?transport=udp".to_owned()];
    let relays = vec![Relay { urls: urls.clone(), secret: "north".into() }];
    let server = server_with(rooms::Config::default(), IceServers::new(relays, HOUR, true)).await;
    let (_ada, join) = server.join("ada-of-ockham").await;
    let relays_only = |told: Option<proto::ClientConfiguration>| {
        told.is_some_and(|told| told.force_relay() == proto::ClientConfigSetting::Enabled)
    };
    assert!(relays_only(join.client_configuration));
    let [told] = join.ice_servers.as_slice() else { panic!("one relay, not {:?}", join.ice_servers.len()) };
    assert_eq!((&told.urls, &told.credential), (&urls, &password(&"north".into(), &told.username)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let left = told.username.split(':').next().and_then(|end| end.parse::<u64>().ok()).expect("an end") - now;
    assert!((3590..=3600).contains(&left), "good for {left} s");
    assert!(!told.username.contains("ada-of-ockham"), "nobody is named");

    let (_, other) = server.join("bob").await;
    assert_ne!(other.ice_servers[0].username, told.username);
}
