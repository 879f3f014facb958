//! What workers say, and what becomes of it: the part of [`Registry`] that faces their sockets.

use livekit_protocol as proto;
use proto::server_message::Message;

use super::{
    Now, RESIDENT,
    job::Stage,
    registry::{ENTER_MAX, JOBS_MAX, Output, Registry, RoomWork, kind_label},
    workers::{Registration, Worker},
};
use crate::{
    auth::Claims,
    id::{AgentWorkerId, Identity, JobId, RoomSid},
};

/// Attributes that mean something to this server.
const OWN_ATTRIBUTES: &str = "viva.";

impl Registry {
    pub fn handle_connected(&mut self, now: Now, id: AgentWorkerId, key: String) {
        self.workers.insert(id, Worker::new(key, now.at));
    }

    /// Its socket is gone. Agents that are in their rooms go on.
    pub fn handle_disconnected(&mut self, now: Now, id: &AgentWorkerId) {
        let Some(worker) = self.workers.remove(id) else { return };
        if let Some(registration) = worker.registration {
            self.metrics.agent_workers.with_label_values(&[kind_label(registration.takes)]).dec();
        }
        let mut waiting = Vec::new();
        for (sid, room) in &mut self.rooms {
            for job in &mut room.jobs {
                match &job.stage {
                    Stage::Asked { worker, .. } if worker == id => {
                        job.stage = Stage::Waiting;
                        waiting.push((sid.clone(), job.id.clone()));
                    }
                    Stage::Held { worker: Some(worker) } if worker == id => {
                        job.stage = Stage::Held { worker: None };
                        job.given_up_at = (!job.present).then(|| now.at + ENTER_MAX);
                    }
                    _ => {}
                }
            }
        }
        for (room, job) in waiting {
            self.ask(now, &room, &job);
        }
    }

    pub(super) fn close_worker(&mut self, now: Now, id: &AgentWorkerId, reason: &'static str) {
        self.out.push_back(Output::CloseWorker { worker: id.clone(), reason });
        self.handle_disconnected(now, id);
    }

    pub fn handle_message(&mut self, now: Now, id: &AgentWorkerId, message: proto::WorkerMessage) {
        use proto::worker_message::Message as Said;
        let Some(worker) = self.workers.get_mut(id) else { return };
        let Some(message) = message.message else { return };
        if worker.registration.is_none() && !matches!(message, Said::Register(_) | Said::Ping(_)) {
            return self.close_worker(now, id, "the first message of a worker is its registration");
        }
        match message {
            Said::Register(request) => self.register(now, id, request),
            Said::Availability(answer) => self.answered(now, id, answer),
            Said::UpdateWorker(status) => {
                if worker.update(&status) {
                    self.offer_what_waits(now, id);
                }
            }
            Said::UpdateJob(update) => self.job_updated(now, id, update),
            Said::Ping(ping) => {
                let pong = proto::WorkerPong { last_timestamp: ping.timestamp, timestamp: now.unix_ns / 1_000_000 };
                self.out.push_back(Output::Send { worker: id.clone(), message: Message::Pong(pong).into() });
            }
            Said::MigrateJob(request) => self.take_up(now, id, request),
            // Only a hosted service simulates jobs.
            Said::SimulateJob(_) => {}
        }
    }

