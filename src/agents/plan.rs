//! Jobs: which are wanted, who is asked for them, how they end. The part of [`Registry`] between rooms and workers.

use std::{collections::BTreeSet, time::Instant};

use livekit_protocol as proto;
use proto::{JobType, ParticipantInfo, WebhookEvent, server_message::Message};

use super::{
    Now, RESIDENT,
    job::{Dispatch, Job, Stage},
    registry::{ANSWER_MAX, JOBS_MAX, Output, Registry, WAIT_MAX, kind_label},
    workers::choose,
};
use crate::{
    auth::RoomAgent,
    id::{AgentWorkerId, DispatchId, JobId, RoomSid},
};

impl Registry {
    pub(super) fn add(&mut self, now: Now, sid: &RoomSid, agent: RoomAgent, automatic: bool) -> DispatchId {
        let id = DispatchId::random();
        if let Some(room) = self.rooms.get_mut(sid) {
            room.dispatches.push(Dispatch { id: id.clone(), agent, created: now, automatic, room_job_made: false });
        }
        id
    }

    /// Makes the jobs that the dispatches of a room want, and asks workers for those that wait.
    pub(super) fn plan(&mut self, now: Now, sid: &RoomSid) {
        let Some(room) = self.rooms.get_mut(sid) else { return };
        let mut wanted = Vec::new();
        for dispatch in &room.dispatches {
            let name = &dispatch.agent.agent_name;
            let theirs = || room.jobs.iter().filter(|job| job.dispatch == dispatch.id);
            if name == RESIDENT {
                if !dispatch.room_job_made {
                    wanted.push((dispatch.id.clone(), JobType::JtRoom, None));
                }
                continue;
            }
            let takes: BTreeSet<i32> =
                self.workers.values().filter_map(|w| w.serves(name)).map(|kind| kind as i32).collect();
            let takes = |kind: JobType| {
                takes.contains(&(kind as i32)) || (takes.is_empty() && !dispatch.automatic && kind == JobType::JtRoom)
            };
            let fresh = |since: Instant| now.at < since + WAIT_MAX;
            if takes(JobType::JtRoom) && fresh(dispatch.created.at) && !dispatch.room_job_made {
                wanted.push((dispatch.id.clone(), JobType::JtRoom, None));
            }
            for guest in room.people.values() {
                let has = |kind| {
                    theirs().any(|job| {
                        job.kind == kind
                            && job.is_about(&guest.info.identity)
                            && (!job.has_ended() || job.target.as_ref().is_some_and(|t| t.sid == guest.info.sid))
                    })
                };
                let since = [(JobType::JtParticipant, Some(guest.joined)), (JobType::JtPublisher, guest.published)];
                for (kind, since) in since {
                    if takes(kind) && since.is_some_and(fresh) && !has(kind) {
                        wanted.push((dispatch.id.clone(), kind, Some(guest.info.clone())));
                    }
                }
            }
        }
        for (dispatch, kind, target) in wanted {
            self.add_job(now, sid, dispatch, kind, target);
        }
        let Some(room) = self.rooms.get(sid) else { return };
        let waiting = room.jobs.iter().filter(|job| job.stage == Stage::Waiting);
        for job in waiting.map(|job| job.id.clone()).collect::<Vec<_>>() {
            self.ask(now, sid, &job);
        }
    }

    fn add_job(
        &mut self,
        now: Now,
        sid: &RoomSid,
        dispatch: DispatchId,
        kind: JobType,
        target: Option<ParticipantInfo>,
    ) {
        let Some(room) = self.rooms.get_mut(sid) else { return };
        if room.jobs.len() >= JOBS_MAX {
            let Some(oldest) = room.jobs.iter().position(Job::has_ended) else {
                tracing::warn!(room = %sid, "this room has as many jobs of agents as it may; a further one is left out");
                return;
            };
            room.jobs.remove(oldest);
        }
        let Some(from) = room.dispatches.iter_mut().find(|d| d.id == dispatch) else { return };
        from.room_job_made |= kind == JobType::JtRoom;
        let agent = from.agent.clone();
        let mut job = Job::new(dispatch, kind, target, now);
        let (id, name) = (job.id.clone(), room.name.clone());
        if agent.agent_name == RESIDENT {
            job.stage = Stage::Resident;
            self.out.push_back(Output::StartResident { job: id.clone(), room: name, metadata: agent.metadata });
        }
        room.jobs.push(job);
        self.jobs.insert(id, sid.clone());
        self.metrics.agent_jobs.with_label_values(&["pending"]).inc();
    }

