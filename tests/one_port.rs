//! One port, by real sockets: whatever speaks there reaches who serves it, with every byte that it sent; TLS is taken
//! off; silence is not waited for.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::CancellationToken;
use viva::{
    front::{self, Front, Stream, handler},
    http::listener,
    tls::{self, Tls},
};

/// A busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(20);
const STUN: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

struct Port {
    address: SocketAddr,
    trusted: rustls::pki_types::CertificateDer<'static>,
    stop: CancellationToken,
    served: JoinHandle<()>,
    _files: TempDir,
}

/// Says who it is and gives back what it reads.
async fn echo(name: &str, mut stream: Stream) {
    stream.write_all(name.as_bytes()).await.expect("the client is there");
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

impl Port {
    async fn open(with_tls: bool) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let config = tls::Config { cert_file: files.path().join("cert.pem"), key_file: files.path().join("key.pem") };
        let key = KeyPair::generate().expect("a key");
        let cert =
            CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key).expect("a cert");
        std::fs::write(&config.cert_file, cert.pem()).expect("writable");
        std::fs::write(&config.key_file, key.serialize_pem()).expect("writable");
        let tls = with_tls.then(|| Tls::load(&config).expect("a good pair"));
        let router = Router::new().route("/page", get(|| async { "the page" })).route("/livez", get(|| async { "ok" }));
        let stop = CancellationToken::new();
        let front = Front {
            tls,
            http: Some(listener::http(router, with_tls, stop.clone())),
            ice: Some(handler(|stream| echo("ice:", stream))),
            turn: Some(handler(|stream| async move {
                let name = if stream.is_tls() { "turns:" } else { "turn:" };
                echo(name, stream).await;
            })),
            ..Front::default()
        };
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = port.local_addr().expect("bound");
        let served = tokio::spawn(front::serve(port, front, stop.clone()));
        Self { address, trusted: cert.der().clone(), stop, served, _files: files }
    }

    async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("listens")
    }

    async fn tls(&self) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.trusted.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, self.plain().await).await.expect("a handshake")
    }

    async fn close(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.served).await.expect("drains").expect("no panic");
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    answer
}

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: interviews.example:8443\r\nConnection: close\r\n{more}\r\n")
}

/// Sends in pieces, with a pause between, and reads as much back, behind the name of who answers.
async fn echoed(mut stream: impl AsyncRead + AsyncWrite + Unpin, pieces: &[&[u8]], name: &str) {
    for piece in pieces {
        stream.write_all(piece).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let expected = [name.as_bytes(), &pieces.concat()].concat();
    let mut answer = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").expect("all of it");
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn http_ice_and_turn_share_a_port_without_tls() {
    let port = Port::open(false).await;
    assert!(ask(port.plain().await, &request("GET", "/page", "")).await.ends_with("the page"));
    let framed = [&[0, 20][..], &STUN].concat();
    echoed(port.plain().await, &[&framed, b"more"], "ice:").await;
    let single: Vec<&[u8]> = framed.chunks(1).collect();
    echoed(port.plain().await, &single, "ice:").await;
    echoed(port.plain().await, &[&STUN[..3], &STUN[3..]], "turn:").await;
    // TLS without a certificate, and nonsense: closed at once.
    for bytes in [&[0x16, 3, 1, 0, 5][..], &[0xff; 30], &[0; 30]] {
        let mut stream = port.plain().await;
        stream.write_all(bytes).await.expect("sent");
        let read = timeout(PATIENCE, stream.read(&mut [0; 10])).await.expect("closed");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    port.close().await;
}

#[tokio::test]
async fn a_certificate_adds_https_and_turns_and_ice_stays_as_it_is() {
    let port = Port::open(true).await;
    assert!(ask(port.tls().await, &request("GET", "/page", "")).await.ends_with("the page"));
    echoed(port.tls().await, &[&STUN[..1], &STUN[1..]], "turns:").await;
    echoed(port.plain().await, &[&[0, 20], &STUN], "ice:").await;
    echoed(port.plain().await, &[&STUN], "turn:").await;
    port.close().await;
}

#[tokio::test]
async fn who_comes_without_tls_is_told_where_to_go() {
    let port = Port::open(true).await;
    let page = ask(port.plain().await, &request("GET", "/page?a=1", "")).await.to_lowercase();
    assert!(page.starts_with("http/1.1 308"), "{page}");
    assert!(page.contains("location: https://interviews.example:8443/page?a=1\r\n"), "{page}");
    // A token may be in these: not repeated elsewhere, and said so.
    for (method, more) in [("POST", "Content-Length: 0\r\n"), ("GET", "Upgrade: websocket\r\n")] {
        let answer = ask(port.plain().await, &request(method, "/rtc/v1", more)).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https:// or wss://"), "{answer}");
    }
    assert!(ask(port.plain().await, &request("GET", "/livez", "")).await.ends_with("ok"), "health checks go on");
    port.close().await;
}

#[tokio::test]
async fn silence_ends_within_seconds_before_and_inside_of_tls() {
    let port = Port::open(true).await;
    let began = Instant::now();
    let (mut silent, mut half, mut inside) = (port.plain().await, port.plain().await, port.tls().await);
    half.write_all(&[0x16, 3, 1]).await.expect("sent");
    let closed = async {
        let (mut a, mut b, mut c) = ([0; 64], [0; 64], [0; 64]);
        tokio::join!(silent.read(&mut a), half.read(&mut b), inside.read(&mut c))
    };
    let closed = timeout(PATIENCE, closed).await.expect("they are closed");
    println!("closed after {:?}: {closed:?}", began.elapsed());
    assert!(matches!(closed.0, Ok(0) | Err(_)));
    assert!(began.elapsed() >= Duration::from_secs(4), "a slow phone gets its time");
    port.close().await;
}
