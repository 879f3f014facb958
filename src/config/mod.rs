//! The server's configuration: every module's own `Config` under one roof.
//!
//! Sources, later ones win: defaults, the YAML file, what `--dev` stands for, `VIVA_SECTION__KEY` variables, flags.
//! All mistakes are told at once. Nobody below this module imports it.

mod layers;
mod locate;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::layers::Layers;
pub use self::layers::{Origins, Problem};
use crate::{
    auth, http, interview, models, rooms, signalling::livekit as signalling, speech, store, tls, turn_server, webhooks,
    worker,
};

/// Read where no `--config` is given, if it is there.
pub const DEFAULT_FILE: &str = "config/server.yaml";

/// Everything that can be set; `config/server.yaml` explains each key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub rtc: worker::Config,
    pub turn_server: turn_server::Config,
    pub rooms: rooms::Config,
    pub signalling: signalling::Config,
    pub limits: http::guard::Config,
    pub auth: auth::Config,
    pub webhooks: webhooks::Config,
    pub speech: speech::Config,
    pub models: ModelsConfig,
    pub interview: interview::Config,
    pub store: store::Config,
}

/// The process and its HTTP surface.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port of HTTP, WebSocket and the page.
    pub http_listen: SocketAddr,
    /// Address and port of `/metrics` alone; absent: on `http_listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// Address by which clients reach this server, as `wss://viva.example.org`; empty: the one that the page came from.
    pub public_url: String,
    /// Proxies in front of this server, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<http::peer::Network>,
    /// Longest time in seconds from SIGTERM to the end.
    pub shutdown_grace_secs: u64,
    /// Certificate of `http_listen`.
    pub tls: tls::Config,
    pub log: LogConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            http_listen: SocketAddr::from(([0, 0, 0, 0], 7880)),
            metrics_listen: None,
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            shutdown_grace_secs: 10,
            tls: tls::Config::default(),
            log: LogConfig::default(),
        }
    }
}

impl ServerConfig {
    /// The host of `public_url`, without brackets.
    pub fn public_host(&self) -> Option<&str> {
        let (host, _) = self.public_authority()?;
        Some(host.trim_start_matches('[').trim_end_matches(']'))
    }

    /// The port of `public_url`.
    pub fn public_port(&self) -> Option<u16> {
        let usual = if self.public_url.starts_with("wss:") || self.public_url.starts_with("https:") { 443 } else { 80 };
        self.public_authority().map(|(_, port)| port.and_then(|port| port.parse().ok()).unwrap_or(usual))
    }

    fn public_authority(&self) -> Option<(&str, Option<&str>)> {
        let authority = self.public_url.split_once("://")?.1.split(['/', '?', '#']).next()?;
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon may be one within an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        (!host.is_empty()).then_some((host, port))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Levels by module, as `info` or `info,viva::rooms=debug`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info,str0m=error".into(), json: false }
    }
}

/// Where models are kept and fetched from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// Folder of models and voices.
    pub dir: PathBuf,
    /// Where they are fetched from.
    pub base_url: String,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self { dir: "models".into(), base_url: models::BASE_URL.into() }
    }
}

/// Where to read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must be there.
    pub file: Option<PathBuf>,
    /// Keys for trying things on one's own machine: a known API key, practice for everybody.
    pub dev: bool,
    /// `(name, value)` of the environment.
    pub env: Vec<(String, String)>,
    /// `(flag, key, value)` in order.
    pub flags: Vec<(String, String, String)>,
}

/// All that is wrong with a configuration, one line each.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a mistake:")?,
            n => writeln!(f, "the configuration has {n} mistakes:")?,
        }
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Longest time that a key in seconds may say: far above every sense, far below what a clock can add.
const SECS_MAX: u64 = 30 * 24 * 60 * 60;
/// Shortest life of credentials for relays, seconds.
const CREDENTIALS_TTL_SECS_MIN: u64 = 60;
/// Longest queue of a tap, packets: five minutes, in which an interview is lost anyway.
const TAP_PACKETS_MAX: usize = 15_000;
/// Most threads or requests of recognition at once.
const THREADS_MAX: usize = 1024;
/// Most allocations of the relay: each is a port, and there are some 28,000 for such.
const ALLOCATIONS_MAX: u64 = 20_000;
/// Highest bit rate of one allocation, kbit/s: a network card's.
const RELAY_KBPS_MAX: u64 = 10_000_000;
/// Most addresses of relays: each is one more attempt of every client.
const RELAY_URLS_MAX: usize = 8;
/// Most addresses of webhooks; each has its own queue.
const WEBHOOK_URLS_MAX: usize = 16;
/// Longest time of one attempt of a webhook, ms. A room's later events wait for it.
const WEBHOOK_TIMEOUT_MS_MAX: u64 = 60_000;
/// Most attempts at one webhook: with this, the pauses alone are seven minutes.
const WEBHOOK_ATTEMPTS_MAX: u32 = 20;
/// Most events that may wait for one address.
const WEBHOOK_QUEUE_MAX: usize = 100_000;

