//! The program as it is started from a shell: what it says and its exit code.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use viva::auth::ApiKeys;

/// Far longer than a start takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// `viva` in the repository's root, without whatever this shell has set for it.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viva"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"VIVA_")) {
        command.env_remove(name);
    }
    command
}

fn viva(args: &[&str]) -> Output {
    command(args).output().expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks that it refused with this exit code, without a backtrace, and returns what it said.
fn refused(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("viva: ") && !said.contains("panicked") && !said.contains("backtrace"), "{said}");
    said
}

/// A folder with nothing but room for data, and options that keep a server to it and to free ports.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn serve(&self, more: &[&str]) -> Vec<String> {
        let store = format!("store.url=sqlite://{}", self.path().join("viva.db").display());
        let models = format!("models.dir={}", self.path().display());
        let mut args: Vec<String> = ["serve", "--dev", "--listen", "127.0.0.1:0", "--udp-port-base", "0"]
            .into_iter()
            .chain([
                "--set",
                &store,
                "--set",
                &models,
                "--set",
                "speech.tts.provider=espeak",
                "--set",
                "rtc.tcp_port=0",
            ])
            .map(str::to_owned)
            .collect();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    fn refused(&self, more: &[&str], code: i32) -> String {
        let args = self.serve(more);
        refused(&viva(&args.iter().map(String::as_str).collect::<Vec<_>>()), code)
    }
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_one() {
    let place = Place::new();
    let file = place.path().join("viva.yaml");
    std::fs::write(&file, "server:\n  http_listen: 127.0.0.1:1\nrtc:\n  upd_port_base: 7000\n  workers: many\n")
        .expect("writable");
    let said = refused(&viva(&["check-config", "--config", &file.display().to_string()]), 2);
    assert!(said.contains("2 mistakes"), "{said}");
    assert!(
        said.contains("viva.yaml:4: `rtc.upd_port_base` is not a known key; did you mean `rtc.udp_port_base`?"),
        "{said}"
    );
    assert!(said.contains("viva.yaml:5: `rtc.workers`"), "{said}");
}

#[test]
fn the_environment_is_checked_too() {
    let output = command(&["check-config"]).env("VIVA_SERVER__HTTP_LISEN", "x").output().expect("starts");
    let said = refused(&output, 2);
    assert!(said.contains("VIVA_SERVER__HTTP_LISEN") && said.contains("`server.http_listen`"), "{said}");
}

#[test]
fn variables_that_are_no_text_are_passed_over() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let output = command(&["check-config"]).env("SOMEBODYS", odd).env(odd, "x").output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_good_configuration_is_printed_without_secrets() {
    let output =
        command(&["check-config", "--dev"]).env("VIVA_INTERVIEW__LLM__API_KEY", "hush").output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("udp_port_base: 7882") && printed.contains("devkey: '***'"), "{printed}");
    assert!(!printed.contains("hush"));
    assert!(text(&output.stderr).contains("valid"));
}

#[test]
fn plans_are_checked_with_the_configuration() {
    let place = Place::new();
    std::fs::write(place.path().join("broken.yaml"), "title: Half a plan\nminuts: 5\n").expect("writable");
    let plans = format!("interview.plans_dir={}", place.path().display());
    let said = refused(&viva(&["check-config", "--set", &plans]), 2);
    assert!(said.contains("broken.yaml") && said.contains("`minutes`"), "{said}");
}

#[test]
fn a_port_in_use_is_told_with_the_way_out() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let said = place.refused(&["--set", &format!("server.metrics_listen={address}")], 1);
    assert!(
        said.contains(&format!("port {} is in use", address.port())) && said.contains("--metrics-listen"),
        "{said}"
    );
}

#[test]
fn a_media_port_in_use_is_told_with_the_way_out() {
    let place = Place::new();
    let taken = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let said = place.refused(&["--set", &format!("rtc.udp_port_base={port}"), "--set", "rtc.workers=1"], 1);
    assert!(said.contains(&port.to_string()) && said.contains("rtc.udp_port_base"), "{said}");
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let said = place.refused(&["--set", &format!("rtc.tcp_port={port}"), "--set", "rtc.workers=1"], 1);
    assert!(said.contains(&port.to_string()) && said.contains("rtc.tcp_port"), "{said}");
}

