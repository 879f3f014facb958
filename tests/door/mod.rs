//! The whole HTTP surface on a real socket, as the server puts it there, and raw clients of it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use viva::{
    agents::{Agents, NEWS_CAPACITY},
    auth::{ApiKeys, Claims, Grants},
    front::{self, Front},
    http::{self, App, Options, Readiness, guard, guard::Guard, listener, peer::Network},
    interview::{self, Interviews, Providers},
    rooms::{self, Listeners, Rooms},
    signalling::{self, livekit::Signalling},
    speech::{
        ProviderError,
        listener::ListenerConfig,
        tts::{PcmChunk, TtsProvider},
    },
    store::{self, Store},
    telemetry::Metrics,
    turn_server::IceServers,
    worker,
};

/// Longest that anything here may take; a busy machine makes a test slow, not red.
pub const PATIENCE: Duration = Duration::from_secs(30);

struct NoVoice;

impl TtsProvider for NoVoice {
    fn name(&self) -> &'static str {
        "none"
    }

    fn speak(&self, _text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>> {
        mpsc::channel(1).1
    }
}

/// What differs from the defaults.
#[derive(Default)]
pub struct Setup {
    pub rooms: rooms::Config,
    pub limits: guard::Config,
    pub trusted_proxies: Vec<Network>,
    pub keys: Vec<(&'static str, &'static str)>,
}

pub struct Door {
    pub address: SocketAddr,
    pub rooms: Rooms,
    pub keys: Arc<ApiKeys>,
    pub metrics: Arc<Metrics>,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let is = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        self.head.lines().find(is)?.split_once(':').map(|(_, value)| value.trim())
    }
}

impl Door {
    pub async fn open(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Arc::new(Metrics::new());
        let keys = match setup.keys.is_empty() {
            true => ApiKeys::dev(),
            false => {
                ApiKeys::new(setup.keys.iter().map(|(key, secret)| ((*key).to_owned(), (*secret).into())).collect())
            }
        };
        let keys = Arc::new(keys);
        let rtc = worker::Config {
            workers: 1,
            udp_port_base: 0,
            advertise_ips: vec![[127, 0, 0, 1].into()],
            ..worker::Config::default()
        };
        let workers = worker::start(&rtc, metrics.clone()).expect("a free port");
        let (news, agents_news) = mpsc::channel(NEWS_CAPACITY);
        let listeners = Listeners { hooks: None, news: Some(news) };
        let rooms = Rooms::with_listeners(setup.rooms, workers, listeners, metrics.clone());
        let url = format!("sqlite://{}", folder.path().join("viva.db").display());
        let store = Store::open(&store::Config { url }, metrics.clone()).await.expect("opens");
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let config = interview::Config {
            plans_dir: root.join("config/plans"),
            personas_dir: root.join("config/personas"),
            ..interview::Config::default()
        };
        let providers = Providers { stt: None, tts: Arc::new(NoVoice), voices: HashMap::new(), llm: None };
        let hearing =
            ListenerConfig { vad_threshold: 0.5, min_speech_ms: 48, min_silence_ms: 300, language: "en".into() };
        let interviews =
            Interviews::new(config, rooms.clone(), store.clone(), providers, hearing, metrics.clone()).expect("loads");
        let readiness = Readiness::default();
        readiness.set_ready();
        let options = Options { public_practice: true, metrics: true, ..Options::default() };
        let agents = Agents::start(agents_news, rooms.clone(), interviews.clone(), keys.clone(), None, metrics.clone());
        let app = App {
            agents,
            interviews,
            rooms: rooms.clone(),
            store,
            keys: keys.clone(),
            metrics: metrics.clone(),
            readiness,
            options: Arc::new(options),
        };
        let signalling = signalling::router(Signalling {
            config: signalling::livekit::Config::default(),
            rooms: rooms.clone(),
            keys: keys.clone(),
            ice_servers: IceServers::default(),
            metrics: metrics.clone(),
        });
        let guard = Guard::new(&setup.limits, setup.trusted_proxies, metrics.clone());
        let router = guard.before(http::app(app, signalling));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let http = Some(listener::http(router, false, stop.clone()));
        let front = Front { crowd: guard.crowd(), http, ..Front::default() };
        tokio::spawn(front::serve(socket, front, stop.clone()));
        Self { address, rooms, keys, metrics, _stop: stop.drop_guard(), _folder: folder }
    }

    pub fn token(&self, identity: &str, room: &str) -> String {
        self.mint(identity, Grants::participant(&room.into()))
    }

    pub fn mint(&self, identity: &str, grants: Grants) -> String {
        self.keys.mint(Claims::new(&identity.into(), grants), Duration::from_secs(600)).expect("there is a key")
    }

    /// Sends these bytes and reads the answer to its end.
    pub async fn exchange(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("listens");
        // The server may answer and close before it has read all.
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let read = async {
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..count]);
                // The connection may stay open behind the answer.
                if is_whole(&bytes) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: viva\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        // Not said for an upgrade, which has a `Connection` of its own.
        if !headers.iter().any(|(name, _)| *name == "Connection") {
            request += "Connection: close\r\n";
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.exchange(request.as_bytes()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// The answer to a WebSocket handshake.
    pub async fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        all.extend(headers);
        self.ask("GET", path, &all, "").await
    }

    /// The answer to a join by a client with one peer connection.
    pub async fn join(&self, token: &str) -> Answer {
        self.upgrade(&format!("/rtc/v1?access_token={token}&join_request={}", join_request()), &[]).await
    }

    pub async fn twirp(&self, method: &str, token: &str, body: &str) -> Answer {
        let path = format!("/twirp/livekit.RoomService/{method}");
        let bearer = format!("Bearer {token}");
        self.ask("POST", &path, &[("Authorization", &bearer), ("Content-Type", "application/json")], body).await
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    text.starts_with("http/1.1 101") || length.is_some_and(|length: usize| bytes.len() >= head + 4 + length)
}

pub fn join_request() -> String {
    wrapped(0, proto::JoinRequest::default().encode_to_vec())
}

pub fn wrapped(compression: i32, join_request: Vec<u8>) -> String {
    URL_SAFE_NO_PAD.encode(proto::WrappedJoinRequest { compression, join_request }.encode_to_vec())
}
