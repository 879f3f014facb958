//! This machine and its configuration.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Finding, clock};
use crate::{
    config::Config,
    models::{self, Presence},
    tls::Tls,
};

/// Signing by HS256 with less than its hash is guessable (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Open files that a busy server has: connections, allocations, and some for itself.
const FILES_MIN: u64 = 10_000;
/// What the kernel must allow a socket to keep while a media thread is away for some milliseconds.
const SOCKET_BYTES_MIN: u64 = 1024 * 1024;

pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("config", "the configuration is valid")];
    findings.push(keys(config));
    findings.extend(certificate(config));
    let advertised: Vec<IpAddr> = config.rtc.advertise_ips.iter().map(|ip| ip.public).collect();
    findings.extend(addresses(&advertised, &config.server.public_url, &own_addresses()));
    findings.extend(files());
    findings.extend(socket_buffers(Path::new("/proc/sys/net/core/rmem_max")));
    findings.push(store(&config.store.url));
    findings.push(voices(&config.models.dir));
    findings.extend(clock::synchronised());
    findings
}

fn keys(config: &Config) -> Finding {
    const CHECK: &str = "keys";
    let all = &config.auth.keys;
    let weak = all.iter().find(|(_, secret)| secret.expose().len() < SECRET_BYTES_MIN);
    if all.is_empty() {
        return Finding::failure(CHECK, "there is no API key", "set auth.keys: a key and a long random secret");
    }
    match weak {
        Some((key, _)) => Finding::warning(
            CHECK,
            format!("the secret of the API key `{key}` is short: who guesses it may do everything"),
            "use 32 random bytes or more: openssl rand -hex 32",
        ),
        None => Finding::ok(CHECK, format!("{} API keys with long secrets", all.len())),
    }
}

fn certificate(config: &Config) -> Option<Finding> {
    const CHECK: &str = "certificate";
    if !config.server.tls.is_on() {
        return None;
    }
    Some(match Tls::load(&config.server.tls) {
        Err(error) => Finding::failure(CHECK, error.to_string(), "correct server.tls"),
        Ok(tls) => match tls.validity().warning(SystemTime::now()) {
            Some(warning) => Finding::warning(CHECK, warning, "renew it; the server reads the new files by itself"),
            None => Finding::ok(CHECK, "the files of server.tls hold a certificate and its key"),
        },
    })
}

fn own_addresses() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip()).collect()
}

/// Whether what clients are told to send media to makes sense.
pub(super) fn addresses(advertised: &[IpAddr], public_url: &str, own: &[IpAddr]) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    let told = if advertised.is_empty() { own } else { advertised };
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let usable: Vec<IpAddr> = told.iter().copied().filter(|ip| !ip.is_loopback() && !is_link_local(*ip)).collect();
    let mut findings = Vec::new();
    if usable.is_empty() {
        findings.push(Finding::warning(
            CHECK,
            "clients are told loopback addresses only: nobody but this machine can send media",
            "set rtc.advertise_ips to the address that clients reach",
        ));
    } else if !public_url.is_empty() && usable.iter().all(|ip| is_private(*ip)) {
        findings.push(Finding::failure(
            CHECK,
            format!(
                "server.public_url is for everybody, but clients are told private addresses only: {}",
                list(&usable)
            ),
            "set rtc.advertise_ips to the public address",
        ));
    } else {
        findings.push(Finding::ok(CHECK, format!("clients are told to send media to {}", list(&usable))));
    }
    let foreign: Vec<IpAddr> = advertised.iter().copied().filter(|ip| !own.contains(ip)).collect();
    if !foreign.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{} is not on this machine: right only if something translates it to this machine", list(&foreign)),
        ));
    }
    findings
}

pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // 100.64.0.0/10 is what providers translate from.
        IpAddr::V4(ip) => {
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn files() -> Option<Finding> {
    const CHECK: &str = "open files";
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the struct that it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    Some(match limit.rlim_cur {
        few if few < FILES_MIN => Finding::warning(
            CHECK,
            format!("this shell allows {few} open files; a busy server needs {FILES_MIN}"),
            "raise it for the service: LimitNOFILE=65536 in systemd, ulimit -n elsewhere",
        ),
        many => Finding::ok(CHECK, format!("{many} are allowed")),
    })
}

pub(super) fn socket_buffers(file: &Path) -> Option<Finding> {
    const CHECK: &str = "UDP buffers";
    let most: u64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(match most {
        few if few < SOCKET_BYTES_MIN => Finding::warning(
            CHECK,
            format!("the kernel keeps {few} bytes for a socket at most: bursts of media get lost"),
            "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304",
        ),
        many => Finding::ok(CHECK, format!("{many} bytes for a socket")),
    })
}

pub(super) fn store(url: &str) -> Finding {
    const CHECK: &str = "store";
    let path = PathBuf::from(url.trim_start_matches("sqlite://").split('?').next().unwrap_or_default());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The server makes what is missing, from the first folder that is there.
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let trial = there.join(format!(".viva-doctor-{:016x}", rand::random::<u64>()));
    let file = std::fs::OpenOptions::new().append(true).open(&path);
    if let Err(error) = file.as_ref().map(drop).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }) {
        return Finding::failure(
            CHECK,
            format!("{} cannot be written: {error}", path.display()),
            "correct its owner and mode",
        );
    }
    match std::fs::write(&trial, b"").and_then(|()| std::fs::remove_file(&trial)) {
        Ok(()) => Finding::ok(CHECK, format!("{} can be written", folder.display())),
        Err(error) => Finding::failure(
            CHECK,
            format!("{} cannot be written: {error}", there.display()),
            "give it to the user of the server, or set store.url",
        ),
    }
}

fn voices(dir: &Path) -> Finding {
    const CHECK: &str = "models";
    let listed = models::list(dir);
    let damaged: Vec<_> = listed
        .iter()
        .filter(|(_, presence)| *presence == Presence::WrongSize)
        .map(|(model, _)| model.name.clone())
        .collect();
    let here = listed.iter().filter(|(_, presence)| *presence == Presence::Present).count();
    if !damaged.is_empty() {
        return Finding::failure(
            CHECK,
            format!("damaged: {}", damaged.join(", ")),
            "viva models verify, then viva models pull",
        );
    }
    match here {
        0 => Finding::warning(
            CHECK,
            format!("no model of the list is in {}", dir.display()),
            "viva models pull, or set speech.stt.provider; without, words are not recognised and espeak-ng speaks",
        ),
        some => Finding::ok(CHECK, format!("{some} models are here")),
    }
}
