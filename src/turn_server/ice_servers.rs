//! What clients are told of relays: addresses, with credentials that are new for each client.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::credentials::Credentials;
use crate::auth::Secret;

/// Relays that share a secret with us.
#[derive(Clone, Debug)]
pub struct Relay {
    /// As `turn:turn.example.org:3478?transport=udp` (RFC 7065).
    pub urls: Vec<String>,
    pub secret: Secret,
}

/// One entry of a client's list of ICE servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    pub urls: Vec<String>,
    pub credentials: Credentials,
}

/// Issues what clients are told of relays. Cheap clone; the default knows none.
#[derive(Clone, Debug, Default)]
pub struct IceServers {
    relays: Arc<[Relay]>,
    ttl: Duration,
    /// Whether clients are told to use nothing but relays.
    force: bool,
}

impl IceServers {
    pub fn new(relays: Vec<Relay>, ttl: Duration, force: bool) -> Self {
        let relays = relays.into_iter().filter(|relay| !relay.urls.is_empty()).collect();
        Self { relays, ttl, force }
    }

    /// Whether clients must go through a relay: never where there is none.
    pub fn force_relay(&self) -> bool {
        self.force && !self.relays.is_empty()
    }

    /// For one client, good from now on.
    pub fn issue(&self) -> Vec<IceServer> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.issue_at(now, rand::random())
    }

    fn issue_at(&self, now: Duration, tag: u64) -> Vec<IceServer> {
        let end = now.saturating_add(self.ttl).as_secs();
        let entry = |relay: &Relay| IceServer {
            urls: relay.urls.clone(),
            credentials: Credentials::new(&relay.secret, end, tag),
        };
        self.relays.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relay_gets_credentials_of_its_own_secret_that_end_in_time() {
        let relay = |url: &str, secret: &str| Relay { urls: vec![url.into()], secret: secret.into() };
        let relays = vec![relay("turn:a", "1"), relay("turn:b", "2"), Relay { urls: vec![], secret: "3".into() }];
        let servers = IceServers::new(relays, Duration::from_secs(60), true);
        let issued = servers.issue_at(Duration::from_secs(1000), 7);
        assert_eq!(issued.iter().map(|server| server.urls[0].as_str()).collect::<Vec<_>>(), ["turn:a", "turn:b"]);
        assert!(issued.iter().all(|server| server.credentials.username == "1060:0000000000000007"));
        assert_ne!(issued[0].credentials.password, issued[1].credentials.password);
        assert_ne!(servers.issue(), servers.issue(), "each client has credentials of its own");
    }

    #[test]
    fn clients_are_not_forced_to_relays_that_do_not_exist() {
        assert!(!IceServers::new(vec![], Duration::ZERO, true).force_relay());
        assert!(IceServers::default().issue().is_empty());
    }
}
