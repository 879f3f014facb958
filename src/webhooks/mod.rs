//! Webhooks in LiveKit's form: tells the integrator's servers what happens in rooms.
//!
//! Rooms hand events to a bounded channel and never wait. One task takes them, turns each into its JSON once, and keeps a
//! queue for each address. Within a room events go out in order, one at a time; what fails is tried again
//! (`retry`), always with the same id. It is not the place to decide what is told: see `rooms`.

mod address;
mod delivery;
mod json;
mod post;
mod queue;
mod retry;

use std::sync::Arc;

use livekit_protocol as proto;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::address::Address;
use self::{delivery::Deliveries, post::HttpPost, queue::Limits};
use crate::{auth::ApiKeys, telemetry::Metrics};

/// Events on the way from all rooms to the task that sorts them. It never waits for a receiver, so this holds what comes
/// while it is not scheduled: a shutdown ends a thousand rooms at once, with some five events each.
const INTAKE_CAPACITY: usize = 8192;
/// Bodies that wait for one address, bytes: the usual event has 1 to 2 KiB, one with full metadata 130 KiB.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses that every event is sent to.
    pub urls: Vec<Address>,
    /// The key of `auth.keys` that signs; empty: the first in alphabetical order.
    pub api_key: String,
    /// For one attempt, from connecting to the status.
    pub timeout_ms: u64,
    /// Attempts for one event in all.
    pub attempts_max: u32,
    /// Events that wait for one address.
    pub queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            api_key: String::new(),
            timeout_ms: 5000,
            // With pauses of 0.5, 1, 2, 4 and 8 s a receiver may be away for a quarter of a minute.
            attempts_max: 6,
            // Some 15 MB of usual events for each address.
            queue_max: 10_000,
        }
    }
}

/// The task that sends.
pub struct Webhooks {
    events: mpsc::Sender<Box<proto::WebhookEvent>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Must be called inside a tokio runtime. An error says what is wrong with the configuration.
    pub fn start(config: &Config, keys: Arc<ApiKeys>, metrics: Arc<Metrics>) -> Result<Self, String> {
        let post = HttpPost::new(config, keys)?;
        let (events, intake) = mpsc::channel(INTAKE_CAPACITY);
        let stop = CancellationToken::new();
        let limits = Limits { events: config.queue_max, bytes: QUEUE_BYTES_MAX, ..Limits::default() };
        let deliveries = Deliveries::new(post, config.urls.len(), limits, config.attempts_max, metrics.clone());
        let task = tokio::spawn(deliveries.run(intake, stop.clone()));
        Ok(Self { events, stop, task, metrics })
    }

    /// Where events go in, with `try_send`: nobody waits for webhooks.
    pub fn events(&self) -> mpsc::Sender<Box<proto::WebhookEvent>> {
        self.events.clone()
    }

    /// Delivers what waits, with the usual attempts, and takes nothing more. May be given up at any time, and called
    /// again; see [`Webhooks::waiting`] for what is left then.
    pub async fn shutdown(&mut self) {
        self.stop.cancel();
        if !self.task.is_finished() {
            // A failure of the task was logged by its panic.
            let _ = (&mut self.task).await;
        }
    }

    /// Events that are not delivered yet, over all addresses.
    pub fn waiting(&self) -> i64 {
        self.metrics.webhooks_waiting.get()
    }
}

/// One event as it is sent. The body is made once: every attempt at every address has the same bytes.
#[derive(Debug)]
struct Hook {
    event: String,
    id: String,
    /// The sid; events of one room go out one after the other.
    room: String,
    body: bytes::Bytes,
    /// Base64 of the SHA-256 of the body.
    sha256: String,
}

/// Any event as the JSON that is sent; for fuzzers.
pub(crate) fn fuzz_json(bytes: &[u8]) {
    use prost::Message;
    let Ok(event) = proto::WebhookEvent::decode(bytes) else { return };
    let _ = json::hook(event);
}

#[cfg(test)]
mod tests;