/// What `--dev` sets, unless the environment or a flag says otherwise.
const DEV: &[(&str, &str)] = &[("auth.keys", "{devkey: secret}"), ("interview.public_practice", "true")];

impl Config {
    /// Reads all sources, checks every value and the rules across keys.
    pub fn load(sources: &Sources) -> Result<(Self, Origins), ConfigErrors> {
        let mut layers = Layers::<Self>::new();
        let file = match &sources.file {
            Some(file) => Some(file.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        if let Some(file) = file {
            match std::fs::read_to_string(&file) {
                Ok(text) => layers.file(&file.display().to_string(), &text),
                Err(error) => return Err(ConfigErrors(vec![unreadable(&file, &error)])),
            }
        }
        if sources.dev {
            DEV.iter().for_each(|(key, value)| layers.set(key, value, "--dev"));
        }
        layers.env(sources.env.iter().cloned());
        for (flag, key, value) in &sources.flags {
            layers.set(key, value, flag);
        }
        let (config, origins) = layers.finish().map_err(ConfigErrors)?;
        let problems = config.broken_rules(&origins);
        if problems.is_empty() { Ok((config, origins)) } else { Err(ConfigErrors(problems)) }
    }

    /// The effective configuration as YAML, secrets hidden.
    pub fn to_yaml(&self) -> String {
        serde_yaml_ng::to_string(self).unwrap_or_default()
    }

    /// What types cannot say: ranges, and keys that must fit each other.
    fn broken_rules(&self, origins: &Origins) -> Vec<Problem> {
        let mut rules = Rules { origins, problems: Vec::new() };
        self.server_rules(&mut rules);
        self.media_rules(&mut rules);
        self.turn_server_rules(&mut rules);
        self.webhook_rules(&mut rules);
        self.limits(&mut rules);
        self.speech_rules(&mut rules);
        self.interview_rules(&mut rules);
        rules.problems
    }

    fn server_rules(&self, rules: &mut Rules<'_>) {
        let server = &self.server;
        rules.check(
            "server.metrics_listen",
            server.metrics_listen.is_none_or(|metrics| metrics.port() == 0 || metrics != server.http_listen),
            "is the same as server.http_listen: give it another port, or leave it out to have /metrics there",
        );
        rules.check(
            "server.public_url",
            server.public_url.is_empty() || is_url(&server.public_url, &["ws", "wss", "http", "https"]),
            "must begin with wss:// or ws://, as wss://viva.example.org",
        );
        rules.check("server.shutdown_grace_secs", server.shutdown_grace_secs <= 3600, "is at most 3600, an hour");
        let (cert, key) = (server.tls.is_on(), !server.tls.key_file.as_os_str().is_empty());
        rules.check(
            "server.tls.key_file",
            key || !cert,
            "is needed with server.tls.cert_file: the certificate's key, PEM",
        );
        rules.check(
            "server.tls.cert_file",
            cert || !key,
            "is needed with server.tls.key_file: the key's certificate, PEM",
        );
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&server.log.filter) {
            rules.broken("server.log.filter", format!("is no filter, as `info` or `info,viva::rooms=debug`: {error}"));
        }
        rules.check(
            "auth.keys",
            self.auth.keys.iter().all(|(key, secret)| !key.is_empty() && !secret.is_empty()),
            "has an empty key or secret: remove it or fill it in",
        );
    }

    fn media_rules(&self, rules: &mut Rules<'_>) {
        let rtc = &self.rtc;
        let same = rtc.tcp_port.is_some_and(|port| port != 0 && port == self.server.http_listen.port());
        rules.check(
            "rtc.tcp_port",
            !same,
            "is the port of server.http_listen: set it to null, and let rtc.tcp_on_http_port share that port",
        );
        rules.check("rtc.tcp_advertise_ports", !rtc.tcp_advertise_ports.contains(&0), "has the port 0, which is none");
    }

    fn turn_server_rules(&self, rules: &mut Rules<'_>) {
        let external = &self.turn_server.external;
        for (url, mistake) in external.urls.iter().filter_map(|url| Some((url, turn_server::url_mistake(url)?))) {
            rules.broken("turn_server.external.urls", format!("has the address `{url}`, which {mistake}"));
        }
        if external.urls.len() > RELAY_URLS_MAX {
            rules.broken("turn_server.external.urls", format!("has more than {RELAY_URLS_MAX} addresses"));
        }
        rules.check(
            "turn_server.external.secret",
            external.urls.is_empty() || !external.secret.is_empty(),
            "is needed with turn_server.external.urls: what the relay has as its shared secret (coturn: \
             `use-auth-secret` and `static-auth-secret`)",
        );
        let limit = |rules: &mut Rules<'_>, key, value: u64, max| {
            if !(1..=max).contains(&value) {
                rules.broken(key, format!("lies between 1 and {max}"));
            }
        };
        let own = &self.turn_server;
        limit(rules, "turn_server.allocations_max", own.allocations_max as u64, ALLOCATIONS_MAX);
        limit(rules, "turn_server.allocations_per_user_max", own.allocations_per_user_max as u64, ALLOCATIONS_MAX);
        limit(rules, "turn_server.bitrate_max_kbps", own.bitrate_max_kbps, RELAY_KBPS_MAX);
        rules.check(
            "turn_server.enabled",
            !own.enabled || own.udp_listen.is_some() || own.tcp_listen.is_some() || own.tls_listen.is_some(),
            "needs a port: set turn_server.udp_listen, tcp_listen or tls_listen",
        );
        if let Some(mistake) = turn_server::url_mistake(&format!("turn:{}", own.host)).filter(|_| !own.host.is_empty())
        {
            rules.broken("turn_server.host", format!("is no host name or address: as part of an address it {mistake}"));
        }
        rules.check(
            "turn_server.credentials_ttl_secs",
            self.turn_server.credentials_ttl_secs >= CREDENTIALS_TTL_SECS_MIN,
            "is at least 60: with less, clocks that differ a little make credentials useless",
        );
    }

