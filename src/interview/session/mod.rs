//! One interview: the task that is in the room, hears, decides, speaks and keeps the record.
//!
//! It owns the two pure machines, [`TurnDetector`] and [`Conversation`], and the plan's cursor; it feeds them what happens
//! and runs their effects. One task, no locks: whatever touches an interview goes through it, also consent given by REST.
//!
//! Order of effects: an interruption first; then the reply; then the record, then what tells the record to others (a
//! final caption is sent after its line is stored); the room's attributes last.

mod captions;
mod chat;
mod consent;
mod ending;
mod events;
mod people;
mod record;
mod reply;
mod rpc;
mod streams;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, StreamMap, wrappers::ReceiverStream};

pub use self::consent::ConsentError;
use self::{
    chat::Inbox,
    people::{People, Person},
    record::Record,
    reply::Reply,
};
use super::{
    Config,
    conversation::{AgentState, Conversation, ConversationConfig},
    cursor::PlanCursor,
    interviewer::{Interviewer, Said},
    llm::LlmProvider,
    port::{Listen, Mouth, RoomPort},
    turn::{TurnConfig, TurnDetector},
};
use crate::{
    id::{Identity, TrackSid},
    model::{EndReason, Interview, InterviewState, Personal, Purpose, Role},
    rooms::AgentEvent,
    speech::{listener::SpeechEvent, speaker::SpeakerEvent},
    store::{Store, StoreError},
    telemetry::Metrics,
};

/// Identity of the interviewer in every room.
pub const AGENT_IDENTITY: &str = "viva-interviewer";
/// Requests from outside that wait for the session: REST calls of a handful of people. Full: the caller waits.
pub const COMMANDS_MAX: usize = 16;
/// Longest talk remembered for prompts, in things said; the prompt itself takes fewer.
const HISTORY_MAX: usize = 64;
/// How long a goodbye may take after the time is up before the interview is ended anyway.
const GOODBYE_MAX: Duration = Duration::from_secs(60);

/// What the rest of the server asks of a session.
pub enum Command {
    Consent {
        identity: Identity,
        purpose: Purpose,
        granted: bool,
        notice_version: String,
        source: String,
        done: oneshot::Sender<Result<(), ConsentError>>,
    },
    End {
        reason: EndReason,
        done: oneshot::Sender<()>,
    },
    /// The server stops; the interview goes on when it is back.
    Shutdown,
}

/// Everything that a session is made of.
pub struct Setup<P> {
    pub interview: Interview,
    pub words: Interviewer,
    pub config: Config,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub llm: Option<Arc<dyn LlmProvider>>,
    /// Of the notice that people of this server see.
    pub notice_version: String,
    /// Names for metrics; `None`: recognition is off.
    pub stt_name: Option<&'static str>,
    pub tts_name: &'static str,
    pub port: P,
    pub events: mpsc::Receiver<AgentEvent>,
    pub mouth: Box<dyn Mouth>,
    pub mouth_events: mpsc::Receiver<SpeakerEvent>,
    pub listen: Listen,
    pub commands: mpsc::Receiver<Command>,
    /// Set while the interviewee is in the room.
    pub interviewee_here: Arc<AtomicBool>,
}

/// Whose microphone an ear listens to.
struct Ear {
    /// As they were when it was opened: their last words may be recognised after they are gone.
    person: Person,
    track: TrackSid,
}

/// Counts an interview as running for as long as its session does, however that ends.
struct Active(Arc<Metrics>);

impl Active {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.interviews_active.inc();
        Self(metrics)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.interviews_active.dec();
    }
}

/// Why the session's loop ends.
enum Ending {
    Over(EndReason, Vec<oneshot::Sender<()>>),
    Shutdown,
}

