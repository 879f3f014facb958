//! The interviewer's mouth: clauses in, 20 ms Opus frames out at the pace of talk, and a true account of what was heard.
//!
//! Two tasks. The *synthesiser* turns clauses into Opus frames as fast as the voice makes them, some seconds ahead; the
//! *player* hands one frame to the sink every 20 ms. Not a mixer: one utterance at a time.
//!
//! Invariants: every utterance that was ever said ends in exactly one `Finished`; after [`Speaker::interrupt`] has
//! returned, no frame of what was said before it reaches the sink.

mod heard;
mod player;
mod synthesis;

use std::{sync::Arc, time::Instant};

use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use self::{player::Player, synthesis::Synthesiser};
use super::tts::TtsProvider;
use crate::{media::AudioSink, model::Personal, telemetry::Metrics};

/// Clauses and ends that wait for the synthesiser: more than ten minutes of talk. Full: an interruption, so that what
/// finds no room cannot leave its utterance without an end.
const CLAUSES_MAX: usize = 256;
/// Events that wait for the reader; an utterance makes three.
const EVENTS_MAX: usize = 64;
/// Frames synthesised ahead of their playing: 10 s. Full: synthesis waits.
const FRAMES_AHEAD_MAX: usize = 500;

/// Says things in order. One utterance at a time; a new one waits for the one before. Dropping it is an interruption
/// without events.
pub struct Speaker {
    commands: mpsc::Sender<Command>,
    /// How often there was an interruption: what was said under an older number is void. The player sends frames with
    /// a read lock on it, so that no frame can slip past an interruption.
    interruptions: watch::Sender<u64>,
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

/// What the synthesiser is asked; `epoch` is the number of interruptions when it was.
struct Command {
    epoch: u64,
    utterance: u64,
    kind: CommandKind,
}

enum CommandKind {
    Clause(String),
    End,
}

/// What the synthesiser gives to the player, in the order of playing.
struct Item {
    epoch: u64,
    utterance: u64,
    kind: ItemKind,
}

enum ItemKind {
    /// The frames that follow are this clause's.
    Clause(Personal),
    FirstAudio(Instant),
    Frame {
        payload: Box<[u8]>,
        /// Holds sound, not the silence before and after.
        audible: bool,
    },
    /// The clause has all its frames; not `complete` where the voice failed or was cancelled.
    ClauseEnd {
        complete: bool,
    },
    /// A frame of silence after the last clause that brings the encoder's last sound out.
    Tail(Box<[u8]>),
    End,
}

impl Speaker {
    /// Spawns the speaker's tasks. Events must be read: the queue is bounded and a full one delays speech. Frames go out
    /// until the sink is closed; then whatever is said ends at once.
    pub fn spawn(
        tts: Arc<dyn TtsProvider>,
        sink: Arc<dyn AudioSink>,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<SpeakerEvent>) {
        let (commands, command_queue) = mpsc::channel(CLAUSES_MAX);
        let (items, item_queue) = mpsc::channel(FRAMES_AHEAD_MAX);
        let (events, event_queue) = mpsc::channel(EVENTS_MAX);
        let (interruptions, epoch) = watch::channel(0);
        tokio::spawn(Synthesiser::new(tts, metrics, epoch.clone()).run(command_queue, items));
        tokio::spawn(Player::new(sink, epoch, events).run(item_queue));
        (Self { commands, interruptions }, event_queue)
    }

    /// Adds a clause to an utterance; the first clause opens it. Utterance numbers must rise. Clauses are synthesised
    /// ahead of their playing.
    pub fn say(&self, utterance: u64, clause: String) {
        self.command(utterance, CommandKind::Clause(clause));
    }

    /// No more clauses will come for this utterance.
    pub fn end(&self, utterance: u64) {
        self.command(utterance, CommandKind::End);
    }

    /// Stops at once: not one more frame leaves after this returns. Everything queued is dropped, synthesis cancelled;
    /// `Finished { complete: false }` follows for every utterance that was said and had not finished.
    pub fn interrupt(&self) {
        self.interruptions.send_modify(|n| *n += 1);
    }

    fn command(&self, utterance: u64, kind: CommandKind) {
        let epoch = *self.interruptions.borrow();
        match self.commands.try_send(Command { epoch, utterance, kind }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => tracing::debug!(utterance, "the speaker is gone"),
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(utterance, "the speaker has too much to say: all of it is interrupted");
                self.interrupt();
                self.end_later(Command { epoch, utterance, kind: CommandKind::End });
            }
        }
    }

    /// Ends an utterance behind everything that waits. Its `epoch` is past, so nothing of it will sound.
    fn end_later(&self, end: Command) {
        let commands = self.commands.clone();
        let mut sending = Box::pin(async move {
            // Closed: the synthesiser is gone, and with it whoever waits for the end.
            let _ = commands.send(end).await;
        });
        // Polled here already: it has its place in the queue before anything else is said.
        if tokio::task::unconstrained(&mut sending).now_or_never().is_none() {
            tokio::spawn(sending);
        }
    }
}

#[cfg(test)]
mod tests;
