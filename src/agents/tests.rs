//! Stories of rooms, workers and their jobs, in virtual time.

use std::{sync::Arc, time::Duration};

use livekit_protocol as proto;
use proto::{
    DisconnectReason, JobStatus, JobType, ParticipantInfo, WebhookEvent, participant_info::Kind,
    server_message::Message as Told, worker_message::Message as Said,
};

use super::{
    Now, RESIDENT,
    registry::{ANSWER_MAX, DISPATCHES_MAX, JOBS_MAX, Output, Refused, Registry, WAIT_MAX},
};
use crate::{
    auth::{Claims, RoomAgent},
    id::{AgentWorkerId, DispatchId, JobId},
    telemetry::Metrics,
};

struct Story {
    registry: Registry,
    now: Now,
    metrics: Arc<Metrics>,
}

/// What came out, in words.
type Seen = Vec<String>;

fn agent(name: &str) -> RoomAgent {
    RoomAgent { agent_name: name.into(), metadata: "for the agent".into(), ..RoomAgent::default() }
}

fn room() -> proto::Room {
    proto::Room { sid: "RM_1".into(), name: "room".into(), creation_time: 1, ..Default::default() }
}

fn person(identity: &str, kind: Kind) -> ParticipantInfo {
    let (sid, identity) = (format!("PA_{identity}"), identity.to_owned());
    ParticipantInfo { sid, identity, kind: kind as i32, ..Default::default() }
}

impl Story {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new());
        let now = Now { at: std::time::Instant::now(), unix_ns: 1_800_000_000_000_000_000 };
        Self { registry: Registry::new(metrics.clone()), now, metrics }
    }

    /// With a room in which these agents are wanted.
    fn with_room(agents: &[&str]) -> Self {
        let mut story = Self::new();
        let agents = agents.iter().map(|name| agent(name)).collect();
        story.registry.handle_opened(story.now, room(), agents, false);
        story
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_ns += i64::try_from(time.as_nanos()).unwrap();
        self.registry.handle_timeout(self.now);
    }

    fn connect(&mut self, worker: &str) {
        self.registry.handle_connected(self.now, worker.into(), "key".into());
    }

    fn register(&mut self, worker: &str, agent_name: &str, takes: JobType) {
        self.connect(worker);
        let request =
            proto::RegisterWorkerRequest { r#type: takes as i32, agent_name: agent_name.into(), ..Default::default() };
        self.says(worker, Said::Register(request));
    }

    fn says(&mut self, worker: &str, message: Said) {
        let message = proto::WorkerMessage { message: Some(message) };
        self.registry.handle_message(self.now, &worker.into(), message);
    }

    fn is_full(&mut self, worker: &str, full: bool) {
        let status = proto::UpdateWorkerStatus { status: Some(full.into()), ..Default::default() };
        self.says(worker, Said::UpdateWorker(status));
    }

    fn answers(&mut self, worker: &str, job: &str, available: bool) {
        let answer = proto::AvailabilityResponse { job_id: job.into(), available, ..Default::default() };
        self.says(worker, Said::Availability(answer));
    }

    fn reports(&mut self, worker: &str, job: &str, status: JobStatus) {
        let update = proto::UpdateJobStatus { job_id: job.into(), status: status as i32, ..Default::default() };
        self.says(worker, Said::UpdateJob(update));
    }

    fn event(&mut self, event: &str, participant: ParticipantInfo) {
        let event = WebhookEvent {
            event: event.into(),
            room: Some(room()),
            participant: Some(participant),
            ..Default::default()
        };
        self.registry.handle_event(self.now, &event);
    }

    fn finish_room(&mut self) {
        let event = WebhookEvent { event: "room_finished".into(), room: Some(room()), ..Default::default() };
        self.registry.handle_event(self.now, &event);
    }

    fn look(&mut self) -> Seen {
        std::iter::from_fn(|| self.registry.poll_output()).map(|output| words(&output)).collect()
    }

    /// The status and the error of each job of the room.
    fn jobs(&self) -> Vec<(JobStatus, String)> {
        let dispatches = self.registry.list(&"room".into()).expect("the room is known");
        let states = dispatches.into_iter().flat_map(|d| d.state.unwrap().jobs).map(|job| job.state.unwrap());
        states.map(|state| (state.status(), state.error)).collect()
    }

    fn job(&self, index: usize) -> String {
        let dispatches = self.registry.list(&"room".into()).expect("the room is known");
        dispatches.into_iter().flat_map(|d| d.state.unwrap().jobs).nth(index).expect("there is such a job").id
    }

    fn waits(&self) -> Option<Duration> {
        self.registry.poll_timeout().map(|at| at - self.now.at)
    }

    fn counted(&self, state: &str) -> i64 {
        self.metrics.agent_jobs.with_label_values(&[state]).get()
    }
}

