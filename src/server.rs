//! Builds the server of its parts, runs it, and takes it down in order. The only file that knows all parts.
//!
//! Two tokio runtimes: one for HTTP, signalling and rooms, one for speech and interviews, so that a burst of one never
//! delays the other. Media has threads of its own, without a runtime. Decoding and voice activity, some 30 µs a packet,
//! run on the runtime of speech; what takes longer (whisper, Piper, espeak-ng) has a bounded number of threads or
//! processes beside it.

mod banner;
mod certificate;
mod ports;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{banner::Lines, ports::Ports};
use crate::{
    agents::{Agents, NEWS_CAPACITY},
    auth::ApiKeys,
    cli::Failure,
    config::Config,
    front::Crowd,
    http::{self, App, Options, Readiness, guard::Guard},
    interview::{self, Interviews, Library, Providers},
    rooms::{Listeners, Rooms},
    sfu::Event,
    signalling::{self, livekit::Signalling},
    speech::{self, listener::ListenerConfig, tts::TtsProvider},
    store::Store,
    telemetry::{self, Metrics},
    turn_server::{self, TurnServer},
    webhooks::Webhooks,
    worker::{self, WorkerHandle},
};

/// How long the last connections get after everything else is down, when the grace time is used up.
const LAST_CONNECTIONS: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT, then drains.
pub fn run(config: Config, dev: bool) -> Result<(), Failure> {
    telemetry::logging::init(&config.server.log.filter, config.server.log.json).map_err(Failure::Usage)?;
    let control = runtime("viva-control")?;
    let talk = runtime("viva-talk")?;
    let done = control.block_on(async {
        // From before the first port is open: whoever can reach the server can also stop it in good order.
        let signals = Signals::new()?;
        let server = Server::start(config, dev, &talk).await?;
        server.run(signals).await;
        Ok(())
    });
    // Neither runtime may hold the process back: everything that must be finished was waited for.
    talk.shutdown_background();
    control.shutdown_background();
    done
}

fn runtime(name: &str) -> Result<Runtime, Failure> {
    let built = Builder::new_multi_thread().thread_name(name).enable_all().build();
    built.map_err(|error| Failure::Fault(format!("cannot start threads: {error}")))
}

/// Everything that runs.
struct Server {
    config: Config,
    rooms: Rooms,
    interviews: Interviews,
    agents: Agents,
    /// Absent where nobody wants to be told.
    webhooks: Option<Webhooks>,
    /// Absent where there is no relay inside.
    turn_server: Option<TurnServer>,
    store: Store,
    readiness: Readiness,
    stop: CancellationToken,
    listeners: tokio::task::JoinSet<()>,
}

