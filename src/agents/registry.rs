//! Who wants which agent where, and who runs it: a pure machine.
//!
//! Inputs are `handle_*` and the requests of services; then drain `poll_output` and wait until `poll_timeout`. Its parts
//! are here what rooms and services say, in `talk` what workers say, and in `plan` what becomes of jobs.
//!
//! Invariants: a job is with one worker at a time; a worker is asked for a job once; a room that is closed has no jobs
//! left, and neither has a dispatch that was deleted.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use livekit_protocol as proto;
use proto::{JobType, ParticipantInfo, WebhookEvent, server_message::Message};

use super::{
    Now, RESIDENT,
    job::{Dispatch, Job, Stage, target},
    workers::Worker,
};
use crate::{
    auth::{Claims, RoomAgent},
    id::{AgentWorkerId, DispatchId, Identity, JobId, RoomName, RoomSid},
    telemetry::Metrics,
};

/// How long a worker may think about a job, and about what it is.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a job waits for a worker that takes it.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// How long an agent whose worker was lost may take to enter the room, before its job goes to another worker.
pub(super) const ENTER_MAX: Duration = Duration::from_secs(10);
/// Dispatches of one room.
pub(super) const DISPATCHES_MAX: usize = 64;
/// Jobs of one room, those that are over included: the oldest of these go first.
pub(super) const JOBS_MAX: usize = 256;

/// What the machine wants done, in order.
pub(super) enum Output {
    Send {
        worker: AgentWorkerId,
        message: Box<Message>,
    },
    /// The worker has the job: its agent gets a token with these claims, signed by this key.
    Assign {
        worker: AgentWorkerId,
        job: Box<proto::Job>,
        claims: Box<Claims>,
        key: String,
    },
    CloseWorker {
        worker: AgentWorkerId,
        reason: &'static str,
    },
    /// The server's own interviewer is wanted.
    StartResident {
        job: JobId,
        room: RoomName,
        metadata: String,
    },
    StopResident {
        job: JobId,
    },
    /// An agent whose worker nobody reaches is taken out of the room.
    Expel {
        room: RoomSid,
        name: RoomName,
        identity: Identity,
    },
    Hook(Box<WebhookEvent>),
}

/// Why a dispatch cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    TooMany,
    ResidentIsThere,
}

pub(super) struct RoomWork {
    pub name: RoomName,
    pub info: proto::Room,
    pub dispatches: Vec<Dispatch>,
    pub jobs: Vec<Job>,
    /// People who are here, by identity.
    pub people: BTreeMap<String, Guest>,
}

/// Somebody whom agents may be about.
pub(super) struct Guest {
    pub info: ParticipantInfo,
    pub joined: Instant,
    pub published: Option<Instant>,
}

pub(super) struct Registry {
    pub(super) workers: BTreeMap<AgentWorkerId, Worker>,
    pub(super) rooms: HashMap<RoomSid, RoomWork>,
    /// Rooms of jobs that are not over.
    pub(super) jobs: HashMap<JobId, RoomSid>,
    pub(super) out: VecDeque<Output>,
    pub(super) metrics: Arc<Metrics>,
}

