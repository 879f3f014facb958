//! `viva doctor` as people run it: against a healthy server, and against each thing broken on purpose.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::ffi::OsStrExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

/// A busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viva"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"VIVA_")) {
        command.env_remove(name);
    }
    command
}

/// The exit code, and what was printed.
fn doctor(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut all = vec!["doctor"];
    all.extend(args);
    let output = command(&all).envs(env.iter().copied()).output().expect("starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn token(secret: &str) -> String {
    let args = ["token", "--api-key", "devkey", "--api-secret", secret, "--identity", "doc", "--room", "r"];
    let output = command(&args).output().expect("starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The line about this check.
fn line<'a>(text: &'a str, verdict: &str, words: &str) -> &'a str {
    let found = text.lines().find(|line| line.trim_start().starts_with(verdict) && line.contains(words));
    found.unwrap_or_else(|| panic!("no `{verdict}` with `{words}` in:\n{text}"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

struct Viva {
    process: Child,
    args: Vec<String>,
    url: String,
    _folder: tempfile::TempDir,
}

impl Viva {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, udp) = (free_port(), free_udp_port());
        let mut args: Vec<String> = vec![
            "--dev".into(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--udp-port-base={udp}"),
            format!("--models-dir={}", folder.path().display()),
            "--set=rtc.workers=1".into(),
            "--set=rtc.tcp_port=0".into(),
            format!("--set=store.url=sqlite://{}", folder.path().join("viva.db").display()),
            "--set=speech.tts.provider=espeak".into(),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        if !more.iter().any(|arg| arg.starts_with("--advertise-ip")) {
            args.push("--advertise-ip=127.0.0.1".into());
        }
        let mut serve = vec!["serve"];
        serve.extend(args.iter().map(String::as_str));
        let process = command(&serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let viva = Self { process, args, url: format!("ws://127.0.0.1:{port}"), _folder: folder };
        let begun = Instant::now();
        while !ready(port) {
            assert!(begun.elapsed() < PATIENCE, "it does not get ready");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        viva
    }

    /// From where the server is, with its configuration.
    fn doctor_here(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        args.extend(more);
        doctor(&args, &[])
    }
}

impl Drop for Viva {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Something that answers each request with the same text.
fn answering(head: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
    });
    format!("http://127.0.0.1:{port}")
}

#[test]
fn a_healthy_server_is_said_to_be_well() {
    let (udp, tcp) = (free_udp_port(), free_port());
    let viva = Viva::start(&[
        "--set=turn_server.enabled=true",
        &format!("--set=turn_server.udp_listen=127.0.0.1:{udp}"),
        &format!("--set=turn_server.tcp_listen=127.0.0.1:{tcp}"),
    ]);
    let (code, text) = viva.doctor_here(&[]);
    assert_eq!(code, Some(0), "{text}");
    for words in ["the configuration is valid", "Viva answers", "a client joins a room", "can be written"] {
        line(&text, "ok", words);
    }
    line(&text, "ok", "media UDP");
    for at in [format!("turn:127.0.0.1:{udp}?transport=udp"), format!("turn:127.0.0.1:{tcp}?transport=tcp")] {
        assert!(text.contains(&format!("{at} works")), "the relay of a server for this machine alone: {text}");
    }
    line(&text, "warning", "the secret of the API key `devkey` is short");
    assert!(!text.contains("\x1b["), "no colours where nobody looks");

    let (code, json) = doctor(&["--dev", "--url", &viva.url, "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, report["ok"].as_bool(), report["url"].as_str()), (Some(0), Some(true), Some(viva.url.as_str())));
    assert!(report["findings"].as_array().is_some_and(|all| all.len() >= 6), "{json}");
    assert!(!json.contains("the configuration"), "from elsewhere, this machine is not the server's: {json}");

    let wrong = token("another secret");
    let (code, text) = doctor(&["--url", &viva.url, "--token", &wrong], &[]);
    assert_eq!(code, Some(1));
    assert!(line(&text, "failure", "refused with status 401").contains("signature"), "{text}");
    assert!(!text.contains(&wrong), "no token is printed");
    let (code, text) = doctor(&["--url", &viva.url], &[]);
    line(&text, "skipped", "joining needs a token");
    assert_eq!(code, Some(0));
}

#[test]
fn a_server_that_is_not_there_or_is_another_is_named() {
    let (code, text) = doctor(&["--url", &format!("ws://127.0.0.1:{}", free_port())], &[]);
    assert_eq!(code, Some(1));
    line(&text, "failure", "nothing listens on TCP port");
    line(&text, "skipped", "the server could not be reached");

    let (code, text) = doctor(&["--url", &answering("HTTP/1.1 404 Not Found\r\n", "no")], &[]);
    assert_eq!(code, Some(1));
    line(&text, "failure", "something answers with status 404, but it is not Viva");

    let tls = answering("HTTP/1.1 200 OK\r\n", "ok").replace("http:", "https:");
    line(&doctor(&["--url", &tls], &[]).1, "failure", "the port speaks no TLS");
    line(&doctor(&["--url", "viva.example.org"], &[]).1, "failure", "is no address of a server");
}

#[test]
fn a_clock_that_is_wrong_is_told_with_what_it_breaks() {
    let late = answering("HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\n", "ok");
    let (code, text) = doctor(&["--url", &late], &[]);
    assert_eq!(code, Some(1));
    assert!(line(&text, "failure", "clock").contains("behind this machine's: tokens"), "{text}");
    assert!(text.contains("NTP"));
}

#[test]
fn media_that_leads_nowhere_is_told() {
    // 203.0.113.0/24 is for documentation: nobody answers there.
    let viva = Viva::start(&["--advertise-ip=203.0.113.9"]);
    let (code, text) = viva.doctor_here(&[]);
    assert_eq!(code, Some(1), "{text}");
    line(&text, "failure", "no answer from 203.0.113.9:");
    line(&text, "failure", "nothing leads to this server's media from here");
    line(&text, "ok", "203.0.113.9 is not on this machine");
    assert!(text.contains("rtc.advertise_ips"));
}

#[test]
fn relays_that_are_dead_or_disagree_are_told() {
    let port = free_port();
    let url = format!("--set=turn_server.external.urls=turn:127.0.0.1:{port}?transport=tcp");
    let secret = "--set=turn_server.external.secret=the wrong one";
    let dead = Viva::start(&[&url, secret]);
    let (code, text) = dead.doctor_here(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(line(&text, "failure", "relay").contains("does not take connections"), "{text}");
    // Somebody's relay is there now, which shares no secret with that server.
    let _other = Viva::start(&[
        "--set=turn_server.enabled=true",
        "--set=turn_server.udp_listen=null",
        &format!("--set=turn_server.tcp_listen=127.0.0.1:{port}"),
    ]);
    let (code, text) = dead.doctor_here(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(line(&text, "failure", "refuses the credentials").contains("turn:127.0.0.1"), "{text}");
    assert!(text.contains("static-auth-secret"));
}

/// A port with TLS whose certificate is made so, and the file of its root.
fn with_certificate(folder: &std::path::Path, name: &str, shape: impl Fn(&mut CertificateParams)) -> (String, String) {
    let mut root = CertificateParams::new(vec![]).expect("no name");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    shape(&mut leaf);
    let leaf = leaf.signed_by(&key, &root).expect("a certificate");
    let file = folder.join(format!("{:x}.pem", rand::random::<u64>()));
    std::fs::write(&file, root.pem()).expect("writable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"),
        )
        .expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut session = rustls::ServerConnection::new(config.clone()).expect("a session");
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            session.send_close_notify();
            let _ = session.write_tls(&mut socket);
        }
    });
    (format!("wss://localhost:{port}"), file.display().to_string())
}

#[test]
fn each_thing_that_can_be_wrong_with_a_certificate_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let look = |url: &str, roots: &str| doctor(&["--url", url], &[("SSL_CERT_FILE", roots)]);
    let (url, roots) = with_certificate(folder.path(), "localhost", |_| {});
    let (code, text) = look(&url, &roots);
    assert_eq!(code, Some(0), "{text}");
    line(&text, "ok", "the certificate is trusted, and good for");
    let (_, strangers) = with_certificate(folder.path(), "localhost", |_| {});
    let (code, text) = look(&url, &strangers);
    assert_eq!(code, Some(1));
    assert!(line(&text, "failure", "certificate").contains("nobody whom this machine trusts"), "{text}");

    let (url, roots) = with_certificate(folder.path(), "localhost", |leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
    assert!(line(&look(&url, &roots).1, "failure", "certificate").contains("has expired"));
    let (url, roots) = with_certificate(folder.path(), "localhost", |leaf| leaf.not_before = date_time_ymd(4000, 1, 1));
    assert!(line(&look(&url, &roots).1, "failure", "certificate").contains("not valid yet"));
    let (url, roots) = with_certificate(folder.path(), "elsewhere.example", |_| {});
    assert!(line(&look(&url, &roots).1, "failure", "certificate").contains("for other names than localhost"));
}
