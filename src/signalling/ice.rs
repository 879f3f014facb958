//! Relays in the words of each protocol.

use axum::http::HeaderValue;
use livekit_protocol as proto;
use proto::ClientConfigSetting;

use crate::turn_server::IceServers;

/// For a client with a socket.
pub(super) fn servers(ice_servers: &IceServers) -> Vec<proto::IceServer> {
    let entry = |server: crate::turn_server::IceServer| proto::IceServer {
        urls: server.urls,
        username: server.credentials.username,
        credential: server.credentials.password,
    };
    ice_servers.issue().into_iter().map(entry).collect()
}

/// What else a client is to know; nothing, as a rule.
pub(super) fn client_configuration(ice_servers: &IceServers) -> Option<proto::ClientConfiguration> {
    let force_relay = ClientConfigSetting::Enabled as i32;
    ice_servers.force_relay().then(|| proto::ClientConfiguration { force_relay, ..Default::default() })
}

/// `Link` headers of WHIP and WHEP, one for each address (RFC 9725, section 4.6).
pub(super) fn links(ice_servers: &IceServers) -> Vec<HeaderValue> {
    let mut links = Vec::new();
    for server in ice_servers.issue() {
        let (username, credential) = (&server.credentials.username, &server.credentials.password);
        links.extend(server.urls.iter().filter_map(|url| {
            let link = format!(
                "<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"; \
                 credential-type=\"password\""
            );
            let mut value = HeaderValue::from_str(&link).ok()?;
            value.set_sensitive(true);
            Some(value)
        }));
    }
    links
}