/// One output in a few words.
fn words(output: &Output) -> String {
    let told = |worker: &AgentWorkerId, message: &Told| match message {
        Told::Register(r) => format!("{worker} is registered as {}", r.worker_id),
        Told::Availability(a) => format!("{worker} is asked{}", about(a.job.as_ref().unwrap())),
        Told::Termination(_) => format!("{worker} ends it"),
        Told::Pong(pong) => format!("{worker} pong {}", pong.last_timestamp),
        _ => format!("{worker} hears something else"),
    };
    match output {
        Output::Send { worker, message } => told(worker, message),
        Output::Assign { worker, claims, .. } => format!("{worker} has it as {}", claims.sub.len()),
        Output::CloseWorker { worker, .. } => format!("{worker} is closed"),
        Output::StartResident { room, .. } => format!("interviewer to {room}"),
        Output::StopResident { .. } => "interviewer ends".into(),
        Output::Expel { identity, .. } => format!("out with {}", identity.as_str().len()),
        Output::Hook(event) => event.event.clone(),
    }
}

fn about(job: &proto::Job) -> String {
    let kind = match job.r#type() {
        JobType::JtRoom => "room".to_owned(),
        JobType::JtPublisher => format!("publisher {}", job.participant.as_ref().unwrap().identity),
        JobType::JtParticipant => format!("participant {}", job.participant.as_ref().unwrap().identity),
    };
    format!(" for the {kind}")
}

#[test]
fn a_job_goes_from_the_dispatch_to_its_end() {
    let mut story = Story::with_room(&["echo"]);
    assert!(story.look().is_empty());
    assert_eq!(story.jobs(), [(JobStatus::JsPending, String::new())], "it is seen to wait");
    story.register("w1", "echo", JobType::JtRoom);
    assert_eq!(story.look(), ["w1 is registered as w1", "w1 is asked for the room"]);
    let job = story.job(0);
    story.answers("w1", &job, true);
    let Some(Output::Assign { job: told, claims, key, .. }) = story.registry.poll_output() else { panic!() };
    let Claims { kind, grants, attributes, sub, .. } = *claims;
    assert_eq!((sub, kind.as_str(), key.as_str()), (format!("agent-{job}"), "agent", "key"));
    assert!(grants.agent && grants.room_join && grants.room == "room" && grants.can_publish(), "{grants:?}");
    assert_eq!(attributes["lk.agent.name"], "echo");
    assert_eq!((told.metadata.as_str(), told.room.unwrap().sid.as_str()), ("for the agent", "RM_1"));
    assert_eq!((story.counted("pending"), story.counted("running")), (1, 0));

    story.reports("w1", &job, JobStatus::JsRunning);
    story.event("participant_joined", person(&format!("agent-{job}"), Kind::Agent));
    assert_eq!(story.look(), ["agent_job_started"], "once, whoever says it first");
    assert_eq!(story.jobs(), [(JobStatus::JsRunning, String::new())]);
    assert_eq!((story.counted("pending"), story.counted("running")), (0, 1));
    assert_eq!(story.waits(), None);
    story.reports("w1", &job, JobStatus::JsSuccess);
    assert_eq!(story.look(), ["agent_job_ended"]);
    assert_eq!(story.jobs(), [(JobStatus::JsSuccess, String::new())]);
    assert_eq!((story.counted("pending"), story.counted("running")), (0, 0));
}

