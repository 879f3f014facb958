//! The interviewer's replies: decided by the cursor, worded by script or model, spoken, and accounted for.

use std::{
    collections::BTreeMap,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Session,
    captions::{self, Growing, Of},
    now,
    record::Write,
};
use crate::{
    interview::{
        clauses::{self, ClauseSplitter},
        conversation::{AgentState, Cause, Effect},
        cursor::{Act, CloseWhy, Input, PlanCursor},
        port::RoomPort,
        turn::TurnEvent,
    },
    model::{EndReason, Personal, Role, TranscriptLine, TurnRecord, TurnTimes},
    speech::{ProviderError, ProviderErrorKind, speaker::SpeakerEvent},
};

/// A model gets this much longer than its own time-outs before the session itself gives up on it.
const LATE_GRACE: Duration = Duration::from_millis(250);

/// One reply from its decision until its last word.
pub(super) struct Reply {
    act: Act,
    /// Whether what it answers was added to the history.
    remembered: bool,
    /// The cursor and its input before the decision, to undo it.
    before: (PlanCursor, bool),
    /// The last speech that it answers, or its decision.
    reference: Instant,
    stages: Stages,
    /// Everything that was given to the mouth.
    said: String,
    generation: Option<Generation>,
    caption: Option<Growing>,
    /// How much of `said` is in the caption, bytes.
    captioned: usize,
    started: Option<Instant>,
    line: Option<u32>,
    turn: Option<u32>,
    /// It was stopped from here.
    stopped: bool,
    /// It answers something written, and is to be read where that was written.
    written: bool,
}

#[derive(Default)]
struct Stages {
    /// Whether the end of the turn was judged by words, not by voice alone.
    by_words: bool,
    endpoint: Option<Instant>,
    stt_final: Option<Instant>,
    llm_first_token: Option<Instant>,
    first_clause: Option<Instant>,
    tts_first_audio: Option<Instant>,
    first_packet: Option<Instant>,
}

struct Generation {
    pieces: mpsc::Receiver<Result<Personal, ProviderError>>,
    splitter: ClauseSplitter,
    provider: &'static str,
    first_by: Instant,
    by: Instant,
    began: bool,
}

impl Generation {
    fn deadline(&self) -> Instant {
        if self.began { self.by } else { self.first_by.min(self.by) }
    }
}

type Piece = Option<Result<Personal, ProviderError>>;

/// The next piece of a reply that a model is making. Resolves to `None` at once where there is none.
pub(super) async fn next_piece(replies: &mut BTreeMap<u64, Reply>) -> Option<(u64, Piece)> {
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (number, reply) in replies.iter_mut() {
            let Some(generation) = &mut reply.generation else { continue };
            waiting = true;
            if let Poll::Ready(piece) = generation.pieces.poll_recv(cx) {
                return Poll::Ready(Some((*number, piece)));
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(None) }
    })
    .await
}

pub(super) fn poll_timeout(replies: &BTreeMap<u64, Reply>) -> Option<Instant> {
    replies.values().filter_map(|r| r.generation.as_ref().map(Generation::deadline)).min()
}

