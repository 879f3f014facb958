//! The relays that clients are told of: each must give an allocation, and must not lead into its own network.

use std::net::{Ipv4Addr, SocketAddr};

use livekit_protocol as proto;
use tokio::net::lookup_host;

use super::{
    Finding,
    connection::{bad_certificate, tcp, tls},
};
use crate::turn_server::{
    credentials::Credentials,
    probe::{Probe, ProbeError},
};

const CHECK: &str = "relay";

/// Whether any relay works.
pub async fn examine(servers: &[proto::IceServer], findings: &mut Vec<Finding>) -> bool {
    let mut any = false;
    for server in servers {
        let credentials = Credentials { username: server.username.clone(), password: server.credential.clone() };
        for url in &server.urls {
            let finding = match Url::parse(url) {
                Some(parsed) => probe(url, &parsed, credentials.clone()).await,
                None => Err(Finding::failure(
                    CHECK,
                    format!("`{url}` is no address of a relay"),
                    "correct turn_server.external.urls",
                )),
            };
            any |= finding.is_ok();
            findings.push(finding.unwrap_or_else(|finding| finding));
        }
    }
    if servers.is_empty() {
        findings.push(Finding::skipped(
            CHECK,
            "clients are told of none: those whose network lets neither UDP nor the media's TCP through stay out",
        ));
    }
    any
}

/// `turn:HOST:PORT?transport=udp` (RFC 7065).
struct Url {
    host: String,
    port: u16,
    tls: bool,
    udp: bool,
}

impl Url {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let tls = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return None,
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, if tls { 5349 } else { 3478 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let udp = !tls && query != "transport=tcp";
        Some(Self { host, port, tls, udp })
    }

    async fn connect(&self, credentials: Credentials) -> Result<Probe, Finding> {
        let Self { host, port, .. } = self;
        let lost = |error: std::io::Error| {
            Finding::failure(
                CHECK,
                format!(
                    "{} port {port} of {host} does not take connections ({error})",
                    if self.udp { "UDP" } else { "TCP" }
                ),
                format!(
                    "start the relay there, and open {} port {port} in the firewall",
                    if self.udp { "UDP" } else { "TCP" }
                ),
            )
        };
        if self.udp {
            let address: Option<SocketAddr> = lookup_host((host.as_str(), *port)).await.map_err(lost)?.next();
            let address = address.ok_or_else(|| lost(std::io::ErrorKind::NotFound.into()))?;
            return Probe::udp(address, credentials).await.map_err(|error| lost(std::io::Error::other(error)));
        }
        let stream = tcp(host, *port).await.map_err(lost)?;
        if !self.tls {
            return Ok(Probe::stream(stream, credentials));
        }
        let (stream, _) = tls(host, stream).await.map_err(|error| {
            let Finding { seen, advice, .. } = bad_certificate(host, &error);
            Finding::failure(CHECK, format!("TLS port {port} of {host}: {seen}"), advice)
        })?;
        Ok(Probe::stream(stream, credentials))
    }
}

async fn probe(name: &str, url: &Url, credentials: Credentials) -> Result<Finding, Finding> {
    let mut probe = url.connect(credentials).await?;
    probe.allocate().await.map_err(|error| no_allocation(name, url, &error))?;
    let open = probe.permit(Ipv4Addr::LOCALHOST.into()).await.is_ok();
    // What is not given back ends by itself.
    let _ = probe.release().await;
    if open {
        return Ok(Finding::warning(
            CHECK,
            format!("{name} works, but lets clients send to 127.0.0.1, that is into the relay's own machine"),
            "forbid it: no-loopback-peers and denied-peer-ip for private networks in coturn; Viva's own relay refuses \
             it unless this server is for this machine alone",
        ));
    }
    Ok(Finding::ok(CHECK, format!("{name} gives an allocation, and none to 127.0.0.1")))
}

fn no_allocation(name: &str, url: &Url, error: &ProbeError) -> Finding {
    let way = if url.udp { "UDP" } else { "TCP" };
    let (seen, advice) = match error {
        ProbeError::Silent => (
            format!("{name} does not answer"),
            format!("start the relay there, and open {way} port {} in the firewall", url.port),
        ),
        ProbeError::Io(error) => (
            format!("{name} does not answer ({error})"),
            format!("start the relay there, and open {way} port {} in the firewall", url.port),
        ),
        ProbeError::Refused(401) => (
            format!("{name} refuses the credentials that this server issues"),
            "turn_server.external.secret must be the relay's static-auth-secret, and both clocks right".to_owned(),
        ),
        ProbeError::Refused(486 | 508) => {
            (format!("{name} has no allocation left"), "raise its quota, or see who takes them".to_owned())
        }
        ProbeError::Refused(code) => {
            (format!("{name} refuses an allocation with {code}"), "see the relay's log".to_owned())
        }
        ProbeError::Malformed => (
            format!("something answers at {name}, but it is no relay"),
            "correct the address, or what listens there".to_owned(),
        ),
    };
    Finding::failure(CHECK, seen, advice)
}
