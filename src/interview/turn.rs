//! Turn-taking: what one person's voice does, and when they have finished.
//!
//! PURE: time is an argument, nothing is sent or waited for. Feed it with `handle_*`, then take every
//! [`TurnDetector::poll_event`], then ask [`TurnDetector::poll_timeout`] when to call
//! [`TurnDetector::handle_timeout`]. It knows neither what the interviewer does nor what is asked; that is
//! [`super::conversation`] and [`super::cursor`].
//!
//! Invariant: every stretch of speech ends up in exactly one committed [`Utterance`], or is discarded as noise; an
//! utterance that was taken back ([`TurnDetector::reopen`]) is committed again, with what was added.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::phrases::looks_finished;
use crate::{model::Personal, speech::listener::SpeechEvent};

/// How long *I'm done*, or a message, waits for the words of what was just said. The person waits, too.
const DONE_WAIT: Duration = Duration::from_millis(1500);

/// In the place of an ear, for what is written.
const WRITTEN: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// Delay after the last speech where the words look finished.
    pub min_delay: Duration,
    /// Delay after the last speech where only the voice is known: a pause to think is not told from an end.
    pub voice_only_delay: Duration,
    /// Delay after the last speech in every other case.
    pub max_delay: Duration,
    /// Voice of this length is reported as [`TurnEvent::Sustained`].
    pub sustained: Duration,
    /// Whether words are recognised at all.
    pub recognition: bool,
}

/// What a person said in one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Utterance {
    /// `None` where nothing is known of the words: recognition is off, failed or late.
    pub text: Option<Personal>,
    /// Whether `text` holds all of the words.
    pub complete: bool,
    pub started: Instant,
    pub last_speech: Instant,
    /// When the last final transcript came.
    pub stt_final: Option<Instant>,
    pub committed: Instant,
    /// The person pressed *I'm done*.
    pub done: bool,
    /// Some of it was written, not said.
    pub written: bool,
    /// It could not be answered when it was said: the time until the answer says nothing of the interviewer's haste.
    pub kept: bool,
}