impl Server {
    async fn start(config: Config, dev: bool, talk: &Runtime) -> Result<Self, Failure> {
        need_keys(&config)?;
        let metrics = Arc::new(Metrics::new());
        telemetry::process::begin(&metrics);
        // Ports first: nothing is touched where another server runs already.
        let ports = Ports::bind(&config).await?;
        let tcp = ports.media_addresses().map_err(fault)?;
        let (workers, ice_tcp) = worker::start_with_tcp(&config.rtc, &tcp, metrics.clone()).map_err(fault)?;
        let stop = CancellationToken::new();
        let guard = Guard::new(&config.limits, config.server.trusted_proxies.clone(), metrics.clone());
        let turn_server = turn_server(&config, &ports, &workers, guard.crowd(), &metrics, &stop).await?;
        let store = Store::open(&config.store, metrics.clone()).await.map_err(fault)?;
        let (providers, lines) = providers(&config, talk, &metrics)?;
        let voice = if providers.tts.name().starts_with("piper") { "piper" } else { "espeak-ng" };
        let keys = Arc::new(ApiKeys::new(config.auth.keys.clone()));
        let webhooks = webhooks(&config, &keys, &metrics)?;
        let (news, agents_news) = mpsc::channel(NEWS_CAPACITY);
        let hooks = webhooks.as_ref().map(Webhooks::events);
        let listeners = Listeners { hooks: hooks.clone(), news: Some(news) };
        let rooms = Rooms::with_listeners(config.rooms.clone(), workers, listeners, metrics.clone());
        let interviews = {
            // Whatever the interviewer spawns runs apart from HTTP and rooms.
            let _talk = talk.enter();
            Interviews::new(
                config.interview.clone(),
                rooms.clone(),
                store.clone(),
                providers,
                ListenerConfig::from(&config.speech),
                metrics.clone(),
            )
            .map_err(Failure::from)?
        };
        let agents =
            Agents::start(agents_news, rooms.clone(), interviews.clone(), keys.clone(), hooks, metrics.clone());
        let app = App {
            agents: agents.clone(),
            interviews: interviews.clone(),
            rooms: rooms.clone(),
            store: store.clone(),
            keys: keys.clone(),
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            options: Arc::new(Options {
                public_practice: config.interview.public_practice,
                public_url: config.server.public_url.clone(),
                voice,
                metrics: config.server.metrics_listen.is_none(),
            }),
        };
        let readiness = app.readiness.clone();
        let ice_servers = config.turn_server.ice_servers(turn_server.as_ref().map(TurnServer::relay));
        let doors = Signalling {
            config: config.signalling.clone(),
            rooms: rooms.clone(),
            keys,
            ice_servers,
            metrics: metrics.clone(),
        };
        let router = http::app(app, signalling::router(doors));
        // Before anybody is let in: whoever comes back must find the interview that is taken up, not a new room.
        take_up(&interviews).await?;
        let address = ports.address;
        let turn = turn_server.as_ref().map(TurnServer::handler);
        let listeners = ports.serve(router, ice_tcp, turn, &guard, &metrics, &stop)?;
        readiness.set_ready();
        banner::print(&config, dev, address, &lines);
        Ok(Self { config, rooms, interviews, agents, webhooks, turn_server, store, readiness, stop, listeners })
    }

    /// Waits for the signal, then drains: nothing new is let in, the last words are stored, clients are told to come
    /// back, webhooks are told of it, and what is left has the grace time to end. A second signal ends the waiting.
    async fn run(mut self, mut signals: Signals) {
        let name = signals.recv().await;
        let grace = Duration::from_secs(self.config.server.shutdown_grace_secs);
        tracing::info!(signal = name, grace_secs = grace.as_secs(), "shutting down");
        self.readiness.set_draining();
        let drained = timeout(grace, async {
            self.interviews.shutdown().await;
            self.rooms.shutdown().await;
            self.agents.shutdown().await;
            self.stop.cancel();
            let listeners = async {
                while self.listeners.join_next().await.is_some() {}
                if let Some(turn_server) = &mut self.turn_server {
                    turn_server.stopped().await;
                }
            };
            // What rooms had to tell is on its way when they are closed.
            tokio::join!(listeners, deliver(&mut self.webhooks));
        });
        tokio::select! {
            done = drained => if done.is_err() {
                tracing::warn!("the grace time is over; closing what is left");
            },
            name = signals.recv() => tracing::warn!(signal = name, "not waiting any longer"),
        }
        self.stop.cancel();
        let last = async { tokio::join!(self.store.close(), deliver(&mut self.webhooks)) };
        let _ = timeout(LAST_CONNECTIONS, last).await;
        let untold = self.webhooks.as_ref().map_or(0, Webhooks::waiting);
        if untold > 0 {
            tracing::warn!(untold, "the server stops before these webhooks were delivered");
        }
        tracing::info!("stopped");
    }
}

/// Without a key nobody can be let in.
fn need_keys(config: &Config) -> Result<(), Failure> {
    if !config.auth.keys.is_empty() {
        return Ok(());
    }
    let told =
        "there is no API key: set auth.keys (a key and its secret), or add --dev to try things on your own machine";
    Err(Failure::Usage(told.into()))
}