impl Registry {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (workers, rooms, jobs, out) = Default::default();
        Self { workers, rooms, jobs, out, metrics }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Registry::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.workers.values().filter(|w| w.registration.is_none()).map(|w| w.connected + ANSWER_MAX);
        let jobs = self.rooms.values().flat_map(|room| &room.jobs).filter_map(deadline);
        silent.chain(jobs).min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        let silent = |w: &Worker| w.registration.is_none() && now.at >= w.connected + ANSWER_MAX;
        let silent: Vec<_> = self.workers.iter().filter(|(_, w)| silent(w)).map(|(id, _)| id.clone()).collect();
        for worker in silent {
            self.close_worker(now, &worker, "a worker registers within ten seconds");
        }
        let due = |job: &&Job| deadline(job).is_some_and(|at| now.at >= at);
        let due: Vec<(RoomSid, JobId)> = self
            .rooms
            .iter()
            .flat_map(|(sid, room)| room.jobs.iter().filter(due).map(|job| (sid.clone(), job.id.clone())))
            .collect();
        for (room, id) in due {
            let Some(job) = self.job(&room, &id) else { continue };
            match job.stage.clone() {
                Stage::Waiting => {
                    self.end(now, &room, &id, Some("no worker took this job within five minutes".into()));
                }
                Stage::Asked { worker, .. } => {
                    job.tried.insert(worker);
                    job.stage = Stage::Waiting;
                    self.ask(now, &room, &id);
                }
                Stage::Held { .. } => self.pass_on(now, &room, &id),
                Stage::Resident | Stage::Ended { .. } => {}
            }
        }
    }

    // Rooms

    /// A room was made. `reserved`: unnamed agents stay out of it.
    pub fn handle_opened(&mut self, now: Now, info: proto::Room, agents: Vec<RoomAgent>, reserved: bool) {
        let sid = RoomSid::from(info.sid.as_str());
        let name = RoomName::from(info.name.as_str());
        self.rooms.entry(sid.clone()).or_insert_with(|| RoomWork {
            name,
            info,
            dispatches: Vec::new(),
            jobs: Vec::new(),
            people: BTreeMap::new(),
        });
        let unnamed = agents.iter().any(|agent| agent.agent_name.is_empty());
        for agent in agents {
            self.add(now, &sid, agent, false);
        }
        if !reserved && !unnamed {
            self.add(now, &sid, RoomAgent::default(), true);
        }
        self.plan(now, &sid);
    }

    /// A room that nobody told of.
    pub fn handle_opened_late(&mut self, now: Now, info: proto::Room) {
        if !self.rooms.contains_key(&RoomSid::from(info.sid.as_str())) {
            self.handle_opened(now, info, Vec::new(), true);
        }
    }

    /// Something happened in a room.
    pub fn handle_event(&mut self, now: Now, event: &WebhookEvent) {
        let Some(info) = &event.room else { return };
        let sid = RoomSid::from(info.sid.as_str());
        let Some(room) = self.rooms.get_mut(&sid) else { return };
        // Events of tracks only name it.
        if info.creation_time > 0 {
            room.info = info.clone();
        }
        if event.event == "room_finished" {
            return self.close_room(now, &sid);
        }
        let Some(participant) = &event.participant else { return };
        let is_agent = participant.kind() == proto::participant_info::Kind::Agent;
        match event.event.as_str() {
            "participant_joined" if is_agent => self.agent_joined(now, &sid, &participant.identity),
            "participant_left" if is_agent => self.agent_left(now, &sid, participant),
            "participant_joined" if is_guest(participant) => {
                let guest = Guest { info: target(participant), joined: now.at, published: None };
                room.people.insert(participant.identity.clone(), guest);
                self.plan(now, &sid);
            }
            "participant_left" => {
                let theirs = |guest: &Guest| guest.info.sid == participant.sid;
                if room.people.get(&participant.identity).is_some_and(theirs) {
                    room.people.remove(&participant.identity);
                }
            }
            "track_published" => {
                let Some(guest) = room.people.get_mut(&participant.identity) else { return };
                if guest.published.replace(now.at).is_none() {
                    self.plan(now, &sid);
                }
            }
            _ => {}
        }
    }

    /// Rooms of which nothing was heard any more are forgotten.
    pub fn handle_sweep(&mut self, now: Now, is_open: impl Fn(&RoomSid) -> bool) {
        for sid in self.rooms.keys().filter(|sid| !is_open(sid)).cloned().collect::<Vec<_>>() {
            self.close_room(now, &sid);
        }
    }

    fn close_room(&mut self, now: Now, sid: &RoomSid) {
        let Some(room) = self.rooms.get(sid) else { return };
        for id in room.jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>() {
            self.stop(now, sid, &id, "the room was closed");
        }
        self.rooms.remove(sid);
    }

    fn agent_joined(&mut self, now: Now, sid: &RoomSid, identity: &str) {
        let Some(id) = self.job_of(sid, identity) else { return };
        if let Some(job) = self.job(sid, &id) {
            job.present = true;
        }
        self.run(now, sid, &id);
    }

    fn agent_left(&mut self, now: Now, sid: &RoomSid, participant: &ParticipantInfo) {
        // The same agent by a new connection.
        if participant.disconnect_reason() == proto::DisconnectReason::DuplicateIdentity {
            return;
        }
        let Some(id) = self.job_of(sid, &participant.identity) else { return };
        let Some(job) = self.job(sid, &id) else { return };
        // Of the server's own, the session says how it ended.
        if let Stage::Held { worker } = job.stage.clone() {
            if let Some(worker) = worker {
                self.terminate(worker, &id);
            }
            self.end(now, sid, &id, None);
        }
    }

    // Requests of services

    /// Sends an agent into a room.
    pub fn create(&mut self, now: Now, sid: &RoomSid, agent: RoomAgent) -> Result<proto::AgentDispatch, Refused> {
        let Some(room) = self.rooms.get(sid) else { return Err(Refused::TooMany) };
        if room.dispatches.iter().filter(|d| !d.automatic).count() >= DISPATCHES_MAX {
            return Err(Refused::TooMany);
        }
        if agent.agent_name == RESIDENT && room.jobs.iter().any(|job| job.stage == Stage::Resident) {
            return Err(Refused::ResidentIsThere);
        }
        let id = self.add(now, sid, agent, false);
        self.plan(now, sid);
        let found =
            self.rooms.get(sid).and_then(|room| room.dispatches.iter().find(|d| d.id == id).map(|d| room.tell(d)));
        found.ok_or(Refused::TooMany)
    }

    /// Takes a dispatch back: its agents leave.
    pub fn delete(&mut self, now: Now, name: &RoomName, id: &DispatchId) -> Option<proto::AgentDispatch> {
        let (sid, room) = self.rooms.iter().find(|(_, room)| room.name == *name)?;
        let sid = sid.clone();
        room.dispatches.iter().find(|d| d.id == *id)?;
        let theirs: Vec<_> = room.jobs.iter().filter(|job| job.dispatch == *id).map(|job| job.id.clone()).collect();
        for job in theirs {
            self.stop(now, &sid, &job, "the dispatch was deleted");
        }
        let room = self.rooms.get_mut(&sid)?;
        let at = room.dispatches.iter().position(|d| d.id == *id)?;
        let mut told = room.tell(&room.dispatches[at]);
        if let Some(state) = &mut told.state {
            state.deleted_at = now.unix_ns;
        }
        room.dispatches.remove(at);
        room.jobs.retain(|job| job.dispatch != *id);
        Some(told)
    }

    /// The dispatches of a room; `None`: there is no such room. Those that nobody made are told once they have jobs.
    pub fn list(&self, name: &RoomName) -> Option<Vec<proto::AgentDispatch>> {
        let room = self.rooms.values().find(|room| room.name == *name)?;
        let told = |d: &&Dispatch| !d.automatic || room.jobs.iter().any(|job| job.dispatch == d.id);
        Some(room.dispatches.iter().filter(told).map(|d| room.tell(d)).collect())
    }

    /// The worker that has this job cannot be given it: no token could be made for its agent.
    pub fn handle_unassigned(&mut self, now: Now, id: &JobId) {
        if let Some(room) = self.jobs.get(id).cloned() {
            self.end(now, &room, id, Some("no token could be made for the agent; see the server's log".into()));
        }
    }

    // The server's own interviewer

    pub fn handle_resident_started(&mut self, now: Now, id: &JobId, result: Result<Identity, String>) {
        let Some(room) = self.jobs.get(id).cloned() else {
            // It was called off meanwhile.
            return self.out.push_back(Output::StopResident { job: id.clone() });
        };
        match result {
            Ok(identity) => {
                if let Some(job) = self.job(&room, id) {
                    job.identity = Some(identity);
                }
                self.run(now, &room, id);
            }
            Err(error) => self.end(now, &room, id, Some(error)),
        }
    }

    pub fn handle_resident_ended(&mut self, now: Now, id: &JobId, error: Option<String>) {
        if let Some(room) = self.jobs.get(id).cloned() {
            self.end(now, &room, id, error);
        }
    }

    pub(super) fn job(&mut self, room: &RoomSid, id: &JobId) -> Option<&mut Job> {
        self.rooms.get_mut(room)?.jobs.iter_mut().find(|job| job.id == *id)
    }

    /// The job, not over yet, whose agent has this identity.
    fn job_of(&self, room: &RoomSid, identity: &str) -> Option<JobId> {
        let theirs = |job: &&Job| !job.has_ended() && job.identity.as_ref().is_some_and(|i| i.as_str() == identity);
        self.rooms.get(room)?.jobs.iter().find(theirs).map(|job| job.id.clone())
    }
}