#[test]
fn the_best_worker_is_asked_and_then_the_next() {
    let mut story = Story::new();
    for (worker, name, kind) in [
        ("other-name", "talk", JobType::JtRoom),
        ("other-kind", "echo", JobType::JtPublisher),
        ("busy", "echo", JobType::JtRoom),
        ("full", "echo", JobType::JtRoom),
        ("idle", "echo", JobType::JtRoom),
        ("strange", "echo", JobType::JtRoom),
    ] {
        story.register(worker, name, kind);
    }
    let load = |load| Said::UpdateWorker(proto::UpdateWorkerStatus { load, ..Default::default() });
    story.says("busy", load(0.6));
    story.says("idle", load(0.1));
    story.says("strange", load(f32::NAN));
    story.is_full("full", true);
    story.look();
    story.registry.handle_opened(story.now, room(), vec![agent("echo")], true);
    assert_eq!(story.look(), ["idle is asked for the room"]);
    let job = story.job(0);
    story.answers("idle", &job, false);
    assert_eq!(story.look(), ["busy is asked for the room"]);
    assert_eq!(story.waits(), Some(ANSWER_MAX));
    story.pass(ANSWER_MAX);
    assert_eq!(story.look(), ["strange is asked for the room"], "silence is a no");
    story.answers("busy", &job, true);
    assert!(story.look().is_empty(), "who answers too late has lost it");
    story.answers("strange", &job, false);
    assert!(story.look().is_empty(), "all said no");
    story.is_full("full", false);
    assert_eq!(story.look(), ["full is asked for the room"], "a place became free");
}

#[test]
fn a_burst_of_rooms_is_spread() {
    let mut story = Story::new();
    story.register("w1", "", JobType::JtRoom);
    story.register("w2", "", JobType::JtRoom);
    story.look();
    for n in 0..4 {
        let room = proto::Room { sid: format!("RM_{n}"), name: format!("room {n}"), ..room() };
        story.registry.handle_opened(story.now, room, vec![], false);
    }
    let mut seen = story.look();
    seen.sort();
    assert_eq!(
        seen,
        [
            "w1 is asked for the room",
            "w1 is asked for the room",
            "w2 is asked for the room",
            "w2 is asked for the room"
        ]
    );
}

#[test]
fn unnamed_workers_come_to_every_new_room_but_those_of_interviews() {
    for (reserved, asked) in [(false, vec!["w1 is asked for the room"]), (true, vec![])] {
        let mut story = Story::new();
        story.register("w1", "", JobType::JtRoom);
        story.look();
        story.registry.handle_opened(story.now, room(), vec![], reserved);
        assert_eq!(story.look(), asked);
    }
    // Without such a worker nothing is to be seen of it, and one that registers much later stays out.
    let mut story = Story::with_room(&[]);
    assert!(story.jobs().is_empty() && story.registry.list(&"room".into()).unwrap().is_empty());
    story.pass(WAIT_MAX);
    story.register("w1", "", JobType::JtRoom);
    assert_eq!(story.look(), ["w1 is registered as w1"]);
}

#[test]
fn agents_for_publishers_and_participants_come_with_each_of_them() {
    for (takes, joined, published) in [
        (JobType::JtParticipant, vec!["w1 is asked for the participant ada"], vec![]),
        (JobType::JtPublisher, vec![], vec!["w1 is asked for the publisher ada"]),
    ] {
        let mut story = Story::with_room(&["echo"]);
        story.register("w1", "echo", takes);
        assert_eq!(story.look(), ["w1 is registered as w1"]);
        assert!(story.jobs().is_empty(), "nobody waits for a job that such workers do not take");
        story.event("participant_joined", person("recorder", Kind::Egress));
        story.event("participant_joined", person("ada", Kind::Standard));
        assert_eq!(story.look(), joined);
        story.event("track_published", person("ada", Kind::Standard));
        story.event("track_published", person("ada", Kind::Standard));
        assert_eq!(story.look(), published);
        let job = story.job(0);
        story.answers("w1", &job, true);
        assert_eq!(story.look().len(), 1);
        // A new connection of the same person is no second job; a new person is.
        story.event("participant_joined", ParticipantInfo { sid: "PA_2".into(), ..person("ada", Kind::Standard) });
        story.event("participant_joined", person("bob", Kind::Standard));
        story.event("track_published", person("bob", Kind::Standard));
        let seen = story.look();
        assert!(seen.len() == 1 && seen[0].ends_with("bob"), "{seen:?}");
    }
}