    /// Asks the best worker whether it takes a job that waits. A job for the room that no worker of that name takes,
    /// since they take others, is not wanted any more.
    pub(super) fn ask(&mut self, now: Now, sid: &RoomSid, id: &JobId) {
        let Some(room) = self.rooms.get_mut(sid) else { return };
        let Some(at) = room.jobs.iter().position(|job| job.id == *id && job.stage == Stage::Waiting) else { return };
        let job = &room.jobs[at];
        let Some(dispatch) = room.dispatches.iter_mut().find(|d| d.id == job.dispatch) else { return };
        let name = &dispatch.agent.agent_name;
        let Some(worker_id) = choose(&self.workers, name, job.kind, &job.tried) else {
            let mut kinds = self.workers.values().filter_map(|w| w.serves(name)).peekable();
            if kinds.peek().is_some() && job.tried.is_empty() && kinds.all(|kind| kind != job.kind) {
                dispatch.room_job_made &= job.kind != JobType::JtRoom;
                room.jobs.remove(at);
                self.jobs.remove(id);
                self.metrics.agent_jobs.with_label_values(&["pending"]).dec();
            }
            return;
        };
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.asked();
        }
        room.jobs[at].stage = Stage::Asked { worker: worker_id.clone(), until: now.at + ANSWER_MAX };
        let job = room.tell_job(&room.jobs[at]);
        let request = proto::AvailabilityRequest { job: Some(job), resuming: false };
        self.out.push_back(Output::Send { worker: worker_id, message: Message::Availability(request).into() });
    }

    /// The agent of a lost worker did not come: somebody else shall.
    pub(super) fn pass_on(&mut self, now: Now, sid: &RoomSid, id: &JobId) {
        let Some(job) = self.job(sid, id) else { return };
        let before = job.label();
        job.stage = Stage::Waiting;
        job.given_up_at = None;
        job.identity = None;
        job.running = false;
        job.created = now;
        let after = job.label();
        self.relabel(before, after);
        self.ask(now, sid, id);
    }

    pub(super) fn run(&mut self, now: Now, sid: &RoomSid, id: &JobId) {
        let Some(job) = self.job(sid, id) else { return };
        let before = job.label();
        let first = job.run(now);
        let after = job.label();
        self.relabel(before, after);
        if first {
            self.hook("agent_job_started", sid, id);
        }
    }

    /// Ends a job that may be with somebody.
    pub(super) fn stop(&mut self, now: Now, sid: &RoomSid, id: &JobId, why: &str) {
        let Some(room) = self.rooms.get(sid) else { return };
        let Some(job) = room.jobs.iter().find(|job| job.id == *id) else { return };
        let error = (!job.was_running()).then(|| why.to_owned());
        match (&job.stage, &job.identity) {
            (Stage::Held { worker: Some(worker) }, _) => {
                let worker = worker.clone();
                self.terminate(worker, id);
            }
            (Stage::Held { worker: None }, Some(identity)) => {
                let (name, identity) = (room.name.clone(), identity.clone());
                self.out.push_back(Output::Expel { room: sid.clone(), name, identity });
            }
            (Stage::Resident, _) => self.out.push_back(Output::StopResident { job: id.clone() }),
            _ => {}
        }
        self.end(now, sid, id, error);
    }

    pub(super) fn terminate(&mut self, worker: AgentWorkerId, id: &JobId) {
        let termination = proto::JobTermination { job_id: id.as_str().to_owned() };
        self.out.push_back(Output::Send { worker, message: Message::Termination(termination).into() });
    }

    pub(super) fn end(&mut self, now: Now, sid: &RoomSid, id: &JobId, error: Option<String>) {
        let Some(job) = self.job(sid, id).filter(|job| !job.has_ended()) else { return };
        let (before, result) = (job.label(), if error.is_some() { "failed" } else { "success" });
        job.end(error, now);
        let (started, kind) = (job.was_running(), job.kind);
        self.jobs.remove(id);
        self.relabel(before, None);
        self.metrics.agent_jobs_ended.with_label_values(&[result]).inc();
        tracing::info!(room = %sid, job = %id, kind = kind_label(kind), result, "a job of an agent ended");
        if started {
            self.hook("agent_job_ended", sid, id);
        }
    }

    fn relabel(&self, before: Option<&str>, after: Option<&str>) {
        if let Some(before) = before {
            self.metrics.agent_jobs.with_label_values(&[before]).dec();
        }
        if let Some(after) = after {
            self.metrics.agent_jobs.with_label_values(&[after]).inc();
        }
    }

    fn hook(&mut self, event: &str, sid: &RoomSid, id: &JobId) {
        let Some(room) = self.rooms.get(sid) else { return };
        let Some(job) = room.jobs.iter().find(|job| job.id == *id) else { return };
        let (event, info, job) = (event.to_owned(), Some(room.info.clone()), Some(room.tell_job(job)));
        self.out.push_back(Output::Hook(Box::new(WebhookEvent { event, room: info, job, ..WebhookEvent::default() })));
    }
}