impl RoomWork {
    fn tell(&self, dispatch: &Dispatch) -> proto::AgentDispatch {
        let jobs = self.jobs.iter().filter(|job| job.dispatch == dispatch.id).map(|job| self.tell_job(job));
        proto::AgentDispatch {
            id: dispatch.id.as_str().to_owned(),
            agent_name: dispatch.agent.agent_name.clone(),
            room: self.name.as_str().to_owned(),
            metadata: dispatch.agent.metadata.clone(),
            attributes: dispatch.agent.attributes.clone(),
            state: Some(proto::AgentDispatchState {
                jobs: jobs.collect(),
                created_at: dispatch.created.unix_ns,
                deleted_at: 0,
            }),
            ..proto::AgentDispatch::default()
        }
    }

    pub fn tell_job(&self, job: &Job) -> proto::Job {
        let none = RoomAgent::default();
        let agent = self.dispatches.iter().find(|d| d.id == job.dispatch).map_or(&none, |d| &d.agent);
        job.info(&self.info, agent)
    }
}

/// Whom agents may be about: nobody who is hidden, no recorder.
fn is_guest(participant: &ParticipantInfo) -> bool {
    use proto::participant_info::Kind;
    !matches!(participant.kind(), Kind::Agent | Kind::Egress)
        && !participant.permission.as_ref().is_some_and(|p| p.hidden)
}

/// When something must be done about a job.
fn deadline(job: &Job) -> Option<Instant> {
    match &job.stage {
        Stage::Waiting => Some(job.created.at + WAIT_MAX),
        Stage::Asked { until, .. } => Some(*until),
        Stage::Held { worker: None } => job.given_up_at,
        Stage::Held { .. } | Stage::Resident | Stage::Ended { .. } => None,
    }
}

pub(super) fn kind_label(kind: JobType) -> &'static str {
    match kind {
        JobType::JtRoom => "room",
        JobType::JtPublisher => "publisher",
        JobType::JtParticipant => "participant",
    }
}