    fn webhook_rules(&self, rules: &mut Rules<'_>) {
        let webhooks = &self.webhooks;
        for (number, mistake) in (1..).zip(&webhooks.urls).filter_map(|(n, url)| Some((n, url.mistake()?))) {
            // An address may be a secret: it is not repeated.
            rules.broken("webhooks.urls", format!("has a mistake in its address number {number}, which {mistake}"));
        }
        if webhooks.urls.len() > WEBHOOK_URLS_MAX {
            rules.broken("webhooks.urls", format!("has more than {WEBHOOK_URLS_MAX} addresses"));
        }
        rules.check(
            "webhooks.api_key",
            webhooks.api_key.is_empty() || self.auth.keys.contains_key(&webhooks.api_key),
            "is no key of auth.keys: name one of those, or leave it empty for the first",
        );
        if !(1..=WEBHOOK_TIMEOUT_MS_MAX).contains(&webhooks.timeout_ms) {
            rules.broken("webhooks.timeout_ms", format!("lies between 1 and {WEBHOOK_TIMEOUT_MS_MAX}"));
        }
        if !(1..=WEBHOOK_ATTEMPTS_MAX).contains(&webhooks.attempts_max) {
            rules.broken("webhooks.attempts_max", format!("lies between 1 and {WEBHOOK_ATTEMPTS_MAX}"));
        }
        if !(1..=WEBHOOK_QUEUE_MAX).contains(&webhooks.queue_max) {
            rules.broken("webhooks.queue_max", format!("lies between 1 and {WEBHOOK_QUEUE_MAX}"));
        }
    }

