//! The interviewer: plans, personas, turn-taking, and the sessions in which interviews are held.
//!
//! [`Interviews`] is the only door: it makes interviews, lets people in, records their consent and tells what was said.
//! Each live interview is one task, [`session`], that runs the effects of two pure machines, [`turn`] and
//! [`conversation`]. What is asked next is decided by the plan's cursor in this server, never by a language model.

pub mod clauses;
mod config;
pub mod conversation;
pub mod cursor;
mod dispatch;
pub mod interviewer;
pub mod library;
pub mod llm;
mod notice;
pub mod persona;
mod phrases;
pub mod plan;
pub mod port;
pub mod session;
pub mod turn;
mod yaml;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use config::{Config, Endpointing, Interruption, LlmConfig, LlmKind, Silence};
use dashmap::{DashMap, mapref::entry::Entry};
pub use dispatch::Dispatched;
pub use library::Library;
use llm::LlmProvider;
pub use notice::Notice;
pub use session::{AGENT_IDENTITY, ConsentError};
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use crate::{
    id::{Identity, InterviewId, RoomName, RoomSid},
    model::{
        ConsentRecord, EndReason, Interview, InterviewState, Personal, Purpose, ROLE_ATTRIBUTE, Role, TranscriptLine,
        TurnRecord,
    },
    rooms::{AgentOptions, RoomSetup, Rooms},
    speech::{
        listener::{self, ListenerConfig},
        speaker::Speaker,
        stt::SttProvider,
        tts::TtsProvider,
    },
    store::{Store, StoreError},
    telemetry::Metrics,
};

/// What the interviewer hears, speaks and thinks with.
#[derive(Clone)]
pub struct Providers {
    /// `None`: voice activity alone.
    pub stt: Option<Arc<dyn SttProvider>>,
    pub tts: Arc<dyn TtsProvider>,
    /// Voices by name, for personas that ask for one; a persona whose voice is not here speaks with `tts`.
    pub voices: HashMap<String, Arc<dyn TtsProvider>>,
    /// `None`: the scripted interviewer.
    pub llm: Option<Arc<dyn LlmProvider>>,
}

/// What is asked for, to make an interview.
#[derive(Clone, Debug)]
pub struct NewInterview {
    pub plan: String,
    pub persona: String,
    pub interviewee_name: Personal,
}

#[derive(Clone, Debug)]
pub struct Created {
    pub interview: Interview,
    /// Secret of the link by which a second person joins.
    pub invite: String,
}

/// A second person who came by the link.
#[derive(Clone, Debug)]
pub struct Admission {
    pub interview: Interview,
    pub identity: Identity,
    pub role: Role,
}

