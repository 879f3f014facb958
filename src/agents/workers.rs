//! Programs that run agents, as far as the server knows them: what they take, and how busy they are. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use livekit_protocol as proto;
use proto::JobType;

use super::NAME_BYTES_MAX;
use crate::{auth::Grants, id::AgentWorkerId, id::RoomName};

/// How much one job weighs that a worker was asked to take since it last told its load: a burst then does not go to one
/// worker.
const ASKED_WEIGHT: f32 = 0.1;

/// A worker's socket, and what was said on it.
pub(super) struct Worker {
    /// The API key of its token: its agents' tokens are made with it.
    pub key: String,
    pub connected: Instant,
    /// `None` until it has said what it is.
    pub registration: Option<Registration>,
    full: bool,
    /// 0 to 1, by its own measure.
    load: f32,
    /// Jobs that it was asked to take since it told its load.
    asked: u16,
}

pub(super) struct Registration {
    pub takes: JobType,
    pub agent_name: String,
    permissions: Option<proto::ParticipantPermission>,
}

impl Registration {
    /// An error says why a worker cannot register so.
    pub fn new(request: proto::RegisterWorkerRequest) -> Result<Self, &'static str> {
        if request.agent_name == super::RESIDENT {
            return Err("this agent name is the server's own interviewer; choose another one");
        }
        if request.agent_name.len() > NAME_BYTES_MAX {
            return Err("the agent's name is longer than 256 bytes");
        }
        let takes = JobType::try_from(request.r#type).map_err(|_| "this type of job is not known here")?;
        Ok(Self { takes, agent_name: request.agent_name, permissions: request.allowed_permissions })
    }

    /// What an agent of this worker may do in the room.
    pub fn grants(&self, room: &RoomName) -> Grants {
        let mut grants = Grants { agent: true, ..Grants::participant(room) };
        if let Some(may) = &self.permissions {
            grants.can_publish = Some(may.can_publish);
            grants.can_subscribe = Some(may.can_subscribe);
            grants.can_publish_data = Some(may.can_publish_data);
            grants.can_update_own_metadata = Some(may.can_update_metadata);
            grants.hidden = may.hidden;
            let sources = may.can_publish_sources.iter().filter_map(|s| proto::TrackSource::try_from(*s).ok());
            grants.can_publish_sources = sources.map(|source| source.as_str_name().to_ascii_lowercase()).collect();
        }
        grants
    }
}

impl Worker {
    pub fn new(key: String, now: Instant) -> Self {
        Self { key, connected: now, registration: None, full: false, load: 0.0, asked: 0 }
    }

    /// Takes what it says of itself; true where it may be asked again.
    pub fn update(&mut self, status: &proto::UpdateWorkerStatus) -> bool {
        let was_full = self.full;
        if let Some(status) = status.status {
            self.full = status == proto::WorkerStatus::WsFull as i32;
        }
        self.full |= status.draining;
        self.load = if status.load.is_finite() { status.load.clamp(0.0, 1.0) } else { 1.0 };
        self.asked = 0;
        was_full && !self.full
    }

    pub fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    pub fn serves(&self, agent_name: &str) -> Option<JobType> {
        self.registration.as_ref().filter(|r| r.agent_name == agent_name).map(|r| r.takes)
    }

    fn busyness(&self) -> f32 {
        self.load + ASKED_WEIGHT * f32::from(self.asked)
    }
}

/// The least busy worker that takes such jobs, has a place and was not tried.
pub(super) fn choose(
    workers: &BTreeMap<AgentWorkerId, Worker>,
    agent_name: &str,
    kind: JobType,
    tried: &HashSet<AgentWorkerId>,
) -> Option<AgentWorkerId> {
    let fit = |(id, worker): &(&AgentWorkerId, &Worker)| {
        worker.serves(agent_name) == Some(kind) && !worker.full && !tried.contains(*id)
    };
    let least = workers.iter().filter(fit).min_by(|(_, a), (_, b)| a.busyness().total_cmp(&b.busyness()));
    least.map(|(id, _)| id.clone())
}