impl Utterance {
    /// Words that were understood; `None` where the count means nothing.
    pub fn words(&self) -> Option<usize> {
        self.text.as_ref().filter(|_| self.complete).map(|t| t.0.split_whitespace().count())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum TurnEvent {
    /// Voice began.
    Started,
    /// Voice has lasted long enough to be meant; once per stretch of speech.
    Sustained,
    /// No voice now.
    Quiet,
    /// The turn is over.
    Committed(Utterance),
    /// What was heard held no words, and nothing else is pending.
    Discarded,
    /// *I'm thinking* began or is over.
    Held(bool),
}

struct Segment {
    ear: u32,
    id: u64,
    started: Instant,
    sustained_reported: bool,
    ended: Option<Instant>,
    partial: Personal,
    words: Words,
}

enum Words {
    Awaited,
    Known { text: Personal, at: Instant },
    Unknown,
}

/// The turn is over by the person's own word; what was just said may still be on its way.
#[derive(Clone, Copy)]
struct Closing {
    at: Instant,
    /// By *I'm done*, not by a message.
    done: bool,
}

/// One person's turns.
pub struct TurnDetector {
    config: TurnConfig,
    segments: Vec<Segment>,
    /// Segments of the last commit, for [`TurnDetector::reopen`].
    committed: Vec<Segment>,
    held_since: Option<Instant>,
    closing: Option<Closing>,
    events: VecDeque<TurnEvent>,
}

impl TurnDetector {
    pub fn new(config: TurnConfig) -> Self {
        Self { config, segments: vec![], committed: vec![], held_since: None, closing: None, events: VecDeque::new() }
    }

    /// `ear` tells apart the microphones of one person; segment numbers are each ear's own.
    pub fn handle_speech(&mut self, ear: u32, event: &SpeechEvent, now: Instant) {
        match event {
            SpeechEvent::Started { segment, at } => {
                self.segments.push(Segment {
                    ear,
                    id: *segment,
                    started: *at,
                    sustained_reported: false,
                    ended: None,
                    partial: Personal::default(),
                    words: if self.config.recognition { Words::Awaited } else { Words::Unknown },
                });
                self.events.push_back(TurnEvent::Started);
            }
            SpeechEvent::Partial { segment, text } => {
                if let Some(s) = self.find(ear, *segment) {
                    s.partial = text.clone();
                }
            }
            SpeechEvent::Ended { segment, last_speech } => {
                if let Some(s) = self.find(ear, *segment) {
                    s.ended = Some(*last_speech);
                    self.quiet();
                    if !self.config.recognition {
                        self.release_hold(ear, *segment);
                    }
                }
            }
            SpeechEvent::Final { segment, last_speech, transcript, failed, .. } => {
                self.handle_final(ear, *segment, *last_speech, &transcript.text, *failed, now);
            }
            SpeechEvent::Closed => self.close(ear, now),
        }
        self.evaluate(now);
    }

    /// *I'm thinking*: nothing is committed until the person has spoken again, or says that they are done.
    pub fn handle_thinking(&mut self, now: Instant) {
        if self.held_since.replace(now).is_none() {
            self.events.push_back(TurnEvent::Held(true));
        }
    }

    /// *I'm done*: commits at once, or as soon as the pending words are there. Without any speech, too: an empty turn.
    pub fn handle_done(&mut self, now: Instant) {
        self.closing.get_or_insert(Closing { at: now, done: true }).done = true;
        self.unhold();
        self.evaluate(now);
    }

    /// Words that the person wrote: they end the turn, with what was said before them.
    pub fn handle_written(&mut self, text: &Personal, now: Instant) {
        self.segments.push(Segment {
            ear: WRITTEN,
            id: 0,
            started: now,
            sustained_reported: true,
            ended: Some(now),
            partial: Personal::default(),
            words: Words::Known { text: text.clone(), at: now },
        });
        self.closing.get_or_insert(Closing { at: now, done: false });
        self.unhold();
        self.evaluate(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.evaluate(now);
    }

    /// Takes the last commit back, because the person went on talking: it is committed again with what follows.
    pub fn reopen(&mut self) {
        let mut segments = std::mem::take(&mut self.committed);
        segments.append(&mut self.segments);
        self.segments = segments;
    }

    /// The last commit has been answered: it cannot be taken back any more.
    pub fn seal(&mut self) {
        self.committed.clear();
    }

    /// Nothing that was heard counts any more.
    pub fn forget(&mut self) {
        self.segments.clear();
        self.committed.clear();
        self.closing = None;
        self.unhold();
        self.quiet();
    }

    pub fn poll_event(&mut self) -> Option<TurnEvent> {
        self.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let sustained = self
            .segments
            .iter()
            .filter(|s| s.ended.is_none() && !s.sustained_reported)
            .map(|s| s.started + self.config.sustained);
        sustained.chain(self.deadline()).min()
    }

    /// How much was written for the turn that is under way or may be taken back, bytes.
    pub fn written(&self) -> usize {
        let segments = self.segments.iter().chain(&self.committed).filter(|s| s.ear == WRITTEN);
        segments.map(|s| if let Words::Known { text, .. } = &s.words { text.0.len() } else { 0 }).sum()
    }

    /// Whether voice is heard now.
    pub fn voiced(&self) -> bool {
        self.segments.iter().any(|s| s.ended.is_none())
    }

    pub fn held(&self) -> bool {
        self.held_since.is_some()
    }

    fn find(&mut self, ear: u32, id: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().chain(&mut self.committed).find(|s| s.ear == ear && s.id == id)
    }

    fn handle_final(&mut self, ear: u32, id: u64, last_speech: Instant, text: &Personal, failed: bool, now: Instant) {
        let recognition = self.config.recognition;
        let Some(segment) = self.find(ear, id) else { return };
        segment.ended.get_or_insert(last_speech);
        let noise = recognition && !failed && text.0.trim().is_empty();
        if recognition {
            segment.words = if failed { Words::Unknown } else { Words::Known { text: text.clone(), at: now } };
        }
        self.quiet();
        if noise {
            let before = self.segments.len();
            self.segments.retain(|s| !(s.ear == ear && s.id == id));
            if before > 0 && self.segments.is_empty() && self.closing.is_none() {
                self.events.push_back(TurnEvent::Discarded);
            }
        } else {
            self.release_hold(ear, id);
        }
    }

    /// The ear is gone: what it was hearing is over, and no words will come for it.
    fn close(&mut self, ear: u32, now: Instant) {
        for s in self.segments.iter_mut().filter(|s| s.ear == ear) {
            s.ended.get_or_insert(now);
            if matches!(s.words, Words::Awaited) {
                s.words = Words::Unknown;
            }
        }
        self.quiet();
    }

    fn quiet(&mut self) {
        if !self.voiced() {
            self.events.push_back(TurnEvent::Quiet);
        }
    }

    /// Speech that began after *I'm thinking* and is over ends the hold.
    fn release_hold(&mut self, ear: u32, id: u64) {
        let Some(since) = self.held_since else { return };
        if self.segments.iter().any(|s| s.ear == ear && s.id == id && s.started > since) {
            self.unhold();
        }
    }

    fn unhold(&mut self) {
        if self.held_since.take().is_some() {
            self.events.push_back(TurnEvent::Held(false));
        }
    }

    /// When the pending speech becomes a turn, if nothing else happens.
    fn deadline(&self) -> Option<Instant> {
        if let Some(Closing { at, .. }) = self.closing {
            let pending = self.voiced() || self.segments.iter().any(|s| matches!(s.words, Words::Awaited));
            return Some(if pending { at + DONE_WAIT } else { at });
        }
        if self.held_since.is_some() || self.voiced() {
            return None;
        }
        let last_speech = self.segments.iter().filter_map(|s| s.ended).max()?;
        Some(last_speech + self.patience())
    }

    /// How long the person may pause.
    fn patience(&self) -> Duration {
        if self.segments.iter().any(|s| matches!(s.words, Words::Awaited)) {
            return self.config.max_delay;
        }
        match self.segments.last().map(|s| &s.words) {
            Some(Words::Known { text, .. }) if looks_finished(&text.0) => self.config.min_delay,
            Some(Words::Known { .. }) => self.config.max_delay,
            _ => self.config.voice_only_delay,
        }
    }

    fn evaluate(&mut self, now: Instant) {
        for s in &mut self.segments {
            if s.ended.is_none() && !s.sustained_reported && now >= s.started + self.config.sustained {
                s.sustained_reported = true;
                self.events.push_back(TurnEvent::Sustained);
            }
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.commit(now);
        }
    }

    fn commit(&mut self, now: Instant) {
        let closing = self.closing.take();
        let mut text = String::new();
        let mut complete = true;
        let mut stt_final = None;
        for s in &self.segments {
            let words = match &s.words {
                Words::Known { text, at } => {
                    stt_final = stt_final.max(Some(*at));
                    text
                }
                Words::Awaited | Words::Unknown => {
                    complete = false;
                    &s.partial
                }
            };
            if !words.0.trim().is_empty() {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(words.0.trim());
            }
        }
        // A stretch that is still voiced when *I'm done* has waited long enough is over by the person's own word.
        if self.voiced() {
            for s in &mut self.segments {
                s.ended.get_or_insert(now);
            }
            self.events.push_back(TurnEvent::Quiet);
        }
        let last_speech = self.segments.iter().filter_map(|s| s.ended).max().or(closing.map(|c| c.at)).unwrap_or(now);
        let utterance = Utterance {
            complete,
            text: (complete || !text.is_empty()).then_some(Personal(text)),
            started: self.segments.iter().map(|s| s.started).min().unwrap_or(last_speech),
            last_speech,
            stt_final,
            committed: now,
            done: closing.is_some_and(|c| c.done),
            written: self.segments.iter().any(|s| s.ear == WRITTEN),
            kept: false,
        };
        self.committed = std::mem::take(&mut self.segments);
        self.events.push_back(TurnEvent::Committed(utterance));
    }
}
