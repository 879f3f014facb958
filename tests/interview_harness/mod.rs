//! A whole interview with scripts in the place of people, voice and room. Everything else is real: the session, its
//! machines, the store. Real time, sped up: an answer is due after 40 ms, a spoken word takes 6 ms.
#![allow(dead_code)] // Each test file uses a part of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use livekit_protocol::{
    DataPacket, RpcRequest,
    data_packet::Value,
    data_stream::{Chunk, Header, TextHeader, Trailer, header::ContentHeader},
    rpc_response,
};
use tokio::sync::{mpsc, oneshot};
use viva::{
    id::{Identity, InterviewId, ParticipantSid, TrackSid},
    interview::{
        Config, ConsentError, Library,
        interviewer::Interviewer,
        llm::LlmProvider,
        port::{Mouth, RoomPort},
        session::{COMMANDS_MAX, Command, Session, Setup},
    },
    media::{self, AudioSink, OpusFrame, SinkClosed, TapReader, TapWriter},
    model::{Interview, InterviewState, Personal, Purpose, TranscriptLine, TurnRecord},
    rooms::{AgentEvent, Person, RoomError},
    speech::{
        ProviderError,
        listener::SpeechEvent,
        speaker::{Speaker, SpeakerEvent},
        stt::Transcript,
        tts::{PcmChunk, TtsProvider},
    },
    store::{self, Store},
    telemetry::Metrics,
};

/// Time that the scripted voice takes for a word.
pub const WORD: Duration = Duration::from_millis(6);
/// Events of a script that wait to be played; no story has so many. Full: the rest is left out.
const SCRIPT_MAX: usize = 256;
/// Longest wait for anything: only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the room saw of the interviewer.
#[derive(Default)]
pub struct Seen {
    pub attributes: HashMap<String, String>,
    pub states: Vec<String>,
    pub packets: Vec<DataPacket>,
    pub taps: Vec<(String, bool)>,
    pub left: bool,
    open: HashMap<String, TapWriter>,
    microphones: HashMap<String, (ParticipantSid, TrackSid)>,
}

pub struct FakeRoom {
    identity: Identity,
    track: TrackSid,
    seen: Arc<Mutex<Seen>>,
    events: mpsc::Sender<AgentEvent>,
}

impl RoomPort for FakeRoom {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn track(&self) -> &TrackSid {
        &self.track
    }

    async fn set_attributes(&self, attributes: HashMap<String, String>) {
        let mut seen = self.seen.lock().unwrap();
        if let Some(state) = attributes.get("lk.agent.state") {
            seen.states.push(state.clone());
        }
        seen.attributes.extend(attributes);
    }

    async fn send_data(&self, packet: DataPacket) {
        self.seen.lock().unwrap().packets.push(packet);
    }

    async fn allow_tap(&self, identity: &Identity, allowed: bool) -> Result<(), RoomError> {
        let mut seen = self.seen.lock().unwrap();
        let name = identity.as_str().to_owned();
        seen.taps.push((name.clone(), allowed));
        if !allowed {
            seen.open.remove(&name);
        } else if let (false, Some((sid, track))) =
            (seen.open.contains_key(&name), seen.microphones.get(&name).cloned())
        {
            let (writer, reader) = media::tap(8);
            seen.open.insert(name, writer);
            let event = AgentEvent::TapOpened { sid, identity: identity.clone(), track, reader };
            self.events.try_send(event).ok().unwrap();
        }
        Ok(())
    }

    async fn leave(self) {
        self.seen.lock().unwrap().left = true;
    }
}

enum Say {
    Clause(u64, String),
    End(u64),
    Interrupt(Instant),
}

/// Speaks in virtual words: [`WORD`] each.
struct FakeMouth {
    commands: mpsc::Sender<Say>,
}

impl Mouth for FakeMouth {
    fn say(&self, utterance: u64, clause: String) {
        let _ = self.commands.try_send(Say::Clause(utterance, clause));
    }

