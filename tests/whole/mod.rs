//! Everything of the server but its ports, put together as `server.rs` does it, with a voice that says nothing.

use std::{collections::HashMap, sync::Arc};

use axum::Router;
use tokio::sync::mpsc;
use viva::{
    agents::{Agents, NEWS_CAPACITY},
    auth::ApiKeys,
    http::{self, App, Options, Readiness},
    interview::{self, Interviews, Providers},
    rooms::{self, HookSender, Listeners, Rooms},
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
pub struct Parts {
    pub rooms: rooms::Config,
    pub keys: ApiKeys,
    pub public_practice: bool,
    pub hooks: Option<HookSender>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { rooms: rooms::Config::default(), keys: ApiKeys::dev(), public_practice: true, hooks: None }
    }
}

pub struct Whole {
    pub app: App,
    pub router: Router,
    /// Holds the database.
    pub folder: tempfile::TempDir,
}

pub async fn whole(parts: Parts) -> Whole {
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = Arc::new(Metrics::new());
    let keys = Arc::new(parts.keys);
    let rtc = worker::Config {
        workers: 1,
        udp_port_base: 0,
        advertise_ips: vec![[127, 0, 0, 1].into()],
        ..worker::Config::default()
    };
    let workers = worker::start(&rtc, metrics.clone()).expect("a free port");
    let (news, agents_news) = mpsc::channel(NEWS_CAPACITY);
    let listeners = Listeners { hooks: parts.hooks.clone(), news: Some(news) };
    let rooms = Rooms::with_listeners(parts.rooms, workers, listeners, metrics.clone());
    let url = format!("sqlite://{}", folder.path().join("viva.db").display());
    let store = Store::open(&store::Config { url }, metrics.clone()).await.expect("opens");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = interview::Config {
        plans_dir: root.join("config/plans"),
        personas_dir: root.join("config/personas"),
        ..interview::Config::default()
    };
    let providers = Providers { stt: None, tts: Arc::new(NoVoice), voices: HashMap::new(), llm: None };
    let hearing = ListenerConfig { vad_threshold: 0.5, min_speech_ms: 48, min_silence_ms: 300, language: "en".into() };
    let interviews =
        Interviews::new(config, rooms.clone(), store.clone(), providers, hearing, metrics.clone()).expect("loads");
    let agents =
        Agents::start(agents_news, rooms.clone(), interviews.clone(), keys.clone(), parts.hooks, metrics.clone());
    let options = Options {
        public_practice: parts.public_practice,
        public_url: String::new(),
        voice: "espeak-ng",
        metrics: true,
    };
    let app = App {
        agents,
        interviews,
        rooms: rooms.clone(),
        store,
        keys: keys.clone(),
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        options: Arc::new(options),
    };
    let config = signalling::livekit::Config::default();
    let signalling = Signalling { config, rooms, keys, ice_servers: IceServers::default(), metrics };
    Whole { router: http::app(app.clone(), signalling::router(signalling)), app, folder }
}