    /// Times are added to a clock, which ends; queues and pools must be made.
    fn limits(&self, rules: &mut Rules<'_>) {
        let (rooms, interview) = (&self.rooms, &self.interview);
        for (key, secs) in [
            ("turn_server.credentials_ttl_secs", self.turn_server.credentials_ttl_secs),
            ("rooms.empty_timeout_secs", rooms.empty_timeout_secs),
            ("rooms.departure_timeout_secs", rooms.departure_timeout_secs),
            ("rooms.resume_timeout_secs", rooms.resume_timeout_secs),
            ("interview.max_duration_secs", interview.max_duration_secs),
            ("interview.no_show_secs", interview.no_show_secs),
            ("interview.return_grace_secs", interview.return_grace_secs),
            ("interview.silence.nudge_after_secs", interview.silence.nudge_after_secs),
            ("interview.silence.move_on_after_secs", interview.silence.move_on_after_secs),
        ] {
            if secs > SECS_MAX {
                rules.broken(key, format!("is {secs}; it is at most {SECS_MAX}, thirty days"));
            }
        }
        let limits = &self.limits;
        for (key, burst, per_sec) in [
            ("rooms.joins_per_key_burst", rooms.joins_per_key_burst, rooms.joins_per_key_per_sec),
            ("limits.joins_per_address_burst", limits.joins_per_address_burst, limits.joins_per_address_per_sec),
            (
                "limits.requests_per_address_burst",
                limits.requests_per_address_burst,
                limits.requests_per_address_per_sec,
            ),
        ] {
            rules.check(key, burst > 0 || per_sec == 0, "is at least 1: with 0 nobody would ever come in");
        }
        if !(1..=TAP_PACKETS_MAX).contains(&rooms.tap_packets_max) {
            rules.broken("rooms.tap_packets_max", format!("lies between 1 and {TAP_PACKETS_MAX}"));
        }
        if self.speech.stt.threads > THREADS_MAX {
            rules.broken("speech.stt.threads", format!("is at most {THREADS_MAX}; 0 takes what fits this machine"));
        }
    }

    fn speech_rules(&self, rules: &mut Rules<'_>) {
        let stt = &self.speech.stt;
        rules.check(
            "speech.stt.url",
            stt.url.is_empty() || is_url(&stt.url, &["http", "https"]),
            "must begin with http:// or https://, as http://127.0.0.1:8000/v1",
        );
        rules.check(
            "speech.stt.url",
            stt.provider != speech::config::SttChoice::Openai || !stt.url.is_empty(),
            "is needed with the provider `openai`: the base address of a service, as http://127.0.0.1:8000/v1",
        );
        rules.check(
            "models.base_url",
            self.models.base_url.is_empty() || is_url(&self.models.base_url, &["http", "https"]),
            "must begin with http:// or https://",
        );
    }

    fn interview_rules(&self, rules: &mut Rules<'_>) {
        let interview = &self.interview;
        rules.check(
            "interview.endpointing.max_delay_ms",
            interview.endpointing.min_delay_ms <= interview.endpointing.max_delay_ms,
            "is less than interview.endpointing.min_delay_ms: a turn would end before it may",
        );
        let llm = &interview.llm;
        let chosen = llm.provider == interview::LlmKind::Openai;
        rules.check(
            "interview.llm.url",
            !chosen || is_url(&llm.url, &["http", "https"]),
            "is needed with the provider `openai`: the base address of a service, as http://127.0.0.1:11434/v1",
        );
        rules.check(
            "interview.llm.model",
            !chosen || !llm.model.is_empty(),
            "is needed with the provider `openai`: the model's name as the service knows it",
        );
        rules.check("interview.llm.temperature", (0.0..=2.0).contains(&llm.temperature), "lies between 0 and 2");
        rules.check("interview.max_duration_secs", interview.max_duration_secs > 0, "is at least 1");
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problem {
    let origin = file.display().to_string();
    Problem { origin, key: String::new(), message: format!("cannot be read: {error}; check the path after --config") }
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
}

/// Collects broken rules, each with where its key was set.
struct Rules<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    fn check(&mut self, key: &str, holds: bool, message: &str) {
        if !holds {
            self.broken(key, message.to_owned());
        }
    }

    fn broken(&mut self, key: &str, message: String) {
        let origin = self.origins.of(key).unwrap_or("default").to_owned();
        self.problems.push(Problem { origin, key: key.to_owned(), message });
    }
}

#[cfg(test)]
mod tests;