    fn end(&self, utterance: u64) {
        let _ = self.commands.try_send(Say::End(utterance));
    }

    fn interrupt(&self) {
        let _ = self.commands.try_send(Say::Interrupt(Instant::now()));
    }
}

async fn speak(mut commands: mpsc::Receiver<Say>, events: mpsc::Sender<SpeakerEvent>, room: mpsc::Sender<AgentEvent>) {
    let mut queue: VecDeque<Say> = VecDeque::new();
    loop {
        let command = match queue.pop_front() {
            Some(command) => command,
            None => match commands.recv().await {
                Some(command) => command,
                None => return,
            },
        };
        let (Say::Clause(utterance, _) | Say::End(utterance)) = &command else { continue };
        let utterance = *utterance;
        let mut words: Vec<String> = Vec::new();
        let mut ended = false;
        let mut interrupted = false;
        queue.push_front(command);
        let started = Instant::now();
        let _ = events.send(SpeakerEvent::FirstAudio { utterance, at: started }).await;
        let _ = events.send(SpeakerEvent::Started { utterance, at: started }).await;
        let _ = room.send(AgentEvent::Injected { report: utterance, at: Instant::now() }).await;
        let mut played = 0;
        loop {
            while let Some(command) = queue.pop_front() {
                match command {
                    Say::Clause(u, clause) if u == utterance => words.extend(clause.split(' ').map(str::to_owned)),
                    Say::End(u) if u == utterance => ended = true,
                    Say::Interrupt(_) => interrupted = true,
                    other => {
                        queue.push_front(other);
                        break;
                    }
                }
            }
            if interrupted || (ended && played == words.len()) {
                break;
            }
            tokio::select! {
                biased;
                Some(command) = commands.recv() => queue.push_back(command),
                () = tokio::time::sleep(WORD), if played < words.len() => played += 1,
            }
        }
        let complete = ended && played == words.len() && !interrupted;
        let heard = Personal(words[..played].join(" "));
        let _ = events.send(SpeakerEvent::Finished { utterance, at: Instant::now(), heard, complete }).await;
    }
}

/// A voice that takes no time: a fifth of a second of tone for every clause.
pub struct StubVoice;

impl TtsProvider for StubVoice {
    fn name(&self) -> &'static str {
        "stub"
    }

    fn speak(&self, _text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>> {
        let (tx, rx) = mpsc::channel(1);
        let samples = (0..3200).map(|i| ((i as f32 * 0.17).sin() * 8000.0) as i16).collect();
        let _ = tx.try_send(Ok(PcmChunk { sample_rate: 16_000, samples }));
        rx
    }
}

/// A media worker that sends at once.
struct FakeSink {
    events: mpsc::Sender<AgentEvent>,
}

impl AudioSink for FakeSink {
    fn inject(&self, frame: OpusFrame) -> Result<(), SinkClosed> {
        if let Some(report) = frame.report {
            let _ = self.events.try_send(AgentEvent::Injected { report, at: Instant::now() });
        }
        Ok(())
    }
}

/// The voice of a person: what their ear's listener would say.
pub struct Voice {
    script: mpsc::Sender<SpeechEvent>,
    segment: u64,
}

impl Voice {
    fn send(&self, event: SpeechEvent) {
        let _ = self.script.try_send(event);
    }

    /// Says something of the length of its words, and waits until it is over.
    pub async fn says(&mut self, text: &str) {
        self.begins();
        tokio::time::sleep(WORD * text.split(' ').count() as u32).await;
        self.ends(text);
    }

    pub fn begins(&mut self) {
        self.segment += 1;
        self.send(SpeechEvent::Started { segment: self.segment, at: Instant::now() });
    }