/// The relay inside, where there is one.
async fn turn_server(
    config: &Config,
    ports: &Ports,
    workers: &[(WorkerHandle, mpsc::Receiver<Event>)],
    crowd: Crowd,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<TurnServer>, Failure> {
    if !config.turn_server.enabled {
        return Ok(None);
    }
    let inside = |public| config.rtc.advertise_ips.iter().find(|ip| ip.public == public)?.local;
    let addresses = workers.iter().flat_map(|(worker, _)| worker.advertised());
    let media: Vec<turn_server::Media> = addresses.map(|address| (*address, inside(address.ip()))).collect();
    let public = turn_server::Public {
        host: config.server.public_host().unwrap_or_default().to_owned(),
        // A TURN client with TLS is at home on the port of https, too.
        https: config.server.public_port().unwrap_or(ports.address.port()),
        tls: ports.tls(),
    };
    let started = TurnServer::start(&config.turn_server, &media, public, crowd, metrics.clone(), stop.clone());
    started.await.map(Some).map_err(fault)
}

/// What tells the integrator's servers, where there are any.
fn webhooks(config: &Config, keys: &Arc<ApiKeys>, metrics: &Arc<Metrics>) -> Result<Option<Webhooks>, Failure> {
    if config.webhooks.urls.is_empty() {
        return Ok(None);
    }
    Webhooks::start(&config.webhooks, keys.clone(), metrics.clone()).map(Some).map_err(Failure::Fault)
}

/// Goes on with the interviews that the last stop cut short.
async fn take_up(interviews: &Interviews) -> Result<(), Failure> {
    let recovered = interviews.recover().await.map_err(fault)?;
    if recovered > 0 {
        tracing::info!(interviews = recovered, "taking up interviews that the last stop cut short");
    }
    Ok(())
}

async fn deliver(webhooks: &mut Option<Webhooks>) {
    if let Some(webhooks) = webhooks {
        webhooks.shutdown().await;
    }
}

/// What hears, speaks and thinks, and how to say so.
fn providers(config: &Config, talk: &Runtime, metrics: &Arc<Metrics>) -> Result<(Providers, Lines), Failure> {
    let _talk = talk.enter();
    let setup = |error: speech::config::SetupError| Failure::Fault(error.to_string());
    let stt = speech::config::stt_from_config(&config.speech, &config.models.dir).map_err(setup)?;
    let tts = speech::config::tts_from_config(&config.speech, &config.models.dir, metrics).map_err(setup)?;
    let llm = interview::llm::from_config(&config.interview.llm, metrics).map_err(Failure::Fault)?;
    let thinks = match &llm {
        Some(llm) => format!("{}, model {}", llm.name(), config.interview.llm.model),
        None => "scripted interviewer".into(),
    };
    let lines = Lines { hears: stt.line, speaks: tts.line, thinks };
    let voices = voices(config, metrics, &*tts.provider)?;
    Ok((Providers { stt: stt.provider, tts: tts.provider, voices, llm }, lines))
}

/// The voices that personas ask for, by name.
fn voices(
    config: &Config,
    metrics: &Arc<Metrics>,
    server: &dyn TtsProvider,
) -> Result<HashMap<String, Arc<dyn TtsProvider>>, Failure> {
    let library = Library::load(&config.interview.plans_dir, &config.interview.personas_dir).map_err(Failure::from)?;
    let mut voices = HashMap::new();
    for persona in library.personas().iter().filter(|persona| !persona.voice.is_empty()) {
        match speech::config::named_voice(&config.speech, &config.models.dir, metrics, &persona.voice, server) {
            Some(voice) => _ = voices.insert(persona.voice.clone(), voice),
            None => {
                tracing::info!(persona = %persona.id, "the voice of this persona is not here; the server's is used")
            }
        }
    }
    Ok(voices)
}

/// What asks the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(fault)?,
            interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
        })
    }

    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn fault(error: impl std::fmt::Display) -> Failure {
    Failure::Fault(error.to_string())
}