impl<P: RoomPort> Session<P> {
    /// Hands what the turn detector found to the conversation, and runs what that wants.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(event) = self.detector.poll_event() {
                if let TurnEvent::Held(held) = event {
                    self.attributes.insert("viva.hold".into(), if held { "1".into() } else { String::new() });
                }
                self.conversation.handle_turn(event, now());
            } else if let Some(effect) = self.conversation.poll_effect() {
                self.run_effect(effect);
            } else {
                return;
            }
        }
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Interrupt { reply, barge_in } => self.interrupt(reply, barge_in),
            Effect::Cancel { reply, reopen } => self.cancel(reply, reopen),
            Effect::Reply { reply, cause } => self.start_reply(reply, cause),
            Effect::State(state) => self.put_state(state),
        }
    }

    fn put_state(&mut self, state: AgentState) {
        self.state = state;
        self.attributes.insert("lk.agent.state".into(), state.as_str().into());
    }

    fn interrupt(&mut self, number: u64, barge_in: bool) {
        self.setup.mouth.interrupt();
        let Some(reply) = self.replies.get_mut(&number) else { return };
        reply.stopped = true;
        reply.generation = None;
        if barge_in {
            let turn = reply.turn;
            tracing::info!(interview = %self.setup.interview.id, turn, "barge_in decided");
            self.setup.metrics.barge_ins.inc();
        }
    }

    /// Stops a reply at the end of the session.
    pub(super) fn drop_reply(&mut self, number: u64) {
        self.interrupt(number, false);
        if self.replies.get(&number).is_some_and(|r| r.said.is_empty()) {
            self.replies.remove(&number);
        }
    }

    fn cancel(&mut self, number: u64, reopen: bool) {
        if let Some(reply) = self.replies.get_mut(&number) {
            reply.stopped = true;
            reply.generation = None;
            (self.cursor, self.cut_off) = reply.before.clone();
            if reply.remembered {
                self.history.pop();
            }
            if reply.said.is_empty() {
                self.replies.remove(&number);
            } else {
                self.setup.mouth.interrupt();
            }
        }
        if reopen {
            self.detector.reopen();
        }
    }

    fn start_reply(&mut self, number: u64, cause: Cause) {
        let now = now();
        let before = (self.cursor.clone(), std::mem::take(&mut self.cut_off));
        let input = match &cause {
            Cause::Begin => Input::Begin,
            Cause::Answer(utterance) => Input::Answer {
                text: utterance.text.as_ref().map(|t| t.0.as_str()),
                complete: utterance.complete,
                cut_off: before.1,
                done: utterance.done,
            },
            Cause::Silence => Input::Silence,
            Cause::GiveUp => Input::GiveUp,
            Cause::Repeat => Input::Repeat,
            Cause::FalseInterruption => {
                self.setup.metrics.false_interruptions.inc();
                Input::FalseInterruption
            }
            Cause::Returned => Input::Returned,
            Cause::TimeUp => Input::TimeUp,
        };
        let act = self.cursor.decide(&self.setup.words.plan, input);
        let mut reply = Reply {
            act,
            remembered: false,
            before,
            reference: now,
            stages: Stages::default(),
            said: String::new(),
            generation: None,
            caption: None,
            captioned: 0,
            started: None,
            line: None,
            turn: None,
            stopped: false,
            written: false,
        };
        if let Cause::Answer(utterance) = cause {
            let text = utterance.text.unwrap_or_else(|| "(inaudible)".into());
            self.remember(Role::Interviewee, &text);
            reply.remembered = !text.0.is_empty();
            reply.written = utterance.written;
            if !utterance.kept && !utterance.written {
                reply.reference = utterance.last_speech;
                reply.stages.by_words = utterance.stt_final.is_some();
                reply.stages.endpoint = Some(utterance.committed);
                reply.stages.stt_final = utterance.stt_final;
            }
        }
        if self.record.begin(now) {
            self.count_active();
        }
        self.acts += 1;
        reply.generation = self.generate(act, now);
        let scripted = reply.generation.is_none();
        self.replies.insert(number, reply);
        if scripted {
            self.say_script(number);
        }
    }

    /// Asks the model to word an act, where there is one and the words may vary.
    fn generate(&self, act: Act, now: Instant) -> Option<Generation> {
        // The greeting says that an AI speaks, which is no matter of style; a nudge is a few words that must come at once.
        if matches!(act, Act::Greet { .. } | Act::Nudge { .. }) {
            return None;
        }
        let llm = self.setup.llm.as_ref()?;
        let config = &self.setup.config.llm;
        let prompt = self.setup.words.prompt(act, &self.history, config.max_tokens, config.temperature);
        Some(Generation {
            pieces: llm.reply(prompt),
            splitter: ClauseSplitter::default(),
            provider: llm.name(),
            first_by: now + Duration::from_millis(config.timeout_ms) + LATE_GRACE,
            by: now + Duration::from_millis(config.total_timeout_ms) + LATE_GRACE,
            began: false,
        })
    }

    fn say_script(&mut self, number: u64) {
        let Some(act) = self.replies.get(&number).map(|r| r.act) else { return };
        let script = self.setup.words.script(act, self.acts);
        self.say(number, clauses::split(&script));
        self.setup.mouth.end(number);
    }

    fn say(&mut self, number: u64, clauses: Vec<String>) {
        let Some(reply) = self.replies.get_mut(&number) else { return };
        for clause in clauses {
            reply.stages.first_clause.get_or_insert_with(now);
            if !reply.said.is_empty() {
                reply.said.push(' ');
            }
            reply.said.push_str(&clause);
            self.setup.mouth.say(number, clause);
        }
    }

    pub(super) fn handle_piece(&mut self, number: u64, piece: Piece) {
        let Some(reply) = self.replies.get_mut(&number) else { return };
        let Some(generation) = &mut reply.generation else { return };
        match piece {
            Some(Ok(piece)) => {
                generation.began = true;
                reply.stages.llm_first_token.get_or_insert_with(now);
                let clauses = generation.splitter.push(&piece.0);
                self.say(number, clauses);
            }
            Some(Err(error)) => self.give_up_on_model(number, &error),
            None => {
                let rest = reply.generation.take().and_then(|g| g.splitter.finish());
                self.say(number, rest.into_iter().collect());
                match self.replies.get(&number) {
                    Some(reply) if reply.said.is_empty() => {
                        self.count_model_error(ProviderErrorKind::Malformed, "the reply is empty");
                        self.say_script(number);
                    }
                    _ => self.setup.mouth.end(number),
                }
            }
        }
    }

    /// A model that failed is replaced by the script: by all of it, or by what is still missing.
    fn give_up_on_model(&mut self, number: u64, error: &ProviderError) {
        self.count_model_error(error.kind, &error.message);
        let Some(reply) = self.replies.get_mut(&number) else { return };
        reply.generation = None;
        if reply.said.is_empty() {
            return self.say_script(number);
        }
        let missing = self.setup.words.essence(reply.act).filter(|e| !reply.said.contains(e.as_str()));
        self.say(number, missing.as_deref().map(clauses::split).unwrap_or_default());
        self.setup.mouth.end(number);
    }

    fn count_model_error(&self, kind: ProviderErrorKind, message: &str) {
        let provider = self.setup.llm.as_ref().map_or("none", |l| l.name());
        self.setup.metrics.provider_errors.with_label_values(&["llm", provider, kind.as_str()]).inc();
        tracing::warn!(interview = %self.id(), provider, %kind, message, "the model failed: the script speaks");
    }

    /// Gives up on models that have said nothing in time, whatever their providers do.
    pub(super) fn handle_late_replies(&mut self, now: Instant) {
        let late = |r: &Reply| r.generation.as_ref().filter(|g| now >= g.deadline()).map(|g| g.provider);
        let late: Vec<_> = self.replies.iter().filter_map(|(n, r)| late(r).map(|p| (*n, p))).collect();
        for (number, provider) in late {
            let message = "no answer in time".to_owned();
            self.give_up_on_model(number, &ProviderError { provider, kind: ProviderErrorKind::Timeout, message });
        }
    }

    pub(super) async fn handle_mouth(&mut self, event: SpeakerEvent) {
        match event {
            SpeakerEvent::FirstAudio { utterance, at } => {
                if let Some(reply) = self.replies.get_mut(&utterance) {
                    reply.stages.tts_first_audio = Some(at);
                }
            }
            SpeakerEvent::Started { utterance, at } => self.handle_started(utterance, at),
            SpeakerEvent::Finished { utterance, at, heard, complete } => {
                self.handle_finished(utterance, at, heard, complete).await;
            }
        }
        self.caption_replies().await;
    }

    fn handle_started(&mut self, number: u64, at: Instant) {
        let Some(reply) = self.replies.get_mut(&number) else { return };
        reply.started = Some(at);
        reply.line = Some(self.record.next_line());
        reply.turn = Some(self.record.next_turn());
        if reply.stopped {
            return;
        }
        let act = reply.act;
        self.conversation.handle_speaking(number);
        self.detector.seal();
        self.setup.metrics.turns.with_label_values(&[act.label()]).inc();
        self.record.question = self.cursor.question(&self.setup.words.plan).map(|q| q.id.clone());
        self.record.write(Write::Progress(self.cursor.asked()));
        self.put_progress();
        self.settle();
    }

    pub(super) fn handle_injected(&mut self, number: u64, at: Instant) {
        let Some(reply) = self.replies.get_mut(&number) else { return };
        reply.stages.first_packet = Some(at);
        if !reply.stopped {
            self.observe(number);
        }
        self.write_turn(number, false);
    }

    /// The stages of a reply whose first packet is out.
    fn observe(&self, number: u64) {
        let Some(Reply { stages, reference, .. }) = self.replies.get(&number) else { return };
        let metrics = &self.setup.metrics;
        let between =
            |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?).as_secs_f64());
        let llm = self.setup.llm.as_ref().map_or("none", |l| l.name());
        if let Some(s) = between(stages.endpoint, stages.llm_first_token) {
            metrics.llm_first_token.with_label_values(&[llm]).observe(s);
        }
        if let Some(s) = between(stages.llm_first_token, stages.first_clause) {
            metrics.llm_first_clause.with_label_values(&[llm]).observe(s);
        }
        if let Some(s) = between(stages.first_clause, stages.tts_first_audio) {
            metrics.tts_first_audio.with_label_values(&[self.setup.tts_name]).observe(s);
        }
        if let Some(s) = between(stages.tts_first_audio, stages.first_packet) {
            metrics.speech_first_packet.observe(s);
        }
        if let (true, Some(s)) = (stages.endpoint.is_some(), between(Some(*reference), stages.endpoint)) {
            let detector = if stages.by_words { "words" } else { "voice" };
            metrics.turn_endpointing_delay.with_label_values(&[detector]).observe(s);
        }
        if let (true, Some(s)) = (stages.endpoint.is_some(), between(Some(*reference), stages.first_packet)) {
            metrics.response_latency.observe(s);
        }
    }

    fn write_turn(&mut self, number: u64, interrupted: bool) {
        let Some(reply) = self.replies.get(&number) else { return };
        let Some(seq) = reply.turn else { return };
        let us = |at: Option<Instant>| at.map(|at| signed_us(reply.reference, at));
        let question = reply.act.question().and_then(|i| self.setup.words.plan.questions.get(i));
        let stages = &reply.stages;
        let turn = TurnRecord {
            interview: self.id().clone(),
            seq,
            question_id: question.map(|q| q.id.clone()),
            act: reply.act.label().to_owned(),
            at_ms: self.record.offset_ms(reply.reference),
            interrupted,
            times: TurnTimes {
                endpoint_us: us(stages.endpoint),
                stt_final_us: us(stages.stt_final),
                llm_first_token_us: us(stages.llm_first_token),
                first_clause_us: us(stages.first_clause),
                tts_first_audio_us: us(stages.tts_first_audio),
                first_packet_us: us(stages.first_packet),
            },
        };
        self.record.write(Write::Turn(turn));
    }

    async fn handle_finished(&mut self, number: u64, at: Instant, heard: Personal, complete: bool) {
        if !self.replies.contains_key(&number) {
            return;
        }
        self.write_turn(number, !complete);
        let Some(reply) = self.replies.remove(&number) else { return };
        self.note_heard(&reply, at, &heard, complete);
        self.conversation.handle_finished(number, now());
        self.settle();
        self.write_record().await;
        self.close_caption(number, reply.caption, &reply.said, &heard, reply.started.is_some() || reply.stopped).await;
        let words = if reply.started.is_some() || reply.stopped { &heard.0 } else { &reply.said };
        if reply.written && !words.is_empty() {
            self.write(words).await;
        }
        // A goodbye that the interviewee talked into is answered by another one.
        if let Act::Close { why } = reply.act
            && !reply.stopped
        {
            let late = why == CloseWhy::TimeUp || self.time_up;
            self.end(if late { EndReason::TimeUp } else { EndReason::Completed }, None);
        }
    }

    /// Keeps just what was heard, and judges whether a question was asked by it.
    fn note_heard(&mut self, reply: &Reply, at: Instant, heard: &Personal, complete: bool) {
        if reply.started.is_none() && !reply.stopped {
            tracing::error!(interview = %self.id(), act = reply.act.label(), "a reply had no voice: it is shown only");
        }
        self.remember(Role::Ai, heard);
        let asks = !matches!(reply.act, Act::Nudge { .. } | Act::Close { .. });
        if asks && reply.started.is_some() {
            let (heard, said) = (heard.0.split_whitespace().count(), reply.said.split_whitespace().count());
            self.cut_off = !complete && heard * 4 < said * 3;
        }
        if heard.0.is_empty() {
            return;
        }
        let (start, seq) = (reply.started.unwrap_or(at), reply.line.unwrap_or_else(|| self.record.next_line()));
        let question = reply.act.question().and_then(|i| self.setup.words.plan.questions.get(i));
        let line = TranscriptLine {
            interview: self.id().clone(),
            seq,
            identity: self.setup.port.identity().clone(),
            name: self.setup.words.persona.name.as_str().into(),
            role: Role::Ai,
            start_ms: self.record.offset_ms(start),
            end_ms: self.record.offset_ms(at),
            text: heard.clone(),
            question_id: question.map(|q| q.id.clone()),
            interrupted: !complete,
        };
        self.record.write(Write::Line(line));
    }

    /// Shows what is being said, as far as it is worded.
    pub(super) async fn caption_replies(&mut self) {
        let mut packets = Vec::new();
        let (me, track) = (self.setup.port.identity(), self.setup.port.track());
        for (number, reply) in self.replies.iter_mut().filter(|(_, r)| r.started.is_some() && !r.stopped) {
            let fresh = &reply.said[reply.captioned..];
            if fresh.is_empty() {
                continue;
            }
            let segment = self.record.segment_id(&format!("ai-{number}"));
            let of = Of { speaker: me, sender: me, track, segment: &segment };
            let caption = reply.caption.get_or_insert_with(|| {
                let (caption, header) = Growing::open(&of);
                packets.push(header);
                caption
            });
            packets.extend(caption.add(&of, fresh));
            reply.captioned = reply.said.len();
        }
        self.send(packets).await;
    }

    async fn close_caption(&self, number: u64, caption: Option<Growing>, said: &str, heard: &Personal, voiced: bool) {
        let segment = self.record.segment_id(&format!("ai-{number}"));
        let me = self.setup.port.identity();
        let of = Of { speaker: me, sender: me, track: self.setup.port.track(), segment: &segment };
        let mut packets: Vec<_> = caption.map(|c| c.close(&of)).into_iter().collect();
        // Words that no voice could say are still to be read.
        let text = if voiced { &heard.0 } else { said };
        if !text.is_empty() {
            packets.extend(captions::whole(&of, text, true));
        }
        self.send(packets).await;
    }

    /// The question again, at the interviewee's wish.
    pub(super) fn repeat(&mut self) {
        self.conversation.handle_repeat(now());
        self.settle();
    }
}

fn signed_us(from: Instant, to: Instant) -> i64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_micros() as i64,
        None => -(from.saturating_duration_since(to).as_micros() as i64),
    }
}
