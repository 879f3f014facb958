//! Agents that come into rooms: LiveKit's dispatches, workers and jobs, and our own interviewer as one more agent name.
//!
//! A *dispatch* says that an agent of some name is wanted in a room. It becomes *jobs*, which *workers*, programs that
//! registered by a socket, are asked to take. `registry` decides all of that and is pure; `task` runs it. Agents then
//! join their rooms as any client does, with the token that came with the job.

mod job;
mod plan;
mod registry;
mod talk;
mod task;
#[cfg(test)]
mod tests;
mod workers;

use std::{sync::Arc, time::Instant};

use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};

use self::task::{Ask, Task};
use crate::{
    auth::{ApiKeys, RoomAgent},
    id::{AgentWorkerId, DispatchId, RoomName},
    interview::{AGENT_IDENTITY, InterviewError, Interviews},
    rooms::{HookSender, RoomError, RoomNews, RoomSetup, Rooms},
    telemetry::Metrics,
};

/// The agent name of the server's own interviewer.
pub const RESIDENT: &str = AGENT_IDENTITY;
/// News of all rooms on the way here. The task never waits for anybody, so this holds what comes while it is not
/// scheduled.
pub const NEWS_CAPACITY: usize = 8192;
/// Sockets of workers.
pub const WORKERS_MAX: usize = 1000;
/// What sockets and services ask, on the way to the task; whoever asks waits.
const ASK_CAPACITY: usize = 1024;
/// Messages on the way to one worker. A worker that is this far behind is cut off.
const OUTBOUND_CAPACITY: usize = 256;
/// Longest name of an agent, bytes, and of an agent's identity.
const NAME_BYTES_MAX: usize = 256;
/// Longest name, metadata and attributes that a worker gives its agent, bytes in all.
const DRESS_BYTES_MAX: usize = 64 * 1024;
/// Longest error of a job that is kept.
const ERROR_CHARS_MAX: usize = 300;
/// The worker protocol that is spoken here.
const AGENT_PROTOCOL: i32 = 1;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    at: Instant,
    /// Nanoseconds since 1970, as LiveKit's messages have it.
    unix_ns: i64,
}

