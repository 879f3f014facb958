//! The interviewer's mouth: clauses in, 20 ms Opus frames out at the pace of talk, and a true account of what was heard.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::tts::TtsProvider;
use crate::{media::AudioSink, model::Personal, telemetry::Metrics};

/// Says things in order. One utterance at a time; a new one waits for the one before.
pub struct Speaker {
    _private: (),
}

#[derive(Clone, Debug)]
pub enum SpeakerEvent {
    /// The first audio of the utterance came from text-to-speech.
    FirstAudio { utterance: u64, at: Instant },
    /// The first frame of the utterance was handed to the sink, with `OpusFrame::report` = utterance.
    Started { utterance: u64, at: Instant },
    /// The utterance is over: played to its end, or interrupted, or its voice failed. `heard` holds just the words that
    /// were played (to the nearest word, by the position within each clause's audio).
    Finished { utterance: u64, at: Instant, heard: Personal, complete: bool },
}

impl Speaker {
    /// Spawns the speaker's task. Events must be read: the queue is bounded and a full one delays speech.
    pub fn spawn(
        _tts: Arc<dyn TtsProvider>,
        _sink: Arc<dyn AudioSink>,
        _metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<SpeakerEvent>) {
        todo!()
    }

    /// Adds a clause to an utterance; the first clause opens it. Utterance numbers must rise. Clauses are synthesised
    /// ahead of their playing.
    pub fn say(&self, _utterance: u64, _clause: String) {
        todo!()
    }

    /// No more clauses will come for this utterance.
    pub fn end(&self, _utterance: u64) {
        todo!()
    }

    /// Stops at once: not one more frame leaves after this returns. Everything queued is dropped, synthesis cancelled;
    /// `Finished { complete: false }` follows for an utterance that had begun.
    pub fn interrupt(&self) {
        todo!()
    }
}
