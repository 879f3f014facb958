//! TURN (RFC 8656): the way in for clients whose network lets no media through.
//!
//! Tells clients of relays, with credentials that end: of a coturn elsewhere, and of [`TurnServer`], the relay inside this
//! server, which is off by default. It reaches this server's own media ports and nothing else, so that it is no way into
//! anybody's network. It is not the place for media: `sfu` does not know whether a datagram was relayed.

mod client;
pub mod credentials;
mod framing;
mod gate;
mod ice_servers;
mod listeners;
mod peers;
pub mod probe;
mod quotas;
mod rate;
mod session;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::ice_servers::{IceServer, IceServers, Relay};
pub use self::peers::Media;
pub(crate) use self::session::{Now as RelayNow, fuzz};
use self::{client::Context, peers::Peers, quotas::Quotas, session::Policy};
use crate::{
    auth::Secret,
    front::{self, Crowd, Front, Handler},
    telemetry::Metrics,
    tls::Tls,
};

/// Random bytes of the secret that the relay inside shares with nobody but this process.
const SECRET_BYTES: usize = 32;

/// Relays, and what clients are told of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether there is a relay inside this server.
    pub enabled: bool,
    /// Address and port for clients with UDP.
    pub udp_listen: Option<SocketAddr>,
    /// Address and port for clients with TCP.
    pub tcp_listen: Option<SocketAddr>,
    /// Address and port for clients with TLS, where there is a certificate.
    pub tls_listen: Option<SocketAddr>,
    /// Name or address by which clients reach those ports; empty: the host of `server.public_url`, else the addresses
    /// that media is sent to.
    pub host: String,
    /// Allocations in all.
    pub allocations_max: usize,
    /// Allocations with the same credentials.
    pub allocations_per_user_max: usize,
    /// Of one allocation, in each direction.
    pub bitrate_max_kbps: u64,
    /// For how long credentials are good, seconds. A relay asks for them again every few minutes.
    pub credentials_ttl_secs: u64,
    /// Whether clients are told to use relays only.
    pub force_relay: bool,
    pub external: ExternalConfig,
}

impl Default for Config {
    fn default() -> Self {
        let all = |port| Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        Self {
            enabled: false,
            udp_listen: all(3478),
            tcp_listen: all(3478),
            tls_listen: all(5349),
            host: String::new(),
            allocations_max: 1000,
            // A browser asks for one by each address that it is told of, from each of its networks, for each of its
            // connections.
            allocations_per_user_max: 16,
            // Several pictures and a shared screen.
            bitrate_max_kbps: 20_000,
            // A long day of interviews: credentials that end in a call end the call.
            credentials_ttl_secs: 12 * 60 * 60,
            force_relay: false,
            external: ExternalConfig::default(),
        }
    }
}

/// A relay elsewhere that takes credentials by shared secret, as coturn with `use-auth-secret`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    /// As `turn:turn.example.org:3478?transport=udp`.
    pub urls: Vec<String>,
    /// coturn's `static-auth-secret`.
    pub secret: Secret,
}

impl Config {
    /// What clients are told, with `own`, the relay inside this server.
    pub fn ice_servers(&self, own: Option<Relay>) -> IceServers {
        let external = Relay { urls: self.external.urls.clone(), secret: self.external.secret.clone() };
        let relays = own.into_iter().chain([external]).collect();
        IceServers::new(relays, Duration::from_secs(self.credentials_ttl_secs), self.force_relay)
    }
}

