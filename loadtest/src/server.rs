//! The server under test: one that is started for the run, or one that runs somewhere.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, distr::Alphanumeric};

use crate::{args::ServerArgs, cpu::Process, signal::Place};

/// Longer than a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(15);
const KEY: &str = "loadtest";
/// Lines of its log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 12;

/// Whom bots load.
pub struct Server {
    pub place: Place,
    /// The address of this machine from which it is reached.
    pub local: IpAddr,
    /// Where its process can be looked at.
    pub process: Option<Process>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn get(args: &ServerArgs) -> Result<Self> {
        match &args.url {
            Some(url) => Self::at(url, args),
            None => Self::start(args),
        }
    }

    fn at(url: &str, args: &ServerArgs) -> Result<Self> {
        let authority = authority(url)?;
        let mut addresses = authority.to_socket_addrs().with_context(|| format!("{authority} has no address"))?;
        let address = addresses.next().with_context(|| format!("{authority} has no address"))?;
        let place = Place { authority, api_key: args.api_key.clone(), api_secret: args.api_secret.clone() };
        let local = local_towards(address).with_context(|| format!("no way leads to {address}"))?;
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("no server answers at {address}; start it, or correct --url"))?;
        let process = args.server_pid.map(Process::new).transpose()?;
        Ok(Self { place, local, process, own: None })
    }

    fn start(args: &ServerArgs) -> Result<Self> {
        ensure!(args.server_pid.is_none(), "--server-pid belongs to --url: without it the server is started here");
        let binary = binary()?;
        let folder = tempfile::Builder::new().prefix("viva-loadtest-").tempdir().context("no temporary folder")?;
        let secret: String = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
        let config = folder.path().join("server.yaml");
        std::fs::write(&config, configuration(folder.path(), &secret, args)?)?;
        let log = folder.path().join("log");
        let mut command = Command::new(&binary);
        command.args(["serve", "--config"]).arg(&config).current_dir(folder.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"VIVA_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let child = command.spawn().with_context(|| format!("{} cannot be started", binary.display()))?;
        let pid = child.id();
        // From here on it is stopped, whatever happens.
        let mut own = Own { child, _folder: folder };
        let Some(port) = own.port() else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            bail!("{} did not start; the last that it said:\n{last}", binary.display());
        };
        let place = Place { authority: format!("127.0.0.1:{port}"), api_key: KEY.into(), api_secret: secret };
        Ok(Self { place, local: Ipv4Addr::LOCALHOST.into(), process: Some(Process::new(pid)?), own: Some(own) })
    }

    /// Whether the server that was started here still runs; one elsewhere always seems to.
    pub fn is_alive(&mut self) -> bool {
        self.own.as_mut().is_none_or(|own| matches!(own.child.try_wait(), Ok(None)))
    }
}

impl Own {
    /// The port that it found, from what it prints once it serves; `None` if it ends or takes too long.
    fn port(&mut self) -> Option<u16> {
        let stdout = self.child.stdout.take()?;
        let (found, port) = mpsc::channel();
        // Reads on to the end, so that the server never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = port_of(&line) {
                    let _ = found.send(port);
                }
            }
        });
        port.recv_timeout(START_MAX).ok()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_MAX {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// `  Open      http://localhost:7880`
fn port_of(line: &str) -> Option<u16> {
    line.trim().strip_prefix("Open")?.trim().strip_prefix("http://localhost:")?.parse().ok()
}

/// `VIVA_BIN`, else the one beside this program.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIVA_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "VIVA_BIN is {}, which is no file: build the server first", path.display());
        return Ok(path.canonicalize()?);
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().map(|folder| folder.join("viva")).filter(|path| path.is_file());
    beside.with_context(|| {
        format!(
            "there is no `viva` beside {}: build it (cargo build --release), set VIVA_BIN to it, or give --url",
            own.display()
        )
    })
}

/// Free ports, one key, and no limits on who comes from one address: all bots do.
fn configuration(folder: &Path, secret: &str, args: &ServerArgs) -> Result<String> {
    for (place, name, text) in [
        ("plans", "plan.yaml", include_str!("../../config/plans/backend-engineer.yaml")),
        ("personas", "ada.yaml", include_str!("../../config/personas/ada.yaml")),
    ] {
        std::fs::create_dir_all(folder.join(place))?;
        std::fs::write(folder.join(place).join(name), text)?;
    }
    let config = serde_json::json!({
        "server": { "http_listen": "127.0.0.1:0", "log": { "filter": "warn,str0m=error" } },
        "rtc": {
            "workers": args.workers,
            "congestion_control": !args.no_congestion_control,
            "udp_port_base": 0,
            "tcp_port": null,
            "advertise_ips": ["127.0.0.1"],
        },
        "rooms": {
            "max_rooms": 1_000_000,
            "max_participants_per_room": 10_000,
            "joins_per_key_per_sec": 0,
        },
        "limits": {
            "joins_per_address_per_sec": 0,
            "requests_per_address_per_sec": 0,
            "connections_per_address": 0,
        },
        "auth": { "keys": { KEY: secret } },
        "store": { "url": format!("sqlite://{}", folder.join("viva.db").display()) },
        "models": { "dir": folder.join("models") },
        "speech": { "tts": { "provider": "espeak" } },
        "interview": { "plans_dir": folder.join("plans"), "personas_dir": folder.join("personas") },
    });
    Ok(serde_yaml_ng::to_string(&config)?)
}

/// Host and port of an address; what is not served here is told.
fn authority(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no address, as ws://host:7880"))?;
    match scheme {
        "ws" | "http" => {}
        "wss" | "https" => {
            bail!("bots do not speak TLS: give the server's own port behind the proxy, as ws://host:7880")
        }
        _ => bail!("{url} is no address, as ws://host:7880"),
    }
    let host = rest.split('/').next().unwrap_or_default();
    ensure!(!host.is_empty(), "{url} names no host");
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { host.to_owned() } else { format!("{host}:80") })
}

fn local_towards(address: SocketAddr) -> Result<IpAddr> {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_banner() {
        assert_eq!(port_of("  Open      http://localhost:40123"), Some(40_123));
        assert_eq!(port_of("  Metrics   http://localhost:40123/metrics"), None);
    }

    #[test]
    fn an_address_is_host_and_port() {
        assert_eq!(authority("ws://a.example:7880/").unwrap(), "a.example:7880");
        assert_eq!(authority("http://[::1]").unwrap(), "[::1]:80");
        assert!(authority("wss://a.example").unwrap_err().to_string().contains("TLS"));
        assert!(authority("a.example").is_err() && authority("ftp://a").is_err());
    }

    #[test]
    fn a_server_that_is_not_there_is_a_sentence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = ServerArgs {
            url: Some(format!("ws://{free}")),
            server_pid: None,
            api_key: "a".into(),
            api_secret: "b".into(),
            workers: 1,
            no_congestion_control: false,
        };
        let said = Server::get(&args).err().unwrap().to_string();
        assert!(said.contains("no server answers") && said.contains("--url"), "{said}");
    }
}
