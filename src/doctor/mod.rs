//! `viva doctor`: looks at a server as its clients will, and says in plain words what keeps them out, and what to do.
//!
//! Each check gives [`Finding`]s. Those of the machine ask this machine and its configuration; the others go through the
//! network to an address, as far as they get: what cannot be checked since something before it failed is said to be
//! skipped. Changes nothing but that it joins a room of its own, unseen, for a moment.

mod clock;
mod connection;
mod join;
mod machine;
mod media;
mod relay;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::connection::Target;
pub use self::report::Report;
use crate::{
    auth::{ApiKeys, Claims, Grants},
    config::Config,
};

/// For one connection or request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the token of the doctor is good.
const TOKEN_TTL: Duration = Duration::from_secs(120);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// Not looked at, since something else is missing.
    Skipped,
    /// Works now, or for some.
    Warning,
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What was seen, in plain words.
    pub seen: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, seen: seen.into(), advice: String::new() }
    }

    fn skipped(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Skipped, seen: seen.into(), advice: String::new() }
    }

    fn warning(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, seen: seen.into(), advice: advice.into() }
    }

    fn failure(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failure, seen: seen.into(), advice: advice.into() }
    }
}

/// What to look at.
#[derive(Default)]
pub struct Options {
    /// The server's address as clients have it; absent: what the configuration says, and this machine, too.
    pub url: Option<String>,
    /// A token to join with; absent: one is made with the configured key.
    pub token: Option<String>,
}

/// Looks at everything. `config` is that of the server, as far as it is known here.
pub async fn examine(config: &Config, options: &Options) -> Report {
    let mut findings = Vec::new();
    if options.url.is_none() {
        findings.extend(machine::examine(config));
    }
    let url = match &options.url {
        Some(url) => url.clone(),
        None if !config.server.public_url.is_empty() => config.server.public_url.clone(),
        None => own_url(config),
    };
    match Target::parse(&url) {
        Ok(target) => findings.extend(from_outside(config, options, &target).await),
        Err(finding) => findings.push(finding),
    }
    Report { url, findings }
}

fn own_url(config: &Config) -> String {
    let at = config.server.http_listen;
    let scheme = if config.server.tls.is_on() { "https" } else { "http" };
    match at.ip() {
        ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", at.port()),
        _ => format!("{scheme}://{at}"),
    }
}

async fn from_outside(config: &Config, options: &Options, target: &Target) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !connection::examine(target, &mut findings).await {
        findings.push(Finding::skipped("signalling", "the server could not be reached"));
        return findings;
    }
    let Some(token) = options.token.clone().or_else(|| own_token(config)) else {
        findings.push(Finding::skipped(
            "signalling",
            "joining needs a token: give --token, or the server's configuration with --config",
        ));
        return findings;
    };
    match join::join(target, &token).await {
        Ok(joined) => {
            findings.push(Finding::ok("signalling", "a client joins a room and gets an answer to its offer"));
            let direct = media::examine(target, &joined.answer, &mut findings).await;
            let relayed = relay::examine(&joined.ice_servers, &mut findings).await;
            findings.extend(way_in(direct, relayed, joined.force_relay));
            joined.leave().await;
        }
        Err(finding) => findings.push(finding),
    }
    findings
}

/// What it all means for a client.
fn way_in(direct: bool, relayed: bool, force_relay: bool) -> Option<Finding> {
    match (direct, relayed) {
        (true, true) => None,
        (_, false) if force_relay => Some(Finding::failure(
            "media",
            "clients are told to use relays only, and no relay works",
            "see the relay above, or set turn_server.force_relay to false",
        )),
        (true, false) => None,
        (false, true) => Some(Finding::warning(
            "media",
            "only a relay leads to this server's media",
            "open the media ports in the firewall: a relay costs time and bandwidth",
        )),
        (false, false) => Some(Finding::failure(
            "media",
            "nothing leads to this server's media from here: calls will connect and stay silent",
            "open the media ports in the firewall, and behind address translation set rtc.advertise_ips to the public \
             address",
        )),
    }
}

fn own_token(config: &Config) -> Option<String> {
    let keys = ApiKeys::new(config.auth.keys.clone());
    let room = format!("viva-doctor-{:016x}", rand::random::<u64>());
    let grants = Grants { hidden: true, ..Grants::participant(&room.as_str().into()) };
    keys.mint(Claims::new(&"viva-doctor".into(), grants), TOKEN_TTL).ok()
}
