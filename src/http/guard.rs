//! How fast one address may ask. What is too fast is refused with 429 before anything is done for it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    error::ApiError,
    peer::{self, Network, Peer},
};
use crate::{
    front::Crowd,
    limits::{Keyed, Rate},
    telemetry::Metrics,
};

/// Limits of one address. A school or a company behind one address is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Joins of any kind, and interviews that are made: at once, and a second after that; 0 = without limit.
    pub joins_per_address_burst: u32,
    pub joins_per_address_per_sec: u32,
    /// Other requests, but for the page, health and metrics.
    pub requests_per_address_burst: u32,
    pub requests_per_address_per_sec: u32,
    /// Connections at a time, at each port, those of signalling and media too; 0 = without limit. Trusted proxies have none.
    pub connections_per_address: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // A class of 50 behind one address joins at once, and again after a network failure, and again.
            joins_per_address_burst: 200,
            joins_per_address_per_sec: 20,
            requests_per_address_burst: 1000,
            requests_per_address_per_sec: 200,
            connections_per_address: 1024,
        }
    }
}

/// Counts what each address asks.
pub struct Guard {
    trusted: Vec<Network>,
    joins: Mutex<Keyed<IpAddr>>,
    requests: Mutex<Keyed<IpAddr>>,
    connections: usize,
    metrics: Arc<Metrics>,
}

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Join,
    Request,
    Free,
}

impl Guard {
    pub fn new(config: &Config, trusted: Vec<Network>, metrics: Arc<Metrics>) -> Arc<Self> {
        let joins = Rate::of(config.joins_per_address_burst, config.joins_per_address_per_sec);
        let requests = Rate::of(config.requests_per_address_burst, config.requests_per_address_per_sec);
        let (joins, requests) = (Mutex::new(Keyed::new(joins)), Mutex::new(Keyed::new(requests)));
        Arc::new(Self { trusted, joins, requests, connections: config.connections_per_address, metrics })
    }

    /// Puts the guard in front of everything that `router` answers.
    pub fn before(self: &Arc<Self>, router: Router) -> Router {
        Router::new().fallback_service(router).layer(from_fn_with_state(self.clone(), check))
    }

    /// What counts connections. Proxies are not counted: theirs are everybody's.
    pub fn crowd(self: &Arc<Self>) -> Crowd {
        let guard = self.clone();
        Crowd::new(self.connections, move |address| {
            let counted = !guard.trusted.iter().any(|network| network.contains(address));
            counted.then(|| peer::source(address))
        })
    }

    fn take(&self, now: Instant, kind: Kind, address: IpAddr) -> Result<(), (&'static str, Duration)> {
        let (limits, name) = match kind {
            Kind::Join => (&self.joins, "joins_address"),
            Kind::Request => (&self.requests, "requests_address"),
            Kind::Free => return Ok(()),
        };
        let taken = limits.lock().unwrap_or_else(PoisonError::into_inner).take(now, peer::source(address));
        taken.map_err(|wait| (name, wait))
    }
}

/// A join's path may begin with two slashes. `OPTIONS` is free as browsers ask it, which is without a token; to one with a
/// token, WHIP's endpoint answers with credentials for relays.
fn kind(method: &Method, path: &str, with_token: bool) -> Kind {
    let path = path.trim_start_matches('/').trim_end_matches('/');
    match path {
        "rtc" | "rtc/v1" | "agent" => Kind::Join,
        "whip/v1" | "whep/v1" | "v1/interviews" if method == Method::POST => Kind::Join,
        _ if method == Method::OPTIONS && !with_token => Kind::Free,
        _ if path.starts_with("v1/interviews/") && path.ends_with("/join") => Kind::Join,
        _ if ["rtc/", "whip/", "whep/", "v1/", "twirp/"].iter().any(|of| path.starts_with(of)) => Kind::Request,
        _ => Kind::Free,
    }
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else { return next.run(request).await };
    let address = peer::client(peer, request.headers(), &guard.trusted);
    let with_token = request.headers().contains_key(header::AUTHORIZATION);
    let kind = kind(request.method(), request.uri().path(), with_token);
    match guard.take(Instant::now(), kind, address) {
        Ok(()) => next.run(request).await,
        Err((limit, wait)) => {
            guard.metrics.limited.with_label_values(&[limit]).inc();
            refusal(request.uri().path(), wait)
        }
    }
}

/// In the form that the client of this path reads. Pages of any origin may read it.
fn refusal(path: &str, wait: Duration) -> Response {
    let words = "Too many requests came from your address; wait as long as `Retry-After` says, and try again.";
    let path = path.trim_start_matches('/');
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut response = if path.starts_with("twirp/") {
        (status, axum::Json(json!({ "code": "resource_exhausted", "msg": words, "meta": {} }))).into_response()
    } else if path.starts_with("rtc") {
        (status, Body::from(words)).into_response()
    } else {
        ApiError::new(status, "too_many_requests", words).into_response()
    };
    let secs = wait.as_secs().saturating_add(1).min(3600);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_something_counts_as_a_join() {
        for (method, path, wanted) in [
            ("GET", "/rtc/v1", Kind::Join),
            ("GET", "//rtc", Kind::Join),
            ("GET", "/rtc/v1/validate", Kind::Request),
            ("POST", "/whip/v1", Kind::Join),
            ("OPTIONS", "/whip/v1", Kind::Free),
            ("DELETE", "/whip/v1/PA_1", Kind::Request),
            ("POST", "/v1/interviews", Kind::Join),
            ("POST", "/v1/interviews/01A/join", Kind::Join),
            ("GET", "/v1/interviews/01A/transcript", Kind::Request),
            ("POST", "/twirp/livekit.RoomService/ListRooms", Kind::Request),
            ("GET", "/assets/index.js", Kind::Free),
            ("GET", "/livez", Kind::Free),
            ("GET", "/metrics", Kind::Free),
        ] {
            assert_eq!(kind(&method.parse().unwrap(), path, false), wanted, "{method} {path}");
        }
        assert_eq!(kind(&Method::OPTIONS, "/whip/v1", true), Kind::Request, "it is answered with credentials");
    }

    #[test]
    fn a_class_behind_one_address_joins_at_once() {
        let guard = Guard::new(&Config::default(), Vec::new(), Arc::new(Metrics::new()));
        let now = Instant::now();
        let address = IpAddr::from([203, 0, 113, 1]);
        assert!((0..150).all(|_| guard.take(now, Kind::Join, address).is_ok()), "50 people, three times each");
        let refused = (0..100).find_map(|_| guard.take(now, Kind::Join, address).err());
        assert_eq!(refused.map(|(limit, _)| limit), Some("joins_address"));
        assert!(guard.take(now, Kind::Join, [203, 0, 113, 2].into()).is_ok(), "others do not notice");
    }
}
