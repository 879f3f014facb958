//! The server's TCP ports: opened first, served last.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::Router;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{certificate, fault};
use crate::{
    cli::Failure,
    config::Config,
    front::{self, Front, Handler, Stream},
    http::{self, guard::Guard},
    telemetry::Metrics,
    tls::Tls,
    worker::IceTcp,
};

pub(super) struct Ports {
    /// Where HTTP is.
    pub address: SocketAddr,
    http: TcpListener,
    tls: Option<Tls>,
    metrics: Option<TcpListener>,
    /// For media alone.
    media: Option<TcpListener>,
    /// Whether media is taken where HTTP is.
    media_on_http: bool,
}

impl Ports {
    pub async fn bind(config: &Config) -> Result<Self, Failure> {
        let tls = certificate::load(&config.server.tls)?;
        let http = bind(config.server.http_listen, "--listen", "server.http_listen").await?;
        let metrics = match config.server.metrics_listen {
            Some(at) => Some(bind(at, "--metrics-listen", "server.metrics_listen").await?),
            None => None,
        };
        let media = match config.rtc.tcp_port {
            Some(port) => Some(bind_media(port).await?),
            None => None,
        };
        let address = http.local_addr().map_err(fault)?;
        Ok(Self { address, http, tls, metrics, media, media_on_http: config.rtc.tcp_on_http_port })
    }

    /// Where clients may open TCP connections for media.
    pub fn media_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let own = self.media.iter().map(TcpListener::local_addr);
        own.chain(self.media_on_http.then_some(Ok(self.address))).collect()
    }

    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Lets clients in, until `stop` is cancelled and those that are there have ended.
    pub fn serve(
        self,
        router: Router,
        ice_tcp: IceTcp,
        turn: Option<Handler>,
        guard: &Arc<Guard>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Result<JoinSet<()>, Failure> {
        let mut listeners = JoinSet::new();
        if let Some(tls) = &self.tls {
            let hangup = signal(SignalKind::hangup()).map_err(fault)?;
            listeners.spawn(certificate::watch(tls.clone(), hangup, stop.clone()));
        }
        let ice = front::handler(move |stream| admit(stream, ice_tcp.clone()));
        let front = Front {
            crowd: guard.crowd(),
            http: Some(http::listener::http(guard.before(router), self.tls.is_some(), stop.clone())),
            ice: self.media_on_http.then(|| ice.clone()),
            tls: self.tls,
            turn,
        };
        listeners.spawn(front::serve(self.http, front, stop.clone()));
        if let Some(listener) = self.media {
            listeners.spawn(front::serve(
                listener,
                Front { crowd: guard.crowd(), ice: Some(ice), ..Front::default() },
                stop.clone(),
            ));
        }
        if let Some(listener) = self.metrics {
            listeners.spawn(http::listener::serve(listener, http::metrics_router(metrics.clone()), stop.clone()));
        }
        Ok(listeners)
    }
}

async fn bind(at: SocketAddr, flag: &str, key: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(at).await.map_err(|error| Failure::Fault(cannot_listen(at, flag, key, &error)))
}

/// On all addresses, IPv6 included where the machine has it.
async fn bind_media(port: u16) -> Result<TcpListener, Failure> {
    let error = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => return Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        Err(_) => match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        },
    };
    Err(Failure::Fault(match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "TCP port {port} for media is in use: stop the process that holds it (`ss -ltnp 'sport = :{port}'` names \
             it), or set rtc.tcp_port to another port, or to null for none"
        ),
        _ => format!("TCP port {port} for media could not be opened (rtc.tcp_port): {error}"),
    }))
}

async fn admit(stream: Stream, ice_tcp: IceTcp) {
    if let Some((stream, head, admission)) = stream.into_plain() {
        ice_tcp.admit(stream, head, Box::new(admission)).await;
    }
}

fn cannot_listen(at: SocketAddr, flag: &str, key: &str, error: &io::Error) -> String {
    let other = |port| SocketAddr::new(at.ip(), port);
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is in use: another Viva or another program listens there. Stop it, or choose another port with \
             {flag} {} ({key}).",
            at.port(),
            other(at.port().checked_add(1000).unwrap_or(7880)),
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission to listen on {at}: ports below 1024 are for root. Choose another with {flag} {} ({key}).",
            other(7880),
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}: correct {key}, or use 0.0.0.0.", at.ip())
        }
        _ => format!("cannot listen on {at} ({key}): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_proposed_as_it_can_be_typed() {
        let told = |at: &str, kind: io::ErrorKind| {
            cannot_listen(at.parse().unwrap(), "--listen", "server.http_listen", &kind.into())
        };
        assert!(told("0.0.0.0:7880", io::ErrorKind::AddrInUse).contains("--listen 0.0.0.0:8880 (server.http_listen)"));
        assert!(told("[::1]:65000", io::ErrorKind::AddrInUse).contains("--listen [::1]:7880 "));
        assert!(told("[::]:80", io::ErrorKind::PermissionDenied).contains("--listen [::]:7880 "));
    }
}
