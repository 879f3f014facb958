//! The HTTP surface: signalling, REST, the web page, and what operators look at. [`app`] is the whole of it as one
//! router, so that tests can ask it without a socket; [`listener`] puts it on one.
//!
//! Holds no state of its own. Errors are problem documents that say what to do.

mod bearer;
mod error;
pub mod guard;
mod interviews;
mod layers;
pub mod listener;
mod ops;
mod page;
pub mod peer;
mod twirp;
mod workers;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};

use tower_http::compression::CompressionLayer;

pub use self::{
    error::ApiError,
    ops::{Readiness, metrics_router},
    page::is_built as page_is_built,
};
use crate::{agents::Agents, auth::ApiKeys, interview::Interviews, rooms::Rooms, store::Store, telemetry::Metrics};

/// Bodies of REST requests: a name and a few words.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest that a REST request may take, its body's arrival included; the page waits 15 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(14);

/// Longest that the body of a service's request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handlers need. Cheap clone.
#[derive(Clone)]
pub struct App {
    pub agents: Agents,
    pub interviews: Interviews,
    pub rooms: Rooms,
    pub store: Store,
    pub keys: Arc<ApiKeys>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub options: Arc<Options>,
}

/// What the configuration says to the handlers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether anybody may start a practice interview.
    pub public_practice: bool,
    /// Address of the signalling server as clients reach it; empty = the one that the page came from.
    pub public_url: String,
    /// Which voice the interviewer has: `piper` or `espeak-ng`.
    pub voice: &'static str,
    /// Whether `/metrics` is on this port.
    pub metrics: bool,
}

impl FromRef<App> for Arc<Metrics> {
    fn from_ref(app: &App) -> Self {
        app.metrics.clone()
    }
}

/// The whole surface. `signalling` brings `/rtc/v1`, `/whip/v1` and `/whep/v1`, and its own cross-origin rules: WHIP has
/// an `OPTIONS` of its own.
pub fn app(app: App, signalling: Router) -> Router {
    let rest = interviews::router()
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(time_limit))
        .method_not_allowed_fallback(wrong_method);
    let mut router = Router::new()
        .merge(rest)
        .merge(twirp::router().layer(from_fn(body_in_time)))
        .route("/agent", get(workers::connect))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(readyz))
        .fallback(page::serve)
        .layer(CompressionLayer::new())
        .with_state(app.clone());
    if app.options.metrics {
        router = router.merge(metrics_router(app.metrics.clone()));
    }
    let router = router
        .layer(layers::cors())
        .merge(signalling)
        .layer(from_fn_with_state(app.metrics.clone(), layers::measure))
        .layer(from_fn(layers::security_headers));
    // Outside of the routing, as it changes the path.
    Router::new().fallback_service(router).layer(from_fn(layers::collapse_slashes))
}

/// Whether new work may be sent here: the parts run, the database answers, and it is not shutting down.
async fn readyz(State(app): State<App>) -> Response {
    let refuse = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response();
    if let Err(reason) = app.readiness.check() {
        return refuse(reason);
    }
    if !app.rooms.is_healthy() {
        return refuse("no media worker runs: restart the server, and see its log for why");
    }
    match app.store.ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "the database does not answer");
            refuse("the database does not answer")
        }
    }
}

async fn time_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("This took too long; try again in a moment.").into_response(),
    }
}

/// Any bytes as what a worker of agents says; for fuzzers.
pub(crate) fn fuzz_worker(bytes: &[u8]) {
    workers::fuzz(bytes);
}

/// Any bytes as the body of each of LiveKit's requests; for fuzzers.
pub(crate) fn fuzz_twirp(bytes: &[u8], json: bool) {
    twirp::fuzz(bytes, json);
}

/// A service's request may take as long as it asks for; its body may not.
async fn body_in_time(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, twirp::BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => twirp::refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 512 KiB, or broke off"),
        Err(_) => twirp::refused(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"),
    }
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "This address does not take this method.")
}