    fn register(&mut self, now: Now, id: &AgentWorkerId, request: proto::RegisterWorkerRequest) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.registration.is_some() {
            return self.close_worker(now, id, "a worker registers once");
        }
        let registration = match Registration::new(request) {
            Ok(registration) => registration,
            Err(reason) => return self.close_worker(now, id, reason),
        };
        self.metrics.agent_workers.with_label_values(&[kind_label(registration.takes)]).inc();
        worker.registration = Some(registration);
        let response = proto::RegisterWorkerResponse {
            worker_id: id.as_str().to_owned(),
            server_info: Some(super::server_info()),
            ..proto::RegisterWorkerResponse::default()
        };
        self.out.push_back(Output::Send { worker: id.clone(), message: Message::Register(response).into() });
        self.offer_what_waits(now, id);
    }

    /// A worker has places that it had not: jobs may be waiting for it.
    fn offer_what_waits(&mut self, now: Now, id: &AgentWorkerId) {
        let Some(registration) = self.workers.get(id).and_then(|w| w.registration.as_ref()) else { return };
        let name = registration.agent_name.clone();
        let wanted = |room: &RoomWork| room.dispatches.iter().any(|d| d.agent.agent_name == name);
        for sid in self.rooms.iter().filter(|(_, room)| wanted(room)).map(|(sid, _)| sid.clone()).collect::<Vec<_>>() {
            self.plan(now, &sid);
        }
    }

    fn answered(&mut self, now: Now, id: &AgentWorkerId, answer: proto::AvailabilityResponse) {
        let job_id = JobId::from(answer.job_id.as_str());
        let Some(sid) = self.jobs.get(&job_id).cloned() else { return };
        let Some(job) = self.job(&sid, &job_id) else { return };
        // Who answers too late was given up on.
        if !matches!(&job.stage, Stage::Asked { worker, .. } if worker == id) {
            return;
        }
        if answer.available && super::fits(&answer) {
            return self.assign(now, &sid, &job_id, id, answer);
        }
        job.tried.insert(id.clone());
        job.stage = Stage::Waiting;
        if answer.terminate {
            return self.end(now, &sid, &job_id, Some("a worker turned this job down for all workers".into()));
        }
        self.ask(now, &sid, &job_id);
    }

    fn assign(
        &mut self,
        now: Now,
        sid: &RoomSid,
        id: &JobId,
        worker_id: &AgentWorkerId,
        answer: proto::AvailabilityResponse,
    ) {
        let Some(room) = self.rooms.get_mut(sid) else { return };
        let Some(worker) = self.workers.get(worker_id) else { return };
        let Some(registration) = &worker.registration else { return };
        let Some(at) = room.jobs.iter().position(|job| job.id == *id) else { return };
        // Who comes by an identity puts out whoever has it.
        let is_taken = |identity: &str| {
            identity == RESIDENT
                || room.people.contains_key(identity)
                || room.jobs.iter().any(|job| {
                    job.id != *id && !job.has_ended() && job.identity.as_ref().is_some_and(|i| i.as_str() == identity)
                })
        };
        let identity = match answer.participant_identity.as_str() {
            identity if identity.is_empty() || is_taken(identity) => Identity::from(format!("agent-{id}")),
            identity => Identity::from(identity),
        };
        let mut claims = Claims::new(&identity, registration.grants(&room.name));
        claims.kind = "agent".to_owned();
        claims.name = answer.participant_name;
        claims.metadata = answer.participant_metadata;
        claims.attributes = answer.participant_attributes;
        // Roles and consent are for people, and not for a worker to give.
        claims.attributes.retain(|key, _| !key.starts_with(OWN_ATTRIBUTES));
        if !registration.agent_name.is_empty() {
            claims.attributes.entry("lk.agent.name".into()).or_insert_with(|| registration.agent_name.clone());
        }
        let job = &mut room.jobs[at];
        job.stage = Stage::Held { worker: Some(worker_id.clone()) };
        job.identity = Some(identity);
        job.touch(now);
        let (worker, key, claims) = (worker_id.clone(), worker.key.clone(), Box::new(claims));
        let job = Box::new(room.tell_job(&room.jobs[at]));
        self.out.push_back(Output::Assign { worker, job, claims, key });
    }

    fn job_updated(&mut self, now: Now, id: &AgentWorkerId, update: proto::UpdateJobStatus) {
        let job_id = JobId::from(update.job_id.as_str());
        let Some(sid) = self.jobs.get(&job_id).cloned() else { return };
        if !self.job(&sid, &job_id).is_some_and(|job| job.is_held_by(id)) {
            return;
        }
        match update.status() {
            proto::JobStatus::JsRunning => self.run(now, &sid, &job_id),
            proto::JobStatus::JsSuccess => self.end(now, &sid, &job_id, None),
            proto::JobStatus::JsFailed => {
                let error: String = update.error.chars().take(super::ERROR_CHARS_MAX).collect();
                let error = if error.is_empty() { "the worker says that the job failed".into() } else { error };
                self.end(now, &sid, &job_id, Some(error));
            }
            proto::JobStatus::JsPending => {}
        }
    }

    /// A worker that was away tells which jobs it still has.
    fn take_up(&mut self, now: Now, id: &AgentWorkerId, request: proto::MigrateJobRequest) {
        let Some(name) = self.workers.get(id).and_then(|w| w.registration.as_ref()).map(|r| r.agent_name.clone())
        else {
            return;
        };
        for job_id in request.job_ids.into_iter().take(JOBS_MAX).map(JobId::from) {
            // One that is not known any more ends with its room, which its agent sees.
            let Some(sid) = self.jobs.get(&job_id).cloned() else { continue };
            let Some(room) = self.rooms.get_mut(&sid) else { continue };
            let named: Vec<_> = room.dispatches.iter().filter(|d| d.agent.agent_name == name).map(|d| &d.id).collect();
            let Some(job) = room.jobs.iter_mut().find(|job| job.id == job_id && named.contains(&&job.dispatch)) else {
                continue;
            };
            if job.stage == (Stage::Held { worker: None }) {
                job.stage = Stage::Held { worker: Some(id.clone()) };
                job.given_up_at = None;
                job.touch(now);
            }
        }
    }
}
