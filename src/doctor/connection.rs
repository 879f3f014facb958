//! The way to the server: name, port, certificate, and whether it is Viva that answers.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{CertificateError, ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use x509_cert::{Certificate, der::Decode};

use super::{Finding, PATIENCE, clock};
use crate::turn_server::probe::Stream;

/// A certificate that ends sooner is told.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// What is read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The server's address, taken apart.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, Finding> {
        let wrong = || {
            Finding::failure(
                "address",
                format!("`{url}` is no address of a server"),
                "write it as wss://viva.example.org",
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(wrong()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host, port, tls }) }
    }

    /// Host and port as they stand in a URL and in `Host`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// A connection, with TLS if the address says so.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, io::Error> {
        let stream = tcp(&self.host, self.port).await?;
        if self.tls { Ok(Box::new(tls(&self.host, stream).await?.0)) } else { Ok(Box::new(stream)) }
    }
}

/// The first address of the name that takes a connection.
pub async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// TLS with the roots that this machine trusts; and the end of the server's certificate.
pub async fn tls(
    host: &str,
    stream: TcpStream,
) -> io::Result<(tokio_rustls::client::TlsStream<TcpStream>, Option<SystemTime>)> {
    let mut roots = RootCertStore::empty();
    for root in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(root);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connected = timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let end = leaf
        .and_then(|leaf| Certificate::from_der(leaf).ok())
        .map(|certificate| certificate.tbs_certificate().validity().not_after.to_system_time());
    Ok((stream, end))
}

/// Whether one can go on from here.
pub async fn examine(target: &Target, findings: &mut Vec<Finding>) -> bool {
    let Target { host, port, .. } = target;
    let stream = match tcp(host, *port).await {
        Ok(stream) => stream,
        Err(error) => {
            findings.push(unreachable(host, *port, &error));
            return false;
        }
    };
    findings.push(Finding::ok("port", format!("TCP port {port} of {host} takes connections")));
    if target.tls {
        match tls(host, stream).await {
            Ok((_, end)) => findings.push(good_certificate(end, SystemTime::now())),
            Err(error) => {
                findings.push(bad_certificate(host, &error));
                return false;
            }
        }
    } else {
        // Whoever serves one client at a time is to serve the next one.
        drop(stream);
    }
    match get(target, "/livez").await {
        Ok((200, date, body)) if body.trim() == "ok" => {
            findings.push(Finding::ok("HTTP", "Viva answers"));
            findings.push(clock::compare(date.as_deref(), SystemTime::now()));
            true
        }
        Ok((status, date, _)) => {
            findings.push(Finding::failure(
                "HTTP",
                format!("something answers with status {status}, but it is not Viva"),
                "correct the address, or let the proxy in front pass all paths on to server.http_listen",
            ));
            findings.push(clock::compare(date.as_deref(), SystemTime::now()));
            false
        }
        Err(error) => {
            findings.push(Finding::failure(
                "HTTP",
                format!(
                    "the port is open, but what listens there speaks no {} ({error})",
                    if target.tls { "HTTPS" } else { "HTTP" }
                ),
                "check the port, and whether the address should begin with wss:// or with ws://",
            ));
            false
        }
    }
}

fn unreachable(host: &str, port: u16, error: &io::Error) -> Finding {
    let (seen, advice) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            format!("nothing listens on TCP port {port} of {host}"),
            "start the server, or correct the port (server.http_listen)".to_owned(),
        ),
        io::ErrorKind::TimedOut => (
            format!("TCP port {port} of {host} does not answer: a firewall drops what is sent there"),
            format!("open TCP port {port} in the firewall"),
        ),
        _ => (format!("{host} cannot be reached: {error}"), "check the name and its address in DNS".to_owned()),
    };
    Finding::failure("port", seen, advice)
}

fn good_certificate(end: Option<SystemTime>, now: SystemTime) -> Finding {
    const CHECK: &str = "certificate";
    let left = end.and_then(|end| end.duration_since(now).ok());
    let days = left.map(|left| left.as_secs() / 86_400);
    match (left, days) {
        (Some(left), Some(days)) if left < EXPIRES_SOON => {
            Finding::warning(CHECK, format!("the certificate ends in {days} days"), "renew it")
        }
        (_, Some(days)) => Finding::ok(CHECK, format!("the certificate is trusted, and good for {days} more days")),
        (_, None) => Finding::ok(CHECK, "the certificate is trusted"),
    }
}

/// What a failed handshake means.
pub fn bad_certificate(host: &str, error: &io::Error) -> Finding {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (seen, advice) = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("the certificate has expired: browsers refuse to connect".to_owned(), "renew the certificate")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet".to_owned(), "check this machine's clock and the certificate")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("the certificate is for other names than {host}"),
                "use the name that the certificate is for, or get one for this name",
            ),
            // Another authority of the same name is another authority.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "nobody whom this machine trusts has issued the certificate".to_owned(),
                "put the issuer's certificate behind the server's own in server.tls.cert_file; one that is self-made \
                 must be made known to each client (here: SSL_CERT_FILE)",
            ),
            other => (format!("the certificate cannot be used: {other}"), "get another certificate"),
        },
        _ if error.kind() == io::ErrorKind::TimedOut => {
            ("the port does not answer to TLS".to_owned(), "check that server.tls is set, or use ws://")
        }
        _ => {
            (format!("the port speaks no TLS ({error})"), "set server.tls, put a proxy with TLS in front, or use ws://")
        }
    };
    Finding::failure("certificate", seen, advice)
}

/// Status, `Date` and body.
async fn get(target: &Target, path: &str) -> io::Result<(u16, Option<String>, String)> {
    let mut stream = target.connect().await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: viva-doctor\r\nConnection: close\r\n\r\n",
        target.authority()
    );
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
        // Many end a TLS connection without saying so.
        if answer.is_empty() { read.map(|_| answer) } else { Ok(answer) }
    };
    let answer = timeout(PATIENCE, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let mut lines = head.lines();
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = first.and_then(|line| line.get(2..5)?.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let date = lines.filter_map(header).find(|(name, _)| name == "date").map(|(_, value)| value);
    Ok((status, date, body.to_owned()))
}