#[test]
fn a_missing_model_is_told_with_the_way_out() {
    let place = Place::new();
    let said = place.refused(&["--set", "speech.stt.provider=whisper"], 1);
    assert!(said.contains("speech.stt.model") && said.contains("viva models pull"), "{said}");
}

#[test]
fn a_database_that_cannot_be_made_is_told_with_the_way_out() {
    let place = Place::new();
    let said = place.refused(&["--set", "store.url=sqlite:///dev/null/viva.db"], 1);
    assert!(said.contains("store.url"), "{said}");
}

#[test]
fn a_server_without_keys_does_not_start() {
    let said = refused(&viva(&["serve"]), 2);
    assert!(said.contains("auth.keys") && said.contains("--dev"), "{said}");
}

#[test]
fn a_minted_token_is_what_the_server_takes() {
    let args = ["token", "--dev", "--identity", "ada", "--name", "Ada", "--room", "demo", "--role", "interviewee"];
    let output = viva(&[&args[..], &["--consent", "ai_interviewer", "--grant", "canPublish=false"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let claims = ApiKeys::dev().verify(text(&output.stdout).trim()).expect("is ours");
    assert_eq!(claims.grants.joins().as_ref().map(|room| room.as_str()), Some("demo"));
    assert!(!claims.grants.can_publish());
    assert_eq!(claims.attributes["viva.role"], "interviewee");
    assert_eq!(claims.attributes["viva.consent"], "ai_interviewer");
    assert!(refused(&viva(&["token", "--dev", "--room", "demo"]), 2).contains("--identity"));
}

/// One request on a connection of its own: the answer's first line and body, or `None` where nobody listens.
fn get(port: u16, path: &str) -> Option<String> {
    ask(port, "GET", path, "")
}

fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json");
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Ends a server that a failed test left running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a server at `port`.
    fn start(place: &Place, port: u16) -> Self {
        Self::start_with(place, port, &[])
    }

    fn start_with(place: &Place, port: u16, more: &[&str]) -> Self {
        let listen = format!("server.http_listen=127.0.0.1:{port}");
        let args = place.serve(&[&["--set", &listen, "--set", "server.shutdown_grace_secs=5"], more].concat());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Self(command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts"))
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = i32::try_from(self.0.id()).expect("fits");
        // SAFETY: a signal to our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.0.wait().expect("ends");
        assert!(status.success(), "{status}");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn wait_until_ready(port: u16) {
    let begun = Instant::now();
    while !get(port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(begun.elapsed() < PATIENCE, "it does not get ready");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_server_gets_ready_and_ends_on_sigterm_within_its_grace() {
    let (place, port) = (Place::new(), free_port());
    let mut running = Running::start(&place, port);
    wait_until_ready(port);
    running.stop();
    let mut banner = String::new();
    running.0.stdout.take().expect("piped").read_to_string(&mut banner).expect("text");
    for part in [&format!("http://localhost:{port}"), "Hears", "Speaks", "devkey"] {
        assert!(banner.contains(part), "{banner}");
    }
}

/// Writes a new certificate and its key, and returns the certificate.
fn issue(cert: &Path, key: &Path) -> CertificateDer<'static> {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let issued = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&pair);
    let issued = issued.expect("a certificate");
    std::fs::write(cert, issued.pem()).expect("writable");
    std::fs::write(key, pair.serialize_pem()).expect("writable");
    issued.der().clone()
}

/// What the server answers by TLS to who trusts this certificate alone; `None` where the handshake fails.
fn get_by_tls(port: u16, path: &str, trusted: &CertificateDer<'static>) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut stream = rustls::StreamOwned::new(client, TcpStream::connect(("127.0.0.1", port)).ok()?);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    // The server need not say goodbye.
    let _ = stream.read_to_string(&mut answer);
    Some(answer).filter(|answer| !answer.is_empty())
}

#[test]
fn a_renewed_certificate_serves_after_sighup() {
    let (place, port) = (Place::new(), free_port());
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let old = issue(&cert, &key);
    let set = |name: &str, path: &Path| format!("server.tls.{name}={}", path.display());
    let (cert_file, key_file) = (set("cert_file", &cert), set("key_file", &key));
    let mut running = Running::start_with(&place, port, &["--set", &cert_file, "--set", &key_file]);
    wait_until_ready(port);
    let answer = get_by_tls(port, "/readyz", &old).expect("TLS");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let new = issue(&cert, &key);
    running.signal(libc::SIGHUP);
    let begun = Instant::now();
    while get_by_tls(port, "/readyz", &new).is_none() {
        assert!(begun.elapsed() < PATIENCE, "the new certificate is not used");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(get_by_tls(port, "/readyz", &old).is_none());
    running.stop();
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_before_anything_starts() {
    let place = Place::new();
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    issue(&cert, &key);
    let (cert_file, key_file) =
        (format!("server.tls.cert_file={}", cert.display()), format!("server.tls.key_file={}", key.display()));
    assert!(place.refused(&["--set", &cert_file], 2).contains("server.tls.key_file"));
    issue(&cert, &place.path().join("other.pem"));
    let said = place.refused(&["--set", &cert_file, "--set", &key_file], 1);
    assert!(said.contains("is not that of the certificate"), "{said}");
    let said = refused(&viva(&["check-config", "--dev", "--set", &cert_file, "--set", &key_file]), 2);
    assert!(said.contains("is not that of the certificate"), "{said}");
}

#[test]
fn after_a_restart_the_first_answer_comes_when_the_interviews_are_taken_up() {
    let (place, port) = (Place::new(), free_port());
    let mut running = Running::start(&place, port);
    wait_until_ready(port);
    let offered = get(port, "/v1/practice").expect("answers");
    let offered: serde_json::Value =
        serde_json::from_str(offered.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    let new = serde_json::json!({
        "plan": offered["plans"][0]["id"], "persona": offered["personas"][0]["id"], "name": "Ada",
    });
    for _ in 0..5 {
        let made = ask(port, "POST", "/v1/interviews", &new.to_string()).expect("answers");
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    }
    running.stop();
    let mut running = Running::start(&place, port);
    let begun = Instant::now();
    // The port is open before anything else is: a request can lie there and is answered as soon as anybody may come in.
    let first = loop {
        match get(port, "/metrics") {
            Some(answer) if !answer.is_empty() => break answer,
            _ => assert!(begun.elapsed() < PATIENCE, "it does not answer"),
        }
        std::thread::park_timeout(Duration::from_millis(1));
    };
    assert!(first.contains("\nviva_rooms 5\n"), "{first}");
    running.stop();
}

#[test]
fn models_are_listed_and_an_unreachable_source_is_told_in_one_line() {
    let place = Place::new();
    let dir = place.path().display().to_string();
    let listed = viva(&["models", "list", "--models-dir", &dir]);
    assert!(listed.status.success() && text(&listed.stdout).contains("not here"), "{}", text(&listed.stdout));
    assert!(text(&viva(&["models", "verify", "--models-dir", &dir]).stdout).contains("no models"));
    // Port 9 is `discard`: nobody listens there.
    let begun = Instant::now();
    let output = viva(&["models", "pull", "--models-dir", &dir, "--set", "models.base_url=http://127.0.0.1:9"]);
    let said = refused(&output, 1);
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert!(said.contains("not fetched: whisper-base.en, en_US-lessac-medium"), "{said}");
    assert!(said.contains("viva models pull") && begun.elapsed() < Duration::from_secs(20), "{said}");
    assert!(
        refused(&viva(&["models", "pull", "whisper-gigantic", "--models-dir", &dir]), 1).contains("whisper-gigantic")
    );
}