    pub fn ends(&mut self, text: &str) {
        let (segment, last_speech) = (self.segment, Instant::now());
        let transcript = Transcript { text: text.into() };
        self.send(SpeechEvent::Ended { segment, last_speech });
        self.send(SpeechEvent::Final { segment, started: last_speech, last_speech, transcript, failed: false });
    }

    pub fn partial(&self, text: &str) {
        self.send(SpeechEvent::Partial { segment: self.segment, text: text.into() });
    }
}

async fn hear(mut reader: TapReader, mut script: mpsc::Receiver<SpeechEvent>, events: mpsc::Sender<SpeechEvent>) {
    loop {
        let event = tokio::select! {
            biased;
            Some(event) = script.recv() => event,
            None = reader.read() => {
                let _ = events.send(SpeechEvent::Closed).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

pub struct Stage {
    pub id: InterviewId,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub seen: Arc<Mutex<Seen>>,
    pub library: Library,
    events: mpsc::Sender<AgentEvent>,
    commands: mpsc::Sender<Command>,
    scripts: Arc<Mutex<VecDeque<mpsc::Receiver<SpeechEvent>>>>,
    pub session: tokio::task::JoinHandle<()>,
    folder: Arc<tempfile::TempDir>,
    requests: u32,
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.endpointing.min_delay_ms = 40;
    config.endpointing.voice_only_delay_ms = 40;
    config.endpointing.max_delay_ms = 600;
    config.interruption.min_speech_ms = 30;
    config.return_grace_secs = 1;
    config
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(config(), None, true).await
    }

    pub async fn with(config: Config, llm: Option<Arc<dyn LlmProvider>>, recognition: bool) -> Self {
        Self::make(config, llm, recognition, None).await
    }

    /// With the real mouth and this voice.
    pub async fn with_voice(config: Config, voice: Arc<dyn TtsProvider>) -> Self {
        Self::make(config, None, true, Some(voice)).await
    }

    async fn make(
        config: Config,
        llm: Option<Arc<dyn LlmProvider>>,
        recognition: bool,
        voice: Option<Arc<dyn TtsProvider>>,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let metrics = Arc::new(Metrics::new());
        let url = format!("sqlite://{}", folder.path().join("viva.db").display());
        let store = Store::open(&store::Config { url }, metrics.clone()).await.unwrap();
        let interview = Interview {
            id: InterviewId::random(),
            room: "room".into(),
            plan: "backend-engineer".into(),
            persona: "ada".into(),
            interviewee: "sam".into(),
            interviewee_name: "Sam".into(),
            state: InterviewState::Open,
            end_reason: None,
            created_at_ms: 0,
            started_at_ms: None,
            ended_at_ms: None,
            questions_asked: 0,
            questions_total: 6,
        };
        store.insert_interview(&interview, "").await.unwrap();
        Self::start(folder, store, metrics, interview, config, llm, recognition, voice).await
    }

    /// The server stops and starts: a new session of the same interview.
    pub async fn restart(self) -> Self {
        self.commands.send(Command::Shutdown).await.ok().unwrap();
        self.session.await.unwrap();
        let interview = self.store.interview(&self.id).await.unwrap().unwrap();
        Self::start(self.folder, self.store, self.metrics, interview, config(), None, true, None).await
    }

    #[allow(clippy::too_many_arguments)] // Once a start, once a restart.
    async fn start(
        folder: Arc<tempfile::TempDir>,
        store: Store,
        metrics: Arc<Metrics>,
        interview: Interview,
        config: Config,
        llm: Option<Arc<dyn LlmProvider>>,
        recognition: bool,
        voice: Option<Arc<dyn TtsProvider>>,
    ) -> Self {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = Library::load(&root.join("config/plans"), &root.join("config/personas")).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (events, event_queue) = mpsc::channel(64);
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (mouth, mouth_events): (Box<dyn Mouth>, _) = match voice {
            Some(voice) => {
                let sink = Arc::new(FakeSink { events: events.clone() });
                let (speaker, events) = Speaker::spawn(voice, sink, metrics.clone());
                (Box::new(speaker), events)
            }
            None => {
                let (commands, sayings) = mpsc::channel(SCRIPT_MAX);
                let (mouth_events, mouth_queue) = mpsc::channel(64);
                tokio::spawn(speak(sayings, mouth_events, events.clone()));
                (Box::new(FakeMouth { commands }), mouth_queue)
            }
        };
        let scripts: Arc<Mutex<VecDeque<mpsc::Receiver<SpeechEvent>>>> = Arc::default();
        let waiting = scripts.clone();
        let id = interview.id.clone();
        let words = Interviewer {
            plan: library.plan(&interview.plan).unwrap().clone(),
            persona: library.persona(&interview.persona).unwrap().clone(),
            name: interview.interviewee_name.clone(),
        };
        let port = FakeRoom {
            identity: "viva-interviewer".into(),
            track: "TR_ai".into(),
            seen: seen.clone(),
            events: events.clone(),
        };
        let session = Session::new(Setup {
            notice_version: "test".into(),
            interview,
            words,
            config,
            store: store.clone(),
            metrics: metrics.clone(),
            llm,
            stt_name: recognition.then_some("script"),
            tts_name: "script",
            port,
            events: event_queue,
            mouth,
            mouth_events,
            listen: Box::new(move |reader| {
                let (events, queue) = mpsc::channel(64);
                // Who has no script is silent.
                let script = waiting.lock().unwrap().pop_front().unwrap_or_else(|| mpsc::channel(1).1);
                tokio::spawn(hear(reader, script, events));
                queue
            }),
            commands: command_queue,
            interviewee_here: Arc::new(AtomicBool::new(false)),
        })
        .await
        .unwrap();
        let session = tokio::spawn(session.run());
        Self { id, store, metrics, seen, library, events, commands, scripts, session, folder, requests: 0 }
    }

    /// A person joins with a microphone and becomes active.
    pub async fn joins(&self, identity: &str, role: &str, consent: &str) -> Voice {
        let (script, voice) = mpsc::channel(SCRIPT_MAX);
        self.scripts.lock().unwrap().push_back(voice);
        let (sid, track) = (format!("PA_{identity}"), format!("TR_{identity}"));
        self.seen.lock().unwrap().microphones.insert(identity.into(), (sid.as_str().into(), track.as_str().into()));
        let mut attributes = HashMap::from([("viva.role".to_owned(), role.to_owned())]);
        if !consent.is_empty() {
            attributes.insert("viva.consent".into(), consent.into());
        }
        let name = identity.to_uppercase();
        let person = Person { sid: sid.as_str().into(), identity: identity.into(), name, attributes, human: true };
        self.event(AgentEvent::Joined(person)).await;
        self.event(AgentEvent::Active { sid: sid.as_str().into() }).await;
        Voice { script, segment: 0 }
    }

    /// A person is gone: their tap closes with them.
    pub async fn leaves(&self, identity: &str) {
        self.seen.lock().unwrap().open.remove(identity);
        let sid = format!("PA_{identity}").into();
        self.event(AgentEvent::Left { sid, identity: identity.into() }).await;
    }

    /// A person is gone in the middle of words, which are recognised only then.
    pub async fn leaves_with(&self, identity: &str, mut voice: Voice, words: &str) {
        let sid = format!("PA_{identity}").into();
        self.event(AgentEvent::Left { sid, identity: identity.into() }).await;
        self.state("idle").await;
        voice.ends(words);
        self.seen.lock().unwrap().open.remove(identity);
    }

    pub async fn event(&self, event: AgentEvent) {
        let _ = self.events.send(event).await;
    }

    /// Calls a method as the page does; the answer, or code and message.
    pub async fn rpc(&mut self, identity: &str, method: &str, payload: &str) -> Result<String, (u32, String)> {
        self.requests += 1;
        let id = format!("r{}", self.requests);
        let request = RpcRequest {
            id: id.clone(),
            method: method.into(),
            payload: payload.into(),
            version: 1,
            response_timeout_ms: 10_000,
            ..RpcRequest::default()
        };
        let packet = DataPacket { value: Some(Value::RpcRequest(request)), ..DataPacket::default() };
        let from = format!("PA_{identity}").into();
        self.event(AgentEvent::Data { from, reliable: true, packet: Box::new(packet) }).await;
        self.until("an answer to an RPC", |seen| {
            let acked =
                seen.packets.iter().position(|p| matches!(&p.value, Some(Value::RpcAck(a)) if a.request_id == id))?;
            seen.packets[acked..].iter().find_map(|p| match &p.value {
                Some(Value::RpcResponse(r)) if r.request_id == id => {
                    assert_eq!(p.destination_identities, [identity]);
                    match r.value.clone()? {
                        rpc_response::Value::Payload(payload) => Some(Ok(payload)),
                        rpc_response::Value::Error(e) => Some(Err((e.code, e.message))),
                        rpc_response::Value::CompressedPayload(_) => None,
                    }
                }
                _ => None,
            })
        })
        .await
    }

    /// Another program holds the database until what this returns is dropped.
    pub async fn lock_database(&self) -> sqlx::SqliteConnection {
        use sqlx::{ConnectOptions, Executor, sqlite::SqliteConnectOptions};
        let path = self.folder.path().join("viva.db");
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        connection.execute("BEGIN EXCLUSIVE").await.unwrap();
        connection
    }

    pub async fn consents(&self, identity: &str, purpose: Purpose, granted: bool) {
        self.decides(identity, purpose, granted).await.unwrap();
    }

    pub async fn decides(&self, identity: &str, purpose: Purpose, granted: bool) -> Result<(), ConsentError> {
        let (done, result) = oneshot::channel();
        let command = Command::Consent {
            identity: identity.into(),
            purpose,
            granted,
            notice_version: "test".into(),
            source: "rest".into(),
            done,
        };
        self.commands.send(command).await.ok().unwrap();
        result.await.unwrap()
    }

    /// Waits until the room shows what is looked for.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look(&self.seen.lock().unwrap()) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain for {what}; captions: {:#?}", self.captions());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the interviewer has said something with these words in it, to its end or until it was stopped.
    pub async fn hears(&self, words: &str) {
        self.until(&format!("the interviewer to say `{words}`"), |seen| {
            captions(seen)
                .into_iter()
                .any(|(who, text, last)| who.is_empty() && last && text.contains(words))
                .then_some(())
        })
        .await;
        self.state("listening").await;
    }

    /// Waits until the interviewer has had turn number `n`, and listens or is gone.
    pub async fn turn(&self, n: usize) {
        let started = Instant::now();
        while self.turns().await.get(n).is_none_or(|t| t.times.first_packet_us.is_none()) {
            assert!(started.elapsed() < PATIENCE, "waited in vain for turn {n}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.until("silence", |s| (s.attributes["lk.agent.state"] != "speaking").then_some(())).await;
    }

    pub async fn state(&self, state: &str) {
        self.until(state, |seen| (seen.attributes.get("lk.agent.state")? == state).then_some(())).await;
    }

    pub async fn attribute(&self, name: &str, value: &str) {
        self.until(&format!("{name}={value}"), |seen| (seen.attributes.get(name)? == value).then_some(())).await;
    }

    /// Writes a message in the chat as LiveKit's clients do.
    pub async fn writes(&self, identity: &str, message: &str) {
        let stream = format!("chat-{}", message.len());
        self.begins_to_write(identity, &stream, message).await;
        self.ends_to_write(identity, &stream).await;
    }

    /// All of a message but its end.
    pub async fn begins_to_write(&self, identity: &str, stream: &str, message: &str) {
        let (stream_id, content) = (stream.to_owned(), message.as_bytes().to_vec());
        let content_header = Some(ContentHeader::TextHeader(TextHeader::default()));
        let topic = "lk.chat".to_owned();
        let header = Header { stream_id: stream_id.clone(), topic, content_header, ..Header::default() };
        self.sends(identity, Value::StreamHeader(header)).await;
        self.sends(identity, Value::StreamChunk(Chunk { stream_id, content, ..Chunk::default() })).await;
    }

    pub async fn ends_to_write(&self, identity: &str, stream: &str) {
        let stream_id = stream.to_owned();
        self.sends(identity, Value::StreamTrailer(Trailer { stream_id, ..Trailer::default() })).await;
    }

    async fn sends(&self, identity: &str, value: Value) {
        let packet = Box::new(DataPacket { value: Some(value), ..DataPacket::default() });
        self.event(AgentEvent::Data { from: format!("PA_{identity}").into(), reliable: true, packet }).await;
    }

    /// What the interviewer has written in the chat: to whom (nobody: to all), and what.
    pub fn chat(&self) -> Vec<(Vec<String>, String)> {
        let text = |t: Text| (t.to, String::from_utf8(t.content).unwrap());
        texts(&self.seen.lock().unwrap(), "lk.chat").into_iter().map(text).collect()
    }

    /// Waits until the chat has `n` messages of the interviewer.
    pub async fn chat_has(&self, n: usize) -> Vec<(Vec<String>, String)> {
        self.until("a message in the chat", |seen| (texts(seen, "lk.chat").len() >= n).then_some(())).await;
        self.chat()
    }

    pub fn captions(&self) -> Vec<(String, String, bool)> {
        captions(&self.seen.lock().unwrap())
    }

    pub async fn lines(&self) -> Vec<TranscriptLine> {
        self.store.lines(&self.id).await.unwrap()
    }

    /// `who: words` of every line.
    pub async fn transcript(&self) -> Vec<String> {
        self.lines().await.into_iter().map(|l| format!("{}: {}", l.identity.as_str(), l.text.0)).collect()
    }

    pub async fn turns(&self) -> Vec<TurnRecord> {
        self.store.turns(&self.id).await.unwrap()
    }

    pub async fn interview(&self) -> Interview {
        self.store.interview(&self.id).await.unwrap().unwrap()
    }

    pub fn question(&self, n: usize) -> String {
        self.library.plan("backend-engineer").unwrap().questions[n].text.clone()
    }
}

/// Streams of transcription in order of their beginning: on whose behalf, text, final.
/// A text stream that the interviewer sent.
struct Text {
    id: String,
    topic: String,
    on_behalf: String,
    to: Vec<String>,
    content: Vec<u8>,
    last: bool,
}

fn texts(seen: &Seen, topic: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    for packet in &seen.packets {
        match &packet.value {
            Some(Value::StreamHeader(h)) => texts.push(Text {
                id: h.stream_id.clone(),
                topic: h.topic.clone(),
                on_behalf: packet.participant_identity.clone(),
                to: packet.destination_identities.clone(),
                content: vec![],
                last: h.attributes.get("lk.transcription_final").is_none_or(|f| f == "true"),
            }),
            Some(Value::StreamChunk(c)) => {
                let text = texts.iter_mut().find(|t| t.id == c.stream_id).unwrap();
                assert_eq!(packet.destination_identities, text.to, "a stream goes to the same people throughout");
                text.content.extend_from_slice(&c.content);
            }
            _ => {}
        }
    }
    texts.retain(|t| t.topic == topic);
    texts
}

fn captions(seen: &Seen) -> Vec<(String, String, bool)> {
    let text = |t: Text| (t.on_behalf, String::from_utf8(t.content).unwrap(), t.last);
    texts(seen, "lk.transcription").into_iter().map(text).collect()
}
