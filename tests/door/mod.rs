//! The whole HTTP surface on a real socket, as the server puts it there, and raw clients of it.
#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../whole/mod.rs"]
mod whole;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use viva::{
    auth::{ApiKeys, Claims, Grants},
    front::{self, Front},
    http::{App, guard, guard::Guard, listener, peer::Network},
    rooms::{self, Rooms},
    telemetry::Metrics,
};
use whole::{Parts, Whole, whole};

/// Longest that anything here may take; a busy machine makes a test slow, not red.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
        let keys = match setup.keys.is_empty() {
            true => ApiKeys::dev(),
            false => {
                ApiKeys::new(setup.keys.iter().map(|(key, secret)| ((*key).to_owned(), (*secret).into())).collect())
            }
        };
        let Whole { app, router, folder } = whole(Parts { rooms: setup.rooms, keys, ..Parts::default() }).await;
        app.readiness.set_ready();
        let App { rooms, keys, metrics, .. } = app;
        let guard = Guard::new(&setup.limits, setup.trusted_proxies, metrics.clone());
        let router = guard.before(router);
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