/// What the holder of an invitation may know before joining.
#[derive(Clone, Debug)]
pub struct InviteView {
    pub plan_title: String,
    pub interviewee_waiting: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InterviewError {
    #[error("there is no plan `{0}`; see GET /v1/practice for those there are")]
    UnknownPlan(String),
    #[error("there is no persona `{0}`; see GET /v1/practice for those there are")]
    UnknownPersona(String),
    #[error(
        "the metadata is not usable: {0}; send JSON as {{\"plan\": \"…\", \"persona\": \"…\", \"name\": \"…\"}}; \
         persona and name may be left out"
    )]
    BadMetadata(String),
    #[error("an interview is held in this room already; one at a time can be")]
    RoomTaken,
    #[error("the name is not usable: {0}")]
    BadName(&'static str),
    #[error("there is no such interview")]
    NotFound,
    #[error("this link is not valid: ask the person who sent it for a new one")]
    BadInvite,
    #[error("this interview is over")]
    Ended,
    #[error("the server is stopping: try again in a moment")]
    ShuttingDown,
    #[error(transparent)]
    Consent(#[from] session::ConsentError),
    #[error(transparent)]
    Room(#[from] crate::rooms::RoomError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All interviews of this server. Cheap clone.
#[derive(Clone)]
pub struct Interviews {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    rooms: Rooms,
    store: Store,
    providers: Providers,
    listener: ListenerConfig,
    metrics: Arc<Metrics>,
    library: Library,
    /// Sessions that run now.
    live: DashMap<InterviewId, Live>,
    /// Where they are held: a room has one interviewer.
    places: DashMap<RoomName, Option<RoomSid>>,
    tasks: TaskTracker,
    /// Where sessions run, and everything that they spawn.
    runtime: Handle,
}

impl Shared {
    fn notice(&self) -> Notice {
        let remote = self.providers.stt.as_ref().is_some_and(|stt| stt.capabilities().remote);
        Notice::new(remote, self.providers.llm.is_some())
    }
}

/// The room of an interview, until this is dropped.
struct Place {
    shared: Arc<Shared>,
    room: RoomName,
}

impl Place {
    fn take(shared: &Arc<Shared>, room: &RoomName) -> Result<Self, InterviewError> {
        match shared.places.entry(room.clone()) {
            Entry::Occupied(_) => Err(InterviewError::RoomTaken),
            Entry::Vacant(entry) => {
                entry.insert(None);
                Ok(Self { shared: shared.clone(), room: room.clone() })
            }
        }
    }

    /// It is held in this life of the room.
    fn settle(&self, sid: &RoomSid) {
        self.shared.places.insert(self.room.clone(), Some(sid.clone()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.places.remove(&self.room);
    }
}

/// A running session, as the rest of the server reaches it.
#[derive(Clone)]
struct Live {
    commands: mpsc::Sender<session::Command>,
    interviewee_here: Arc<AtomicBool>,
}

impl Interviews {
    /// Loads plans and personas. Every mistake in them is in the error, each with file, line and key. Sessions run on the
    /// runtime in which this is called, whoever makes them.
    pub fn new(
        config: Config,
        rooms: Rooms,
        store: Store,
        providers: Providers,
        listener: ListenerConfig,
        metrics: Arc<Metrics>,
    ) -> Result<Self, library::LibraryError> {
        let library = Library::load(&config.plans_dir, &config.personas_dir)?;
        let (live, places, tasks, runtime) = (DashMap::new(), DashMap::new(), TaskTracker::new(), Handle::current());
        let shared =
            Shared { config, rooms, store, providers, listener, metrics, library, live, places, tasks, runtime };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes up the interviews that were running when the server last stopped; those that are too old for that are
    /// ended. Call once, before people can join. Returns how many were taken up.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut taken_up = 0;
        for interview in self.shared.store.unfinished().await? {
            let id = interview.id.clone();
            let (since, limit_secs, reason) = match interview.state {
                InterviewState::Live => (
                    interview.started_at_ms.unwrap_or(interview.created_at_ms),
                    self.shared.config.max_duration_secs,
                    EndReason::Shutdown,
                ),
                _ => (interview.created_at_ms, self.shared.config.no_show_secs, EndReason::NoShow),
            };
            let reason = if wall_ms().saturating_sub(since) > limit_secs.saturating_mul(1000) as i64 {
                reason
            } else {
                match self.start(interview).await {
                    Ok(_) => {
                        taken_up += 1;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(interview = %id, %error, "an interview could not be taken up again");
                        EndReason::Failed
                    }
                }
            };
            self.shared.store.set_ended(&id, reason, wall_ms()).await?;
            self.shared.metrics.interviews.with_label_values(&[reason.as_str()]).inc();
        }
        Ok(taken_up)
    }

    /// Ends the sessions' tasks after their last words are stored; the interviews can be taken up again. No interview
    /// can be made afterwards.
    pub async fn shutdown(&self) {
        self.shared.tasks.close();
        let sessions: Vec<_> = self.shared.live.iter().map(|l| l.commands.clone()).collect();
        for session in sessions {
            // A session that has just ended by itself has nothing left to stop.
            let _ = session.send(session::Command::Shutdown).await;
        }
        self.shared.tasks.wait().await;
    }

    pub fn library(&self) -> &Library {
        &self.shared.library
    }

    /// What people are told before they consent.
    pub fn notice(&self) -> Notice {
        self.shared.notice()
    }

    /// Whether words are recognised, or voice activity alone.
    pub fn recognition(&self) -> bool {
        self.shared.providers.stt.is_some()
    }

    /// Stores a new interview, opens its room and sends the interviewer in, who waits for the interviewee.
    pub async fn create(&self, new: NewInterview) -> Result<Created, InterviewError> {
        if self.shared.tasks.is_closed() {
            return Err(InterviewError::ShuttingDown);
        }
        let plan = self.shared.library.plan(&new.plan).ok_or_else(|| InterviewError::UnknownPlan(shown(&new.plan)))?;
        if self.shared.library.persona(&new.persona).is_none() {
            return Err(InterviewError::UnknownPersona(shown(&new.persona)));
        }
        let id = InterviewId::random();
        let interview = Interview {
            room: RoomName::from(id.as_str()),
            plan: new.plan,
            persona: new.persona,
            interviewee: format!("interviewee-{}", secret(6)).into(),
            interviewee_name: usable_name(&new.interviewee_name.0)?,
            state: InterviewState::Open,
            end_reason: None,
            created_at_ms: wall_ms(),
            started_at_ms: None,
            ended_at_ms: None,
            questions_asked: 0,
            questions_total: plan.total(),
            id,
        };
        let invite = secret(24);
        self.shared.store.insert_interview(&interview, &hash(&invite)).await?;
        if let Err(error) = self.start(interview.clone()).await {
            self.shared.store.set_ended(&interview.id, EndReason::Failed, wall_ms()).await?;
            return Err(error);
        }
        tracing::info!(interview = %interview.id, plan = %interview.plan, "interview created");
        Ok(Created { interview, invite })
    }

    /// What the holder of this invitation may know.
    pub async fn invite(&self, id: &InterviewId, invite: &str) -> Result<InviteView, InterviewError> {
        let interview = self.invited(id, invite).await?;
        let plan_title =
            self.shared.library.plan(&interview.plan).map_or_else(|| interview.plan.clone(), |p| p.title.clone());
        let here = self.shared.live.get(id).is_some_and(|l| l.interviewee_here.load(Ordering::Relaxed));
        Ok(InviteView { plan_title, interviewee_waiting: here })
    }

    /// Lets a second person in by the link.
    pub async fn admit(&self, id: &InterviewId, invite: &str, name: &str) -> Result<Admission, InterviewError> {
        usable_name(name)?;
        let interview = self.invited(id, invite).await?;
        let identity = format!("interviewer-{}", secret(6)).into();
        Ok(Admission { interview, identity, role: Role::Interviewer })
    }

    async fn invited(&self, id: &InterviewId, invite: &str) -> Result<Interview, InterviewError> {
        let interview = self.status(id).await?;
        // Hashes are compared, so that the time it takes tells nothing of the secret.
        if self.shared.store.invite_hash(id).await?.as_deref() != Some(hash(invite).as_str()) {
            return Err(InterviewError::BadInvite);
        }
        match interview.state {
            InterviewState::Ended => Err(InterviewError::Ended),
            _ => Ok(interview),
        }
    }

    /// Records a decision, then opens or closes the person's tap. Returns after both. An empty `notice_version` is the
    /// present one.
    pub async fn record_consent(
        &self,
        id: &InterviewId,
        identity: &Identity,
        purpose: Purpose,
        granted: bool,
        notice_version: &str,
        source: &str,
    ) -> Result<(), InterviewError> {
        let present = self.notice().version;
        let notice_version = if notice_version.is_empty() { &present } else { notice_version };
        if let Some(live) = self.live(id) {
            let (done, result) = oneshot::channel();
            let command = session::Command::Consent {
                identity: identity.clone(),
                purpose,
                granted,
                notice_version: notice_version.to_owned(),
                source: source.to_owned(),
                done,
            };
            if live.commands.send(command).await.is_ok()
                && let Ok(result) = result.await
            {
                return Ok(result?);
            }
        }
        // Nobody listens any more, or not yet; the decision is on record all the same.
        self.status(id).await?;
        if granted && notice_version != present {
            return Err(session::ConsentError::NoticeChanged.into());
        }
        let record = ConsentRecord {
            interview: id.clone(),
            identity: identity.clone(),
            purpose,
            granted,
            notice_version: notice_version.to_owned(),
            source: source.to_owned(),
            at_ms: wall_ms(),
        };
        self.shared.store.insert_consent(&record).await?;
        let decision = if granted { "granted" } else { "declined" };
        self.shared.metrics.consents.with_label_values(&[purpose.as_str(), decision]).inc();
        Ok(())
    }

    /// The latest decision of this person for each purpose that they decided on.
    pub async fn consents(&self, id: &InterviewId, identity: &Identity) -> Result<Vec<ConsentRecord>, InterviewError> {
        Ok(self.shared.store.latest_consents(id, identity).await?)
    }

    /// Whether this person was part of this interview, as far as is on record.
    pub async fn took_part(&self, id: &InterviewId, identity: &Identity) -> Result<bool, InterviewError> {
        Ok(self.shared.store.took_part(id, identity).await?)
    }

    pub async fn status(&self, id: &InterviewId) -> Result<Interview, InterviewError> {
        self.shared.store.interview(id).await?.ok_or(InterviewError::NotFound)
    }

    pub async fn transcript(&self, id: &InterviewId) -> Result<Vec<TranscriptLine>, InterviewError> {
        self.status(id).await?;
        Ok(self.shared.store.lines(id).await?)
    }

    pub async fn turns(&self, id: &InterviewId) -> Result<Vec<TurnRecord>, InterviewError> {
        self.status(id).await?;
        Ok(self.shared.store.turns(id).await?)
    }

    /// Ends an interview at once, as by the page's button. Ending one that is over is no error.
    pub async fn end(&self, id: &InterviewId) -> Result<(), InterviewError> {
        let interview = self.status(id).await?;
        if let Some(live) = self.live(id) {
            let (done, ended) = oneshot::channel();
            let command = session::Command::End { reason: EndReason::EndedByHost, done };
            if live.commands.send(command).await.is_ok() && ended.await.is_ok() {
                return Ok(());
            }
        }
        if interview.state != InterviewState::Ended {
            self.shared.store.set_ended(id, EndReason::EndedByHost, wall_ms()).await?;
        }
        Ok(())
    }

    /// Ends an interview whose dispatch is over. Not while the server stops: then its room closes, and the dispatch with
    /// it, but the interview goes on when the server is back.
    pub async fn end_dispatched(&self, id: &InterviewId) -> Result<(), InterviewError> {
        if self.shared.tasks.is_closed() {
            return Ok(());
        }
        self.end(id).await
    }

    fn live(&self, id: &InterviewId) -> Option<Live> {
        self.shared.live.get(id).map(|live| live.clone())
    }

    /// Whether an interview is held in this room now. One whose room is closed, and whose last words are still being
    /// recognised, is not.
    fn is_held_in(&self, room: &RoomName) -> bool {
        let place = self.shared.places.get(room).map(|place| place.clone());
        match place {
            None => false,
            Some(None) => true,
            Some(Some(sid)) => self.shared.rooms.get(room).is_some_and(|open| *open.sid() == sid),
        }
    }

    /// Returns the session's task.
    async fn start(&self, interview: Interview) -> Result<JoinHandle<()>, InterviewError> {
        let interviews = self.clone();
        let started = self.shared.runtime.spawn(async move { interviews.start_here(interview).await });
        // The task is never aborted but by the end of its runtime.
        started.await.unwrap_or(Err(InterviewError::ShuttingDown))
    }

    /// Opens the room of an interview and starts its session.
    async fn start_here(&self, interview: Interview) -> Result<JoinHandle<()>, InterviewError> {
        let shared = &self.shared;
        let place = Place::take(shared, &interview.room)?;
        let library = &shared.library;
        let plan = library.plan(&interview.plan).ok_or_else(|| InterviewError::UnknownPlan(interview.plan.clone()))?;
        let persona = library
            .persona(&interview.persona)
            .ok_or_else(|| InterviewError::UnknownPersona(interview.persona.clone()))?;
        let id = interview.id.clone();
        // Rooms of interviews that were made here hold whom the interview let in; who is sent into all rooms is not.
        let reserved = interview.has_own_room();
        let (room, _) = shared.rooms.open_with(&interview.room, RoomSetup { reserved, ..RoomSetup::default() })?;
        place.settle(room.sid());
        let mut agent = room.join_agent(as_seen(&id, persona)).await?;
        let tts = shared.providers.voices.get(&persona.voice).unwrap_or(&shared.providers.tts).clone();
        let tts_name = tts.name();
        let (speaker, mouth_events) = Speaker::spawn(tts, agent.sink.clone(), shared.metrics.clone());
        let (stt, config, metrics) = (shared.providers.stt.clone(), shared.listener.clone(), shared.metrics.clone());
        let stt_name = stt.as_ref().map(|s| s.name());
        let listen: port::Listen =
            Box::new(move |reader| listener::spawn(reader, stt.clone(), config.clone(), metrics.clone()));
        // The seat keeps the agent in the room; its events are read apart from it.
        let events = std::mem::replace(&mut agent.events, mpsc::channel(1).1);
        let (commands, command_queue) = mpsc::channel(session::COMMANDS_MAX);
        let interviewee_here = Arc::new(AtomicBool::new(false));
        let words = interviewer::Interviewer {
            plan: plan.clone(),
            persona: persona.clone(),
            name: interview.interviewee_name.clone(),
        };
        let session = session::Session::new(session::Setup {
            interview,
            words,
            config: shared.config.clone(),
            store: shared.store.clone(),
            metrics: shared.metrics.clone(),
            llm: shared.providers.llm.clone(),
            notice_version: shared.notice().version,
            stt_name,
            tts_name,
            port: port::Seat { room, agent },
            events,
            mouth: Box::new(speaker),
            mouth_events,
            listen,
            commands: command_queue,
            interviewee_here: interviewee_here.clone(),
        })
        .await?;
        let shutdown = commands.clone();
        shared.live.insert(id.clone(), Live { commands, interviewee_here });
        if shared.tasks.is_closed() {
            // The shutdown that began meanwhile has not seen this one.
            let _ = shutdown.try_send(session::Command::Shutdown);
        }
        let registry = self.shared.clone();
        Ok(shared.tasks.spawn(async move {
            let _place = place;
            // In a task of its own, so that a defect in one interview is told and leaves no entry behind.
            if let Err(error) = tokio::spawn(session.run()).await {
                tracing::error!(interview = %id, %error, "the session of an interview failed");
                let _ = registry.store.set_ended(&id, EndReason::Failed, wall_ms()).await;
                registry.metrics.interviews.with_label_values(&[EndReason::Failed.as_str()]).inc();
            }
            registry.live.remove(&id);
        }))
    }
}

/// The interviewer, as people in the room see it first.
fn as_seen(id: &InterviewId, persona: &persona::Persona) -> AgentOptions {
    let attributes = [
        ("lk.agent.state", "initializing"),
        ("lk.agent.name", session::AGENT_IDENTITY),
        (ROLE_ATTRIBUTE, "ai"),
        ("viva.interview", id.as_str()),
    ];
    AgentOptions {
        identity: session::AGENT_IDENTITY.into(),
        name: persona.name.clone(),
        attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// Unix time, ms.
fn wall_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as i64
}

/// Longest name of a person, characters.
const NAME_MAX: usize = 80;

fn usable_name(name: &str) -> Result<Personal, InterviewError> {
    let name = name.trim();
    if name.is_empty() {
        return Err(InterviewError::BadName("it is empty"));
    }
    if name.chars().count() > NAME_MAX {
        return Err(InterviewError::BadName("it is longer than 80 characters"));
    }
    // Braces are the plan's placeholders; angle brackets are markup to some voices.
    if name.chars().any(|c| c.is_control() || "{}<>".contains(c)) {
        return Err(InterviewError::BadName("it holds characters that cannot be spoken"));
    }
    Ok(name.into())
}

/// What a stranger sent, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// Random letters and digits that cannot be confused; 4.9 bits each.
fn secret(length: usize) -> String {
    use rand::Rng;
    const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
    let mut rng = rand::rng();
    (0..length).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect()
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Any bytes as a plan and a persona; for fuzzers.
pub(crate) fn fuzz_yaml(bytes: &[u8]) {
    library::fuzz(&String::from_utf8_lossy(bytes));
}
