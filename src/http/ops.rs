//! For operators: metrics, liveness, readiness.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::telemetry::Metrics;

/// Whether new work may be sent here. Cheap clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// Why not, where it is not ready.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.0.load(Ordering::Acquire) {
            READY => Ok(()),
            STARTING => Err("starting"),
            _ => Err("draining: the server is shutting down"),
        }
    }
}

/// `GET /metrics`.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(render)).with_state(metrics)
}

async fn render(State(metrics): State<Arc<Metrics>>) -> Response {
    metrics.sample_process();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// The process runs and its runtime answers.
pub async fn livez() -> &'static str {
    "ok\n"
}
