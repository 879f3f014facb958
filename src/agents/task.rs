//! The task around the [`Registry`]: news of rooms and requests in, messages to workers out. It waits for nobody: what
//! takes time (the interviewer's start, an agent that is taken out) runs beside it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use livekit_protocol as proto;
use proto::server_message::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    AgentsError, Now, ToWorker, WORKERS_MAX,
    registry::{Output, Refused, Registry},
};
use crate::{
    auth::{ApiKeys, Claims, DEFAULT_TTL, RoomAgent},
    id::{AgentWorkerId, DispatchId, HookId, Identity, InterviewId, JobId, RoomName, RoomSid},
    interview::{AGENT_IDENTITY, InterviewError, Interviews},
    model::EndReason,
    rooms::{HookSender, RoomNews, Rooms},
    telemetry::Metrics,
};

/// How often rooms are looked for that are gone: their news may have been dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What the task is asked.
pub(super) enum Ask {
    Connect {
        id: AgentWorkerId,
        key: String,
        outbound: mpsc::Sender<ToWorker>,
        reply: oneshot::Sender<Result<(), AgentsError>>,
    },
    Message {
        id: AgentWorkerId,
        message: Box<proto::WorkerMessage>,
    },
    Disconnected {
        id: AgentWorkerId,
    },
    Create {
        sid: RoomSid,
        room: RoomName,
        agent: Box<RoomAgent>,
        reply: oneshot::Sender<Result<proto::AgentDispatch, AgentsError>>,
    },
    Delete {
        room: RoomName,
        id: DispatchId,
        reply: oneshot::Sender<Option<proto::AgentDispatch>>,
    },
    List {
        room: RoomName,
        reply: oneshot::Sender<Option<Vec<proto::AgentDispatch>>>,
    },
    ResidentStarted {
        job: JobId,
        result: Result<InterviewId, String>,
    },
    ResidentEnded {
        job: JobId,
        error: Option<String>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

pub(super) struct Task {
    registry: Registry,
    sockets: HashMap<AgentWorkerId, mpsc::Sender<ToWorker>>,
    /// Interviews of jobs that run.
    interviews_of: HashMap<JobId, InterviewId>,
    asks: mpsc::WeakSender<Ask>,
    rooms: Rooms,
    interviews: Interviews,
    keys: Arc<ApiKeys>,
    hooks: Option<HookSender>,
    metrics: Arc<Metrics>,
    draining: bool,
}

impl Task {
    pub fn new(
        asks: mpsc::WeakSender<Ask>,
        rooms: Rooms,
        interviews: Interviews,
        keys: Arc<ApiKeys>,
        hooks: Option<HookSender>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry: Registry::new(metrics.clone()),
            sockets: HashMap::new(),
            interviews_of: HashMap::new(),
            asks,
            rooms,
            interviews,
            keys,
            hooks,
            metrics,
            draining: false,
        }
    }

    pub async fn run(mut self, mut news: mpsc::Receiver<RoomNews>, mut asks: mpsc::Receiver<Ask>) {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let timer = self.registry.poll_timeout().map(Instant::from_std);
            tokio::select! {
                // News first: a room is told before anybody who found it can ask about it.
                biased;
                Some(news) = news.recv() => self.hear(news),
                ask = asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.registry.handle_timeout(now());
                }
                _ = sweep.tick() => self.sweep(),
            }
            self.flush();
        }
    }

    fn hear(&mut self, news: RoomNews) {
        match news {
            RoomNews::Opened { room, agents, reserved } => {
                self.registry.handle_opened(now(), *room, agents, reserved);
            }
            RoomNews::Event(event) => self.registry.handle_event(now(), &event),
        }
    }

    fn sweep(&mut self) {
        let open: std::collections::HashSet<RoomSid> =
            self.rooms.list().iter().map(|room| room.sid().clone()).collect();
        self.registry.handle_sweep(now(), |sid| open.contains(sid));
    }

    /// Whoever asked may have stopped waiting; that is no loss.
    fn answer(&mut self, ask: Ask) {
        let now = now();
        match ask {
            Ask::Connect { id, key, outbound, reply } => {
                let result = match () {
                    () if self.draining => Err(AgentsError::ShuttingDown),
                    () if self.sockets.len() >= WORKERS_MAX => Err(AgentsError::TooManyWorkers),
                    () => {
                        self.sockets.insert(id.clone(), outbound);
                        self.registry.handle_connected(now, id, key);
                        Ok(())
                    }
                };
                drop(reply.send(result));
            }
            Ask::Message { id, message } => self.registry.handle_message(now, &id, *message),
            Ask::Disconnected { id } => {
                self.sockets.remove(&id);
                self.registry.handle_disconnected(now, &id);
            }
            Ask::Create { sid, room, agent, reply } => drop(reply.send(self.create(now, &sid, room, *agent))),
            Ask::Delete { room, id, reply } => drop(reply.send(self.registry.delete(now, &room, &id))),
            Ask::List { room, reply } => drop(reply.send(self.registry.list(&room))),
            Ask::ResidentStarted { job, result } => {
                let result = result.map(|interview| {
                    self.interviews_of.insert(job.clone(), interview);
                    Identity::from(AGENT_IDENTITY)
                });
                self.registry.handle_resident_started(now, &job, result);
            }
            Ask::ResidentEnded { job, error } => {
                self.interviews_of.remove(&job);
                self.registry.handle_resident_ended(now, &job, error);
            }
            Ask::Shutdown { reply } => {
                self.draining = true;
                for (_, socket) in self.sockets.drain() {
                    // One that is behind is closed by this end being dropped.
                    let _ = socket.try_send(ToWorker::Close("the server is shutting down"));
                }
                let _ = reply.send(());
            }
        }
    }

    fn create(
        &mut self,
        now: Now,
        sid: &RoomSid,
        room: RoomName,
        agent: RoomAgent,
    ) -> Result<proto::AgentDispatch, AgentsError> {
        if self.draining {
            return Err(AgentsError::ShuttingDown);
        }
        // Its news may have been dropped; then this is the first that is heard of it.
        let info =
            proto::Room { sid: sid.as_str().to_owned(), name: room.as_str().to_owned(), ..proto::Room::default() };
        self.registry.handle_opened_late(now, info);
        self.registry.create(now, sid, agent).map_err(|refused| match refused {
            Refused::TooMany => AgentsError::TooManyDispatches,
            Refused::ResidentIsThere => InterviewError::RoomTaken.into(),
        })
    }

    fn flush(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Send { worker, message } => self.send(&worker, *message),
                Output::Assign { worker, job, claims, key } => self.assign(&worker, *job, *claims, &key),
                Output::CloseWorker { worker, reason } => {
                    tracing::info!(worker = %worker, reason, "a worker of agents is closed");
                    if let Some(socket) = self.sockets.remove(&worker) {
                        let _ = socket.try_send(ToWorker::Close(reason));
                    }
                }
                Output::StartResident { job, room, metadata } => self.start_resident(job, room, metadata),
                Output::StopResident { job } => self.stop_resident(&job),
                Output::Expel { room, name, identity } => self.expel(&room, &name, identity),
                Output::Hook(event) => self.tell_hooks(event),
            }
        }
    }

    fn send(&mut self, worker: &AgentWorkerId, message: Message) {
        let Some(socket) = self.sockets.get(worker) else { return };
        let message = Box::new(proto::ServerMessage { message: Some(message) });
        if socket.try_send(ToWorker::Message(message)).is_err() {
            tracing::warn!(worker = %worker, "a worker does not read its messages; its socket is closed");
            self.sockets.remove(worker);
            self.registry.handle_disconnected(now(), worker);
        }
    }

    fn assign(&mut self, worker: &AgentWorkerId, job: proto::Job, claims: Claims, key: &str) {
        match self.keys.mint_by(Some(key), claims, DEFAULT_TTL) {
            Ok(token) => {
                let assignment = proto::JobAssignment { job: Some(job), url: None, token };
                self.send(worker, Message::Assignment(assignment));
            }
            Err(error) => {
                tracing::error!(job = %job.id, %error, "an agent's token could not be made");
                self.registry.handle_unassigned(now(), &JobId::from(job.id));
            }
        }
    }

    fn start_resident(&self, job: JobId, room: RoomName, metadata: String) {
        let (interviews, asks) = (self.interviews.clone(), self.asks.clone());
        tokio::spawn(async move {
            let started = interviews.dispatch(&room, &metadata).await;
            let (result, session) = match started {
                Ok(started) => (Ok(started.id.clone()), Some(started)),
                Err(error) => {
                    tracing::warn!(job = %job, reason = label(&error), "the interviewer could not be dispatched");
                    (Err(error.to_string()), None)
                }
            };
            tell(&asks, Ask::ResidentStarted { job: job.clone(), result }).await;
            let Some(session) = session else { return };
            let ended = session.session.await;
            let reason = interviews.status(&session.id).await.ok().and_then(|interview| interview.end_reason);
            let failed = ended.is_err() || reason == Some(EndReason::Failed);
            tell(&asks, Ask::ResidentEnded { job, error: failed.then(|| "the interview failed".to_owned()) }).await;
        });
    }

    fn stop_resident(&mut self, job: &JobId) {
        let Some(interview) = self.interviews_of.get(job).cloned() else { return };
        let interviews = self.interviews.clone();
        tokio::spawn(async move {
            if let Err(error) = interviews.end_dispatched(&interview).await {
                tracing::warn!(%interview, %error, "an interview whose dispatch is over could not be ended");
            }
        });
    }

    fn expel(&self, sid: &RoomSid, name: &RoomName, identity: Identity) {
        let Some(room) = self.rooms.get(name).filter(|room| room.sid() == sid) else { return };
        // An error says that it is gone already.
        tokio::spawn(async move { room.expel(identity).await });
    }

    /// Never waits, as rooms do not.
    fn tell_hooks(&self, mut event: Box<proto::WebhookEvent>) {
        let Some(hooks) = &self.hooks else { return };
        event.id = HookId::random().as_str().to_owned();
        event.created_at = now().unix_ns / 1_000_000_000;
        if let Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) =
            hooks.try_send(event)
        {
            self.metrics.webhooks.with_label_values(&[event.event.as_str(), "dropped"]).inc();
        }
    }
}

async fn tell(asks: &mpsc::WeakSender<Ask>, ask: Ask) {
    if let Some(asks) = asks.upgrade() {
        // A task that is gone has no jobs.
        let _ = asks.send(ask).await;
    }
}

/// What the log may say of an error: its text can quote metadata.
fn label(error: &InterviewError) -> &'static str {
    match error {
        InterviewError::BadMetadata(_) => "the metadata is not usable",
        InterviewError::UnknownPlan(_) => "there is no such plan",
        InterviewError::UnknownPersona(_) => "there is no such persona",
        InterviewError::BadName(_) => "the name is not usable",
        InterviewError::RoomTaken => "an interview is held in this room already",
        InterviewError::Room(_) => "the room is closed or full",
        InterviewError::Store(_) => "the database failed",
        _ => "the server is stopping",
    }
}

/// Tokio's clock, so that tests can turn it.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::now().into_std(), unix_ns: i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX) }
}