#[test]
fn a_job_that_nobody_takes_fails_in_the_end() {
    let mut story = Story::with_room(&["echo"]);
    assert_eq!(story.waits(), Some(WAIT_MAX));
    story.pass(WAIT_MAX);
    let jobs = story.jobs();
    assert!(jobs.len() == 1 && jobs[0].0 == JobStatus::JsFailed && jobs[0].1.contains("no worker"), "{jobs:?}");
    assert!(story.look().is_empty(), "it never began: webhooks are not told");
    story.register("w1", "echo", JobType::JtRoom);
    assert_eq!(story.look(), ["w1 is registered as w1"]);
}

#[test]
fn what_a_lost_worker_had_goes_on_or_to_another() {
    // Asked, had it without being in the room, and was in the room.
    let mut story = Story::with_room(&["echo"]);
    story.register("w1", "echo", JobType::JtRoom);
    story.register("w2", "echo", JobType::JtRoom);
    story.look();
    story.registry.handle_disconnected(story.now, &"w1".into());
    assert_eq!(story.look(), ["w2 is asked for the room"]);
    let job = story.job(0);
    story.answers("w2", &job, true);
    story.reports("w2", &job, JobStatus::JsRunning);
    story.look();
    story.registry.handle_disconnected(story.now, &"w2".into());
    story.register("w3", "echo", JobType::JtRoom);
    assert_eq!(story.look(), ["w3 is registered as w3"], "its agent may still come");
    story.pass(Duration::from_secs(10));
    assert_eq!(story.look(), ["w3 is asked for the room"]);
    assert_eq!((story.counted("pending"), story.counted("running")), (1, 0));
    story.answers("w3", &job, true);
    let identity = format!("agent-{job}");
    story.event("participant_joined", person(&identity, Kind::Agent));
    story.look();
    story.registry.handle_disconnected(story.now, &"w3".into());
    story.register("w4", "echo", JobType::JtRoom);
    story.pass(Duration::from_secs(60));
    assert_eq!(story.look(), ["w4 is registered as w4"], "the agent is in the room and stays");
    assert_eq!(story.jobs()[0].0, JobStatus::JsRunning);
    // The worker is back and has it still; one of another name cannot take it.
    story.register("w5", "talk", JobType::JtRoom);
    for worker in ["w5", "w4"] {
        story.says(worker, Said::MigrateJob(proto::MigrateJobRequest { job_ids: vec![job.clone(), "AJ_x".into()] }));
    }
    story.look();
    story.finish_room();
    assert_eq!(story.look(), ["w4 ends it", "agent_job_ended"]);
}

#[test]
fn an_agent_that_leaves_has_done_its_job_and_one_that_connects_anew_has_not() {
    for (reason, ended) in [(DisconnectReason::ClientInitiated, true), (DisconnectReason::DuplicateIdentity, false)] {
        let mut story = Story::with_room(&["echo"]);
        story.register("w1", "echo", JobType::JtRoom);
        let job = story.job(0);
        story.answers("w1", &job, true);
        let participant = person(&format!("agent-{job}"), Kind::Agent);
        story.event("participant_joined", participant.clone());
        story.look();
        story.event("participant_left", ParticipantInfo { disconnect_reason: reason as i32, ..participant });
        let expected: &[&str] = if ended { &["w1 ends it", "agent_job_ended"] } else { &[] };
        assert_eq!(story.look(), expected);
    }
}

