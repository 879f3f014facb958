//! TURN (RFC 8656): the way in for clients whose network lets no media through. Tells clients of relays, which may be a
//! coturn elsewhere. It is not the place for media: `sfu` does not know whether a datagram was relayed.

pub mod credentials;
mod ice_servers;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::ice_servers::{IceServer, IceServers, Relay};
use crate::auth::Secret;

/// Relays, and what clients are told of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For how long credentials are good, seconds. A relay asks for them again every few minutes.
    pub credentials_ttl_secs: u64,
    /// Whether clients are told to use relays only.
    pub force_relay: bool,
    pub external: ExternalConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_relays_are_checked() {
        for good in ["turn:a", "turn:a:3478", "turn:[::1]:3478?transport=tcp", "turns:a.example:443?transport=tcp"] {
            assert_eq!(url_mistake(good), None, "{good}");
        }
        for bad in
            ["", "a", "stun:a", "turn:", "turn://a", "turn:a?transport=quic", "turn:a b", "turn:a>;x=\"", "https:a"]
        {
            assert!(url_mistake(bad).is_some(), "{bad}");
        }
    }
}