/// A running interview.
pub struct Session<P> {
    setup: Setup<P>,
    detector: TurnDetector,
    conversation: Conversation,
    cursor: PlanCursor,
    people: People,
    ears: HashMap<u32, Ear>,
    heard: StreamMap<u32, ReceiverStream<SpeechEvent>>,
    ears_made: u32,
    /// Replies whose `Finished` is still to come, by number.
    replies: BTreeMap<u64, Reply>,
    record: Record,
    inbox: Inbox,
    history: Vec<Said>,
    /// Attributes to set once everything else of this round is done.
    attributes: HashMap<String, String>,
    /// What the attributes were set to last.
    shown: HashMap<String, String>,
    state: AgentState,
    /// The last act that asks something was interrupted before most of it was heard.
    cut_off: bool,
    acts: usize,
    opened: Instant,
    /// When the interviewee left; set from the start in an interview that is taken up again.
    left_at: Option<Instant>,
    came: bool,
    /// Whom the interview was found to be for; stored when they consent.
    met: Option<(Identity, Personal)>,
    time_up: bool,
    active: Option<Active>,
    ending: Option<Ending>,
    /// The end is near: nobody is answered any more.
    over: bool,
}

/// The clock of everything that is not media; follows the runtime's, so that tests can turn it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<P: RoomPort> Session<P> {
    /// Reads what was recorded of an interview that is taken up again.
    pub async fn new(setup: Setup<P>) -> Result<Self, StoreError> {
        let now = now();
        let resumed = setup.interview.state == InterviewState::Live;
        let config = &setup.config;
        let ms = Duration::from_millis;
        let secs = |n: u64| (n > 0).then(|| Duration::from_secs(n));
        let turns = TurnConfig {
            min_delay: ms(config.endpointing.min_delay_ms),
            voice_only_delay: ms(config.endpointing.voice_only_delay_ms),
            max_delay: ms(config.endpointing.max_delay_ms.max(config.endpointing.min_delay_ms)),
            sustained: ms(config.interruption.min_speech_ms),
            recognition: setup.stt_name.is_some(),
        };
        let conversation = ConversationConfig {
            barge_in: config.interruption.enabled,
            nudge_after: secs(config.silence.nudge_after_secs),
            move_on_after: secs(config.silence.move_on_after_secs),
        };
        let conversation = Conversation::new(conversation, now);
        let record = Record::load(&setup.store, &setup.interview, now).await?;
        Ok(Self {
            detector: TurnDetector::new(turns),
            conversation: if resumed { conversation.resumed() } else { conversation },
            cursor: PlanCursor::resumed(setup.interview.questions_asked),
            people: People::new(setup.interview.interviewee.clone()),
            ears: HashMap::new(),
            heard: StreamMap::new(),
            ears_made: 0,
            replies: BTreeMap::new(),
            record,
            inbox: Inbox::new(now),
            history: Vec::new(),
            attributes: HashMap::new(),
            shown: HashMap::new(),
            state: AgentState::Idle,
            cut_off: false,
            acts: 0,
            opened: now,
            left_at: resumed.then_some(now),
            came: resumed,
            met: None,
            time_up: false,
            active: None,
            ending: None,
            over: false,
            setup,
        })
    }

    /// Holds the interview to its end.
    pub async fn run(mut self) {
        self.attributes.insert("lk.agent.state".into(), self.state.as_str().into());
        let recognition = if self.setup.stt_name.is_some() { "on" } else { "off" };
        self.attributes.insert("viva.recognition".into(), recognition.into());
        self.put_progress();
        if self.setup.interview.state == InterviewState::Live {
            self.count_active();
        }
        self.flush().await;
        while self.ending.is_none() {
            self.step().await;
            self.pump().await;
        }
        self.finish().await;
    }

    /// Waits for one thing to happen, and handles it.
    async fn step(&mut self) {
        let deadline = self.poll_timeout();
        let sleep = tokio::time::sleep_until(deadline.unwrap_or_else(now).into());
        // Nobody can starve another for long: the order is by urgency, and room events, which strangers cause, are last.
        tokio::select! {
            biased;
            () = sleep, if deadline.is_some() => self.handle_timeout(),
            Some((ear, event)) = self.heard.next(), if !self.heard.is_empty() => self.handle_heard(ear, event).await,
            Some(event) = self.setup.mouth_events.recv() => self.handle_mouth(event).await,
            Some((number, piece)) = reply::next_piece(&mut self.replies) => self.handle_piece(number, piece),
            Some(command) = self.setup.commands.recv() => self.handle_command(command).await,
            event = self.setup.events.recv() => match event {
                Some(event) => self.handle_room(event).await,
                None => self.end(EndReason::Failed, None),
            },
        }
    }

    /// Lets the machines talk to each other until they have nothing more to say, then writes and tells.
    async fn pump(&mut self) {
        self.settle();
        self.flush().await;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let secs = Duration::from_secs;
        let config = &self.setup.config;
        let no_show = (!self.came).then(|| self.opened + secs(config.no_show_secs));
        let left = self.left_at.map(|at| at + secs(config.return_grace_secs));
        let time_up = self.record.started().map(|at| {
            let max = secs(config.max_duration_secs);
            at + if self.time_up { max + GOODBYE_MAX } else { max }
        });
        [
            self.detector.poll_timeout(),
            self.conversation.poll_timeout(),
            reply::poll_timeout(&self.replies),
            no_show,
            left,
            time_up,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self) {
        let now = now();
        let due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let secs = Duration::from_secs;
        let config = &self.setup.config;
        if !self.came && due(Some(self.opened + secs(config.no_show_secs))) {
            return self.end(EndReason::NoShow, None);
        }
        if due(self.left_at.map(|at| at + secs(config.return_grace_secs))) {
            return self.end(EndReason::Left, None);
        }
        let over = self.record.started().map(|at| at + secs(config.max_duration_secs));
        if due(over.map(|at| at + GOODBYE_MAX)) || due(over) && !self.conversation.present() {
            return self.end(EndReason::TimeUp, None);
        }
        if due(over) && !self.time_up {
            self.time_up = true;
            self.conversation.handle_time_up(now);
        }
        self.detector.handle_timeout(now);
        self.settle();
        self.conversation.handle_timeout(now);
        self.handle_late_replies(now);
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Consent { identity, purpose, granted, notice_version, source, done } => {
                let result = self.decide_consent(&identity, purpose, granted, &notice_version, &source).await;
                // The caller may have gone away; the decision stands.
                let _ = done.send(result);
            }
            Command::End { reason, done } => self.end(reason, Some(done)),
            Command::Shutdown => self.ending = Some(Ending::Shutdown),
        }
    }

    /// The end has come; the first reason counts.
    fn end(&mut self, reason: EndReason, done: Option<oneshot::Sender<()>>) {
        match &mut self.ending {
            Some(Ending::Over(_, waiting)) => waiting.extend(done),
            _ => self.ending = Some(Ending::Over(reason, done.into_iter().collect())),
        }
    }

    /// Sets the room's attributes that have changed.
    async fn flush(&mut self) {
        self.write_record().await;
        let mut changed = std::mem::take(&mut self.attributes);
        changed.retain(|name, value| self.shown.get(name).map_or("", String::as_str) != value);
        if !changed.is_empty() {
            self.shown.extend(changed.clone());
            self.setup.port.set_attributes(changed).await;
        }
    }

    fn put_progress(&mut self) {
        let plan = &self.setup.words.plan;
        let mut progress = serde_json::json!({ "asked": self.cursor.asked(), "total": plan.total() });
        if let Some(question) = self.cursor.question(plan) {
            progress["id"] = question.id.clone().into();
            progress["question"] = question.text.clone().into();
        }
        self.attributes.insert("viva.progress".into(), progress.to_string());
    }

    fn count_active(&mut self) {
        self.active.get_or_insert_with(|| Active::new(self.setup.metrics.clone()));
    }

    fn id(&self) -> &crate::id::InterviewId {
        &self.setup.interview.id
    }

    async fn send(&self, packets: Vec<proto::DataPacket>) {
        for packet in packets {
            self.setup.port.send_data(packet).await;
        }
    }

    fn set_interviewee_here(&self, here: bool) {
        self.setup.interviewee_here.store(here, Ordering::Relaxed);
    }

    fn remember(&mut self, role: Role, text: &crate::model::Personal) {
        if text.0.is_empty() {
            return;
        }
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Said { role, text: text.clone() });
    }
}