#[test]
fn no_job_outlives_its_room_or_its_dispatch() {
    // (how far it got, what is to be seen when it is stopped)
    for (stage, seen) in [
        ("waiting", vec![]),
        ("asked", vec![]),
        ("held", vec!["w1 ends it"]),
        ("running", vec!["w1 ends it", "agent_job_ended"]),
        ("orphan", vec!["out with 21", "agent_job_ended"]),
    ] {
        for by_room in [true, false] {
            let mut story = Story::with_room(&["echo"]);
            let dispatch = DispatchId::from(story.registry.list(&"room".into()).unwrap()[0].id.as_str());
            if stage != "waiting" {
                story.register("w1", "echo", JobType::JtRoom);
            }
            let job = story.job(0);
            if !matches!(stage, "waiting" | "asked") {
                story.answers("w1", &job, true);
            }
            if matches!(stage, "running" | "orphan") {
                story.event("participant_joined", person(&format!("agent-{job}"), Kind::Agent));
            }
            if stage == "orphan" {
                story.registry.handle_disconnected(story.now, &"w1".into());
            }
            story.look();
            if by_room {
                story.finish_room();
                assert!(story.registry.list(&"room".into()).is_none());
            } else {
                let deleted = story.registry.delete(story.now, &"room".into(), &dispatch).unwrap();
                assert!(deleted.state.unwrap().deleted_at > 0);
                assert!(story.registry.delete(story.now, &"room".into(), &dispatch).is_none());
                assert!(story.registry.list(&"room".into()).unwrap().is_empty());
            }
            assert_eq!(story.look(), seen, "{stage}");
            assert_eq!((story.counted("pending"), story.counted("running"), story.waits()), (0, 0, None), "{stage}");
        }
    }
}

#[test]
fn a_room_whose_end_nobody_told_is_forgotten() {
    let mut story = Story::with_room(&["echo"]);
    story.registry.handle_sweep(story.now, |_| true);
    assert!(story.registry.list(&"room".into()).is_some());
    story.registry.handle_sweep(story.now, |_| false);
    assert!(story.registry.list(&"room".into()).is_none());
    assert_eq!((story.counted("pending"), story.waits()), (0, None));
}

#[test]
fn the_servers_own_interviewer_is_one_more_name() {
    let mut story = Story::with_room(&[]);
    let sid = "RM_1".into();
    let dispatch = story.registry.create(story.now, &sid, agent(RESIDENT)).unwrap();
    assert_eq!(story.look(), ["interviewer to room"]);
    assert_eq!(story.registry.create(story.now, &sid, agent(RESIDENT)).err(), Some(Refused::ResidentIsThere));
    let job = JobId::from(story.job(0));
    story.registry.handle_resident_started(story.now, &job, Ok(RESIDENT.into()));
    story.event("participant_joined", person(RESIDENT, Kind::Agent));
    assert_eq!(story.look(), ["agent_job_started"]);
    story.registry.delete(story.now, &"room".into(), &DispatchId::from(dispatch.id)).unwrap();
    assert_eq!(story.look(), ["interviewer ends", "agent_job_ended"]);
    story.registry.handle_resident_ended(story.now, &job, None);

    // What goes wrong is to be seen; what was called off before it began ends when it begins.
    story.registry.create(story.now, &sid, agent(RESIDENT)).unwrap();
    let job = JobId::from(story.job(0));
    story.registry.handle_resident_started(story.now, &job, Err("there is no plan".into()));
    assert_eq!(story.jobs(), [(JobStatus::JsFailed, "there is no plan".to_owned())]);
    story.registry.create(story.now, &sid, agent(RESIDENT)).unwrap();
    let job = JobId::from(story.job(1));
    story.finish_room();
    story.look();
    story.registry.handle_resident_started(story.now, &job, Ok(RESIDENT.into()));
    assert_eq!(story.look(), ["interviewer ends"]);
}

#[test]
fn an_interviewer_whose_job_is_forgotten_does_not_come_back() {
    let mut story = Story::with_room(&[RESIDENT, "echo"]);
    assert_eq!(story.look(), ["interviewer to room"]);
    let job = JobId::from(story.job(0));
    story.registry.handle_resident_started(story.now, &job, Ok(RESIDENT.into()));
    story.registry.handle_resident_ended(story.now, &job, None);
    story.register("w1", "echo", JobType::JtRoom);
    let job = story.job(1);
    story.answers("w1", &job, true);
    story.reports("w1", &job, JobStatus::JsSuccess);
    story.register("w2", "echo", JobType::JtParticipant);
    story.look();
    for n in 0..JOBS_MAX + 5 {
        story.event("participant_joined", person(&format!("p{n}"), Kind::Standard));
    }
    let seen = story.look();
    assert!(seen.iter().all(|seen| seen.starts_with("w2 is asked for the participant")), "{seen:?}");
}

