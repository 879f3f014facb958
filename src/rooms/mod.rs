//! The control plane: who is in which room, what they publish, who may hear it.
//!
//! A room is one task that owns its state; [`RoomHandle`] is its mailbox. Rooms speak LiveKit's data model
//! (`livekit_protocol`), and are the only holders of worker handles.

mod agent;

use std::sync::Arc;

pub use agent::{AgentEvent, AgentOptions, AgentParticipant, Person};
use tokio::sync::mpsc;

use crate::{
    id::{Identity, RoomName, RoomSid},
    sfu,
    telemetry::Metrics,
    worker::WorkerHandle,
};

#[derive(Clone)]
pub struct Rooms {}

#[derive(Clone)]
pub struct RoomHandle {}

#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    #[error("the room is closed")]
    Closed,
    #[error("this server holds as many rooms as it may (rooms.max_rooms)")]
    TooManyRooms,
}

impl Rooms {
    pub fn new(_config: (), _workers: Vec<(WorkerHandle, mpsc::Receiver<sfu::Event>)>, _metrics: Arc<Metrics>) -> Self {
        todo!()
    }

    /// The room of this name, made if there is none.
    pub fn open(&self, _name: &RoomName) -> Result<RoomHandle, RoomError> {
        todo!()
    }

    pub fn get(&self, _name: &RoomName) -> Option<RoomHandle> {
        todo!()
    }
}

impl RoomHandle {
    pub fn name(&self) -> &RoomName {
        todo!()
    }

    pub fn sid(&self) -> &RoomSid {
        todo!()
    }

    pub async fn join_agent(&self, _options: AgentOptions) -> Result<AgentParticipant, RoomError> {
        todo!()
    }

    /// Whether this person's microphone may be tapped; not allowed until said. Returns after the media worker was told.
    pub async fn allow_tap(&self, _identity: &Identity, _allowed: bool) -> Result<(), RoomError> {
        todo!()
    }

    pub async fn close(&self) {
        todo!()
    }
}
