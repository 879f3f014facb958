//! The task between the rooms and the network: a queue for each address, and the attempts under way.
//!
//! It waits for news alone. A receiver that is slow or gone holds up its own queue, and no other.

use std::{future::Future, pin::Pin, sync::Arc};

use futures::{StreamExt, stream::FuturesUnordered};
use livekit_protocol as proto;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Hook, json,
    post::Post,
    queue::{Limits, Queue},
    retry::{Retry, Step},
};
use crate::telemetry::Metrics;

type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

/// How it ended.
struct Done {
    address: usize,
    hook: Arc<Hook>,
    /// Why it was given up, if it was.
    failure: Option<String>,
}

struct Receiver {
    queue: Queue,
    /// Whether the last event was given up. Told once, and once more when it is over.
    failing: bool,
}

pub(super) struct Deliveries<P> {
    post: Arc<P>,
    receivers: Vec<Receiver>,
    attempts_max: u32,
    metrics: Arc<Metrics>,
}

impl<P: Post> Deliveries<P> {
    pub fn new(post: P, addresses: usize, limits: Limits, attempts_max: u32, metrics: Arc<Metrics>) -> Self {
        let receivers = (0..addresses).map(|_| Receiver { queue: Queue::new(limits), failing: false }).collect();
        Self { post: Arc::new(post), receivers, attempts_max, metrics }
    }

    /// Runs until it is stopped and everything that came before is delivered or given up.
    pub async fn run(mut self, mut intake: mpsc::Receiver<Box<proto::WebhookEvent>>, stop: CancellationToken) {
        let mut under_way = UnderWay::new();
        let mut open = true;
        loop {
            self.start(&mut under_way);
            let waiting: usize = self.receivers.iter().map(|receiver| receiver.queue.len()).sum();
            self.metrics.webhooks_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            if !open && under_way.is_empty() {
                return;
            }
            tokio::select! {
                event = intake.recv(), if open => match event {
                    Some(event) => self.accept(*event),
                    None => open = false,
                },
                () = stop.cancelled(), if open && !intake.is_closed() => intake.close(),
                Some(done) = under_way.next() => self.finish(&done),
            }
        }
    }

    fn accept(&mut self, event: proto::WebhookEvent) {
        let name = event.event.clone();
        let hook = match json::hook(event) {
            Ok(hook) => Arc::new(hook),
            Err(error) => {
                tracing::error!(event = name, %error, "an event cannot be said in JSON");
                return self.count(&name, "failed");
            }
        };
        for at in 0..self.receivers.len() {
            for dropped in self.receivers[at].queue.push(hook.clone()) {
                self.count(&dropped.event, "dropped");
            }
        }
    }

    /// Begins whatever may begin.
    fn start(&mut self, under_way: &mut UnderWay) {
        for (address, receiver) in self.receivers.iter_mut().enumerate() {
            while let Some(hook) = receiver.queue.take() {
                under_way.push(Box::pin(deliver(self.post.clone(), address, hook, self.attempts_max)));
            }
        }
    }

    fn finish(&mut self, done: &Done) {
        let receiver = &mut self.receivers[done.address];
        receiver.queue.done(&done.hook.room);
        let was_failing = std::mem::replace(&mut receiver.failing, done.failure.is_some());
        // As `webhooks.urls` counts them: the address itself may be a secret.
        let (number, id) = (done.address + 1, &done.hook.id);
        match &done.failure {
            Some(reason) if !was_failing => {
                tracing::warn!(number, id, reason, "a webhook was given up; further ones are counted alone");
            }
            Some(reason) => tracing::debug!(number, id, reason, "a webhook was given up"),
            None if was_failing => tracing::info!(number, "webhooks arrive again"),
            None => {}
        }
        self.count(&done.hook.event, if done.failure.is_some() { "failed" } else { "delivered" });
    }

    fn count(&self, event: &str, result: &str) {
        self.metrics.webhooks.with_label_values(&[event, result]).inc();
    }
}

async fn deliver<P: Post>(post: Arc<P>, address: usize, hook: Arc<Hook>, attempts_max: u32) -> Done {
    let mut retry = Retry::new(attempts_max);
    let failure = loop {
        let attempt = post.post(address, &hook).await;
        match retry.after(attempt, rand::random()) {
            Step::Delivered => break None,
            Step::GivenUp { reason } => break Some(reason),
            Step::Pause(pause) => tokio::time::sleep(pause).await,
        }
    };
    Done { address, hook, failure }
}