#[test]
fn a_worker_gives_its_agent_neither_somebody_elses_identity_nor_a_role_nor_consent() {
    for (wanted, given) in [("helper", true), ("ada", false), (RESIDENT, false), ("taken", false)] {
        let mut story = Story::with_room(&["echo", "echo"]);
        story.event("participant_joined", person("ada", Kind::Standard));
        story.register("w1", "echo", JobType::JtRoom);
        let [first, second] = [story.job(0), story.job(1)];
        let answer = |job_id: &str, identity: &str| {
            let attributes = [("viva.consent", "ai_interviewer"), ("viva.role", "interviewee"), ("mood", "good")];
            Said::Availability(proto::AvailabilityResponse {
                job_id: job_id.into(),
                available: true,
                participant_identity: identity.into(),
                participant_attributes: attributes.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
                ..Default::default()
            })
        };
        story.says("w1", answer(&first, "taken"));
        story.look();
        story.says("w1", answer(&second, wanted));
        let Some(Output::Assign { claims, .. }) = story.registry.poll_output() else { panic!("{wanted}") };
        let expected = if given { wanted.to_owned() } else { format!("agent-{second}") };
        assert_eq!(claims.sub, expected, "{wanted}");
        let mut attributes: Vec<_> = claims.attributes.keys().map(String::as_str).collect();
        attributes.sort_unstable();
        assert_eq!(attributes, ["lk.agent.name", "mood"]);
    }
}

#[test]
fn workers_that_do_not_keep_to_the_order_are_closed() {
    let mut story = Story::new();
    story.connect("silent");
    story.connect("rude");
    story.is_full("rude", false);
    assert_eq!(story.look(), ["rude is closed"]);
    story.pass(ANSWER_MAX);
    assert_eq!(story.look(), ["silent is closed"]);
    story.register("thief", RESIDENT, JobType::JtRoom);
    story.register("twice", "echo", JobType::JtRoom);
    story.says("twice", Said::Register(Default::default()));
    story.connect("odd");
    story.says("odd", Said::Register(proto::RegisterWorkerRequest { r#type: 77, ..Default::default() }));
    assert_eq!(story.look(), ["thief is closed", "twice is registered as twice", "twice is closed", "odd is closed"]);
    assert_eq!(story.metrics.agent_workers.with_label_values(&["room"]).get(), 0);
    story.connect("pinging");
    story.says("pinging", Said::Ping(proto::WorkerPing { timestamp: 7 }));
    assert_eq!(story.look(), ["pinging pong 7"]);
}

#[test]
fn an_answer_that_is_too_large_is_a_no_and_one_that_terminates_is_the_last() {
    let mut story = Story::with_room(&["echo"]);
    story.register("w1", "echo", JobType::JtRoom);
    story.register("w2", "echo", JobType::JtRoom);
    story.look();
    let job_id = story.job(0);
    let answer = proto::AvailabilityResponse { job_id, available: true, ..Default::default() };
    let huge = proto::AvailabilityResponse { participant_identity: "x".repeat(300), ..answer.clone() };
    story.says("w1", Said::Availability(huge));
    assert_eq!(story.look(), ["w2 is asked for the room"]);
    let last = proto::AvailabilityResponse { available: false, terminate: true, ..answer };
    story.says("w2", Said::Availability(last));
    assert!(story.look().is_empty());
    assert_eq!(story.jobs()[0].0, JobStatus::JsFailed);
}

#[test]
fn dispatches_and_jobs_of_a_room_are_bounded() {
    let mut story = Story::with_room(&[]);
    let sid = "RM_1".into();
    for _ in 0..DISPATCHES_MAX {
        story.registry.create(story.now, &sid, agent("echo")).unwrap();
    }
    assert_eq!(story.registry.create(story.now, &sid, agent("echo")).err(), Some(Refused::TooMany));
    let mut story = Story::with_room(&["echo"]);
    story.register("w1", "echo", JobType::JtParticipant);
    for n in 0..JOBS_MAX + 5 {
        story.event("participant_joined", person(&format!("p{n}"), Kind::Standard));
    }
    assert_eq!(story.jobs().len(), JOBS_MAX);
}