/// Why an agent is not sent. The text is for whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    #[error("{0}")]
    TooLarge(&'static str),
    #[error("this room has as many dispatches as it may (64); delete some first")]
    TooManyDispatches,
    #[error("there is no such dispatch in this room")]
    NoDispatch,
    #[error("as many workers are connected as may be (1,000)")]
    TooManyWorkers,
    #[error("the server is stopping: try again in a moment")]
    ShuttingDown,
    #[error(transparent)]
    Interview(#[from] InterviewError),
    #[error(transparent)]
    Room(#[from] RoomError),
}

/// Word to a worker's socket.
#[derive(Debug)]
pub enum ToWorker {
    Message(Box<proto::ServerMessage>),
    /// Close it, for this reason.
    Close(&'static str),
}

/// A worker's socket, as the HTTP side holds it. The worker is gone when this is dropped.
pub struct WorkerLink {
    id: AgentWorkerId,
    /// Ends where the worker is cut off.
    pub outbound: mpsc::Receiver<ToWorker>,
    asks: mpsc::Sender<Ask>,
}

impl WorkerLink {
    pub async fn send(&self, message: proto::WorkerMessage) {
        // A task that is gone has closed `outbound`.
        let _ = self.asks.send(Ask::Message { id: self.id.clone(), message: Box::new(message) }).await;
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        let ask = Ask::Disconnected { id: self.id.clone() };
        let Err(mpsc::error::TrySendError::Full(ask)) = self.asks.try_send(ask) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let asks = self.asks.clone();
            runtime.spawn(async move { asks.send(ask).await });
        }
    }
}

/// All agents of this server. Cheap clone.
#[derive(Clone)]
pub struct Agents {
    asks: mpsc::Sender<Ask>,
    rooms: Rooms,
    interviews: Interviews,
}

impl Agents {
    /// Must be called inside a tokio runtime. `news`: of all rooms, from before the first one is made.
    pub fn start(
        news: mpsc::Receiver<RoomNews>,
        rooms: Rooms,
        interviews: Interviews,
        keys: Arc<ApiKeys>,
        hooks: Option<HookSender>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (asks, inbox) = mpsc::channel(ASK_CAPACITY);
        let task = Task::new(asks.downgrade(), rooms.clone(), interviews.clone(), keys, hooks, metrics);
        tokio::spawn(task.run(news, inbox));
        Self { asks, rooms, interviews }
    }

    /// Whether these agents could be sent into a room of this name: what can be known before it is made.
    pub fn check(&self, room: &RoomName, agents: &[RoomAgent]) -> Result<(), AgentsError> {
        crate::auth::check_agents(agents).map_err(AgentsError::TooLarge)?;
        for agent in agents.iter().filter(|agent| agent.agent_name == RESIDENT) {
            self.interviews.check_dispatch(room, &agent.metadata)?;
        }
        Ok(())
    }

    /// Sends an agent into a room, which is made if there is none, and then counts as one of this API key's.
    pub async fn create_dispatch(
        &self,
        room: &RoomName,
        agent: RoomAgent,
        key: &str,
    ) -> Result<proto::AgentDispatch, AgentsError> {
        self.check(room, std::slice::from_ref(&agent))?;
        let sid = self.rooms.open_by(room, RoomSetup::default(), Some(key))?.0.sid().clone();
        let (room, agent) = (room.clone(), Box::new(agent));
        self.ask(|reply| Ask::Create { sid, room, agent, reply }).await?
    }

    /// Takes a dispatch back; its agents leave.
    pub async fn delete_dispatch(&self, room: &RoomName, id: &DispatchId) -> Result<proto::AgentDispatch, AgentsError> {
        let (room, id) = (room.clone(), id.clone());
        self.ask(|reply| Ask::Delete { room, id, reply }).await?.ok_or(AgentsError::NoDispatch)
    }

    /// The dispatches of a room and their jobs.
    pub async fn dispatches(&self, room: &RoomName) -> Result<Vec<proto::AgentDispatch>, AgentsError> {
        let name = room.clone();
        let listed = self.ask(|reply| Ask::List { room: name, reply }).await?;
        listed.ok_or(AgentsError::Room(RoomError::NotFound))
    }

    /// A worker's socket is about to open. `key`: the API key of its token.
    pub async fn connect(&self, key: String) -> Result<WorkerLink, AgentsError> {
        let (tx, outbound) = mpsc::channel(OUTBOUND_CAPACITY);
        let id = AgentWorkerId::random();
        let worker = id.clone();
        self.ask(|reply| Ask::Connect { id: worker, key, outbound: tx, reply }).await??;
        Ok(WorkerLink { id, outbound, asks: self.asks.clone() })
    }

    /// Closes the sockets of all workers; no dispatch can be made afterwards.
    pub async fn shutdown(&self) {
        // An error says that it is down already.
        let _ = self.ask(|reply| Ask::Shutdown { reply }).await;
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, AgentsError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| AgentsError::ShuttingDown)?;
        answer.await.map_err(|_| AgentsError::ShuttingDown)
    }
}

/// Whether what a worker wants its agent to be is within bounds.
fn fits(answer: &proto::AvailabilityResponse) -> bool {
    let attributes: usize = answer.participant_attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    answer.participant_identity.len() <= NAME_BYTES_MAX
        && answer.participant_name.len() + answer.participant_metadata.len() + attributes <= DRESS_BYTES_MAX
}

fn server_info() -> proto::ServerInfo {
    proto::ServerInfo { agent_protocol: AGENT_PROTOCOL, ..crate::rooms::server_info() }
}
