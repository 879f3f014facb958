//! One agent's work in a room, and the dispatch that it comes from. Pure.

use std::{collections::HashSet, time::Instant};

use livekit_protocol as proto;
use proto::{JobStatus, JobType, ParticipantInfo};

use super::Now;
use crate::{
    auth::RoomAgent,
    id::{AgentWorkerId, DispatchId, Identity, JobId},
};

/// That an agent is wanted in a room.
pub(super) struct Dispatch {
    pub id: DispatchId,
    pub agent: RoomAgent,
    pub created: Now,
    /// Nobody asked for it: unnamed agents come to every room.
    pub automatic: bool,
    /// It had its job for the room. That job may be forgotten by now; a second one is never made.
    pub room_job_made: bool,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No worker has it.
    Waiting,
    /// A worker was asked, and has until then to answer.
    Asked {
        worker: AgentWorkerId,
        until: Instant,
    },
    /// A worker has it; `None`: its socket was lost.
    Held {
        worker: Option<AgentWorkerId>,
    },
    /// The server's own interviewer has it.
    Resident,
    Ended {
        error: Option<String>,
    },
}

pub(super) struct Job {
    pub id: JobId,
    pub dispatch: DispatchId,
    pub kind: JobType,
    /// Whom it is about: a publisher or a participant.
    pub target: Option<ParticipantInfo>,
    pub created: Now,
    pub stage: Stage,
    /// Workers that turned it down, or did not answer.
    pub tried: HashSet<AgentWorkerId>,
    /// The agent's, as soon as somebody has the job.
    pub identity: Option<Identity>,
    /// The agent is in the room.
    pub present: bool,
    /// An agent works on it.
    pub running: bool,
    /// The worker that has it was lost before the agent was in the room; it goes to another one then.
    pub given_up_at: Option<Instant>,
    started_ns: i64,
    ended_ns: i64,
    updated_ns: i64,
}

impl Job {
    pub fn new(dispatch: DispatchId, kind: JobType, target: Option<ParticipantInfo>, now: Now) -> Self {
        Self {
            id: JobId::random(),
            dispatch,
            kind,
            target,
            created: now,
            stage: Stage::Waiting,
            tried: HashSet::new(),
            identity: None,
            present: false,
            running: false,
            given_up_at: None,
            started_ns: 0,
            ended_ns: 0,
            updated_ns: now.unix_ns,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended { .. })
    }

    pub fn is_held_by(&self, worker: &AgentWorkerId) -> bool {
        matches!(&self.stage, Stage::Held { worker: Some(holder) } if holder == worker)
    }

    pub fn is_about(&self, identity: &str) -> bool {
        self.target.as_ref().is_some_and(|target| target.identity == identity)
    }

    /// As metrics call it; `None`: it is over.
    pub fn label(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Ended { .. } => None,
            _ if self.running => Some("running"),
            _ => Some("pending"),
        }
    }

    /// An agent works on it from now on; false where one did already.
    pub fn run(&mut self, now: Now) -> bool {
        self.updated_ns = now.unix_ns;
        self.given_up_at = None;
        let first = self.started_ns == 0;
        if first {
            self.started_ns = now.unix_ns;
        }
        self.running = true;
        first
    }

    pub fn touch(&mut self, now: Now) {
        self.updated_ns = now.unix_ns;
    }

    pub fn end(&mut self, error: Option<String>, now: Now) {
        self.stage = Stage::Ended { error };
        self.ended_ns = now.unix_ns;
        self.updated_ns = now.unix_ns;
    }

    pub fn was_running(&self) -> bool {
        self.started_ns > 0
    }

    /// As workers and services see it.
    pub fn info(&self, room: &proto::Room, agent: &RoomAgent) -> proto::Job {
        let (status, error) = match &self.stage {
            Stage::Ended { error: Some(error) } => (JobStatus::JsFailed, error.clone()),
            Stage::Ended { error: None } => (JobStatus::JsSuccess, String::new()),
            _ if self.running => (JobStatus::JsRunning, String::new()),
            _ => (JobStatus::JsPending, String::new()),
        };
        let worker = match &self.stage {
            Stage::Held { worker: Some(worker) } => worker.as_str(),
            _ => "",
        };
        let state = proto::JobState {
            status: status as i32,
            error,
            started_at: self.started_ns,
            ended_at: self.ended_ns,
            updated_at: self.updated_ns,
            participant_identity: self.identity.as_ref().map_or("", Identity::as_str).to_owned(),
            worker_id: worker.to_owned(),
            ..proto::JobState::default()
        };
        proto::Job {
            id: self.id.as_str().to_owned(),
            dispatch_id: self.dispatch.as_str().to_owned(),
            r#type: self.kind as i32,
            room: Some(room.clone()),
            participant: self.target.clone(),
            metadata: agent.metadata.clone(),
            attributes: agent.attributes.clone(),
            agent_name: agent.agent_name.clone(),
            state: Some(state),
            ..proto::Job::default()
        }
    }
}

/// What a job says of the person that it is about.
pub(super) fn target(info: &ParticipantInfo) -> ParticipantInfo {
    ParticipantInfo {
        sid: info.sid.clone(),
        identity: info.identity.clone(),
        name: info.name.clone(),
        metadata: info.metadata.clone(),
        attributes: info.attributes.clone(),
        state: info.state,
        kind: info.kind,
        joined_at: info.joined_at,
        joined_at_ms: info.joined_at_ms,
        permission: info.permission.clone(),
        ..ParticipantInfo::default()
    }
}