/// Why the relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "port {port} of the relay ({key}) is in use, perhaps by another TURN server: stop that, choose another port, or \
         set turn_server.enabled to false"
    )]
    PortInUse { key: &'static str, port: u16 },
    #[error("cannot listen on {at} ({key}): {source}")]
    Listen { key: &'static str, at: SocketAddr, source: io::Error },
    #[error("the addresses of this machine could not be read: {0}")]
    Interfaces(io::Error),
}

/// How clients reach this server, apart from the relay.
#[derive(Clone, Default)]
pub struct Public {
    /// What `server.public_url` names, or nothing.
    pub host: String,
    /// The port of https, if there is a certificate.
    pub https: u16,
    pub tls: Option<Tls>,
}

/// The relay inside this server.
pub struct TurnServer {
    relay: Relay,
    handler: Handler,
    tasks: JoinSet<()>,
}

impl TurnServer {
    /// `media`: where clients send media to; `crowd`: how many clients one source may have at the relay's ports. Must be called inside a tokio runtime; stops when `stop` is
    /// cancelled.
    pub async fn start(
        config: &Config,
        media: &[Media],
        public: Public,
        crowd: Crowd,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let own: Vec<IpAddr> =
            if_addrs::get_if_addrs().map_err(StartError::Interfaces)?.iter().map(|interface| interface.ip()).collect();
        let secret = rand::random::<[u8; SECRET_BYTES]>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let policy = Arc::new(Policy {
            secret: Secret::new(secret),
            peers: Peers::new(media.iter().copied(), |ip| own.contains(&ip)),
            quotas: Quotas::new(config.allocations_per_user_max, config.allocations_max),
            bytes_per_sec_max: config.bitrate_max_kbps * 1000 / 8,
        });
        let context = Context { policy: policy.clone(), metrics, stop: stop.clone(), transport: "udp" };
        let handler = listeners::handler(context.clone());
        let (mut urls, mut tasks) = (Vec::new(), JoinSet::new());
        let mut tell = |scheme, at: Option<SocketAddr>, port, transport| {
            let hosts = hosts([&config.host, &public.host], at, &policy.peers);
            urls.extend(hosts.iter().map(|host| format!("{scheme}:{host}:{port}?transport={transport}")));
        };
        if let Some(at) = config.udp_listen {
            let key = "turn_server.udp_listen";
            let socket = listeners::bind(at, UdpSocket::bind).await.map_err(|error| cannot(key, at, error))?;
            tell("turn", Some(at), socket.local_addr().map_err(|error| cannot(key, at, error))?.port(), "udp");
            tasks.spawn(listeners::datagrams(socket, context, crowd.clone(), config.allocations_max));
        }
        let with_tls = config.tls_listen.filter(|_| public.tls.is_some());
        for (key, scheme, at, tls) in [
            ("turn_server.tcp_listen", "turn", config.tcp_listen, None),
            ("turn_server.tls_listen", "turns", with_tls, public.tls.clone()),
        ] {
            let Some(at) = at else { continue };
            let listener = listeners::bind(at, TcpListener::bind).await.map_err(|error| cannot(key, at, error))?;
            tell(scheme, Some(at), listener.local_addr().map_err(|error| cannot(key, at, error))?.port(), "tcp");
            let front = Front { crowd: crowd.clone(), tls, turn: Some(handler.clone()), ..Front::default() };
            tasks.spawn(front::serve(listener, front, stop.clone()));
        }
        if public.tls.is_some() {
            tell("turns", None, public.https, "tcp");
        }
        tracing::info!(addresses = urls.len(), "the relay listens");
        Ok(Self { relay: Relay { urls, secret: policy.secret.clone() }, handler, tasks })
    }

    /// What clients are told of it.
    pub fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Serves TURN on a port that is for something else, too.
    pub fn handler(&self) -> Handler {
        self.handler.clone()
    }

    /// Until its ports are closed.
    pub async fn stopped(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// How clients reach a port: by name if there is one, since a certificate names that; else by the address that it is
/// bound to, else by those of media.
fn hosts(named: [&String; 2], at: Option<SocketAddr>, peers: &Peers) -> Vec<String> {
    if let Some(host) = named.into_iter().find(|host| !host.is_empty()) {
        return vec![if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.clone() }];
    }
    let bound = at.map(|at| at.ip()).filter(|ip| !ip.is_unspecified());
    let ips = match bound {
        Some(ip) => vec![ip],
        None => [false, true].into_iter().filter_map(|ipv6| peers.address(ipv6)).collect(),
    };
    ips.iter().map(|ip| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }).collect()
}

fn cannot(key: &'static str, at: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { key, port: at.port() },
        _ => StartError::Listen { key, at, source },
    }
}

/// What is wrong with the address of a relay, if anything.
pub fn url_mistake(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Some("must begin with turn: or turns:, as turn:turn.example.org:3478?transport=udp");
    };
    if !matches!(scheme, "turn" | "turns") {
        return Some("must begin with turn: or turns:, as turn:turn.example.org:3478?transport=udp");
    }
    let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The text ends up in a header of HTTP.
    if host.is_empty() || host.starts_with('/') || !url.bytes().all(|c| c.is_ascii_graphic() && !b"<>\"".contains(&c)) {
        return Some("needs a host behind turn:, without slashes, as turn:turn.example.org:3478");
    }
    if !matches!(query, "" | "transport=udp" | "transport=tcp") {
        return Some("may end in ?transport=udp or ?transport=tcp, and in nothing else");
    }
    None
}
