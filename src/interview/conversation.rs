//! The floor: who talks when, between one interviewee and the interviewer.
//!
//! PURE, as [`super::turn`]: `handle_*` in, [`Conversation::poll_effect`] out, [`Conversation::poll_timeout`] for time.
//! It knows no words and no plan: it says *that* the interviewer replies and to what, never how.
//!
//! Invariants: at most one reply is under way; a reply that the interviewee talked into before its first sound is never
//! spoken; the interviewer never stays silent for good while an interviewee is there who neither talks nor holds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::turn::{TurnEvent, Utterance};

/// Words that make talk during the interviewer's speech worth an answer, where it did not interrupt.
const REMARK_WORDS_MIN: usize = 3;

#[derive(Clone, Debug)]
pub struct ConversationConfig {
    /// Whether voice interrupts the interviewer.
    pub barge_in: bool,
    /// Silence until the nudge; `None` = never.
    pub nudge_after: Option<Duration>,
    /// Silence after the nudge until the next question; `None` = never.
    pub move_on_after: Option<Duration>,
}

/// What a reply replies to.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The interviewee is here: greet.
    Begin,
    Answer(Utterance),
    /// Nothing was said for long.
    Silence,
    /// Nothing was said for longer still.
    GiveUp,
    /// The interviewee asked, by button, to hear the question again.
    Repeat,
    /// Something that was no speech stopped the interviewer.
    FalseInterruption,
    /// The interviewee was away and is back.
    Returned,
    TimeUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    Idle,
    Listening,
    Thinking,
    Speaking,
}

impl AgentState {
    /// As in the attribute `lk.agent.state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Listening => "listening",
            Self::Thinking => "thinking",
            Self::Speaking => "speaking",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make and speak reply number `reply`.
    Reply {
        reply: u64,
        cause: Cause,
    },
    /// Drop reply number `reply`: none of it was heard. `reopen`: the turn that it answers goes on.
    Cancel {
        reply: u64,
        reopen: bool,
    },
    /// Stop speaking reply number `reply`, at once.
    Interrupt {
        reply: u64,
        barge_in: bool,
    },
    State(AgentState),
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Nobody to talk with.
    Away,
    Listening,
    Thinking {
        reply: u64,
        cause: Cause,
    },
    Speaking {
        reply: u64,
    },
}

pub struct Conversation {
    config: ConversationConfig,
    phase: Phase,
    begun: bool,
    replies: u64,
    /// Since when nobody has said anything.
    quiet_since: Instant,
    voiced: bool,
    held: bool,
    nudged: bool,
    time_up: bool,
    /// What to reply where the voice that stopped a reply turns out to be noise.
    owed: Option<Cause>,
    /// What was said while it could not be answered.
    pending: Option<Utterance>,
    effects: VecDeque<Effect>,
}

impl Conversation {
    pub fn new(config: ConversationConfig, now: Instant) -> Self {
        Self {
            config,
            phase: Phase::Away,
            begun: false,
            replies: 0,
            quiet_since: now,
            voiced: false,
            held: false,
            nudged: false,
            time_up: false,
            owed: None,
            pending: None,
            effects: VecDeque::new(),
        }
    }

    /// An interview that was begun before: the interviewee is welcomed back instead of greeted.
    pub fn resumed(mut self) -> Self {
        self.begun = true;
        self
    }

    /// The interviewee is here and may be listened to.
    pub fn handle_present(&mut self, now: Instant) {
        if self.phase != Phase::Away {
            return;
        }
        self.listen(now);
        let cause = match self.pending.take() {
            _ if self.time_up => Cause::TimeUp,
            Some(utterance) => Cause::Answer(utterance),
            None if self.begun => Cause::Returned,
            None => Cause::Begin,
        };
        self.begun = true;
        self.reply(cause);
    }

    /// The interviewee left, or may not be listened to any more.
    pub fn handle_absent(&mut self, _now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Away) {
            Phase::Away => return,
            Phase::Listening => {}
            Phase::Thinking { reply, cause } => {
                if let Cause::Answer(utterance) = cause {
                    self.keep(utterance);
                }
                self.effects.push_back(Effect::Cancel { reply, reopen: false });
            }
            Phase::Speaking { reply } => self.effects.push_back(Effect::Interrupt { reply, barge_in: false }),
        }
        self.owed = None;
        self.effects.push_back(Effect::State(AgentState::Idle));
    }

    /// What the interviewee said is not to be answered any more: they withdrew their consent.
    pub fn forget(&mut self) {
        self.pending = None;
        if let Phase::Thinking { cause, .. } = &mut self.phase
            && matches!(cause, Cause::Answer(_))
        {
            *cause = Cause::Returned;
        }
    }

    pub fn handle_turn(&mut self, event: TurnEvent, now: Instant) {
        match event {
            TurnEvent::Started => self.handle_voice(now),
            TurnEvent::Sustained => self.handle_sustained(now),
            TurnEvent::Quiet => {
                self.voiced = false;
                self.quiet_since = now;
            }
            TurnEvent::Committed(utterance) => self.handle_committed(utterance),
            TurnEvent::Discarded => {
                if self.phase == Phase::Listening
                    && let Some(cause) = self.owed.take()
                {
                    self.reply(cause);
                }
            }
            TurnEvent::Held(held) => {
                self.held = held;
                self.quiet_since = now;
                if held {
                    self.take_back(now);
                }
            }
        }
    }

    /// Somebody other than the interviewee talks: no silence.
    pub fn handle_other_voice(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// The interviewee asked to hear the question again.
    pub fn handle_repeat(&mut self, now: Instant) {
        match self.phase {
            Phase::Away | Phase::Thinking { .. } => return,
            Phase::Speaking { reply } => {
                self.effects.push_back(Effect::Interrupt { reply, barge_in: false });
                self.listen(now);
            }
            Phase::Listening => {}
        }
        self.reply(Cause::Repeat);
    }

    /// The interviewee has written something, which is about to be committed: what is being said to them is outdated.
    pub fn handle_written(&mut self, now: Instant) {
        match self.phase {
            Phase::Speaking { reply } => {
                self.effects.push_front(Effect::Interrupt { reply, barge_in: false });
                self.listen(now);
            }
            Phase::Thinking { .. } => self.take_back(now),
            Phase::Away | Phase::Listening => {}
        }
    }

    /// The interview has lasted as long as it may.
    pub fn handle_time_up(&mut self, now: Instant) {
        if self.time_up {
            return;
        }
        self.time_up = true;
        match self.phase {
            Phase::Away => return,
            Phase::Listening => {}
            Phase::Thinking { reply, .. } => self.effects.push_back(Effect::Cancel { reply, reopen: false }),
            Phase::Speaking { reply } => self.effects.push_back(Effect::Interrupt { reply, barge_in: false }),
        }
        self.listen(now);
        self.reply(Cause::TimeUp);
    }

    /// The first sound of a reply is out.
    pub fn handle_speaking(&mut self, reply: u64) {
        if matches!(self.phase, Phase::Thinking { reply: r, .. } if r == reply) {
            self.phase = Phase::Speaking { reply };
            self.effects.push_back(Effect::State(AgentState::Speaking));
        }
    }

    /// A reply is over, to its end or without ever being heard. Those that were stopped from here do not matter.
    pub fn handle_finished(&mut self, reply: u64, now: Instant) {
        let current = match self.phase {
            Phase::Thinking { reply: r, .. } | Phase::Speaking { reply: r } => r == reply,
            _ => false,
        };
        if !current {
            return;
        }
        self.listen(now);
        if let Some(utterance) = self.pending.take() {
            self.reply(Cause::Answer(utterance));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        if self.nudged {
            self.reply(Cause::GiveUp);
        } else {
            self.reply(Cause::Silence);
            self.nudged = true;
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Listening || self.voiced || self.held {
            return None;
        }
        let after = if self.nudged { self.config.move_on_after } else { self.config.nudge_after };
        Some(self.quiet_since + after?)
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether an interviewee is there to talk with.
    pub fn present(&self) -> bool {
        self.phase != Phase::Away
    }

    fn handle_voice(&mut self, now: Instant) {
        self.voiced = true;
        self.quiet_since = now;
        self.take_back(now);
    }

    /// Drops a reply of which nothing was heard yet.
    fn take_back(&mut self, now: Instant) {
        let Phase::Thinking { reply, cause } = &self.phase else { return };
        // These answer nobody, so nobody has gone on talking.
        if matches!(cause, Cause::Begin | Cause::TimeUp) {
            return;
        }
        let (reply, cause) = (*reply, cause.clone());
        let reopen = matches!(cause, Cause::Answer(_));
        self.listen(now);
        // A turn that is taken back is committed again by the detector; everything else is owed.
        self.owed = (!reopen).then_some(cause);
        self.effects.push_back(Effect::Cancel { reply, reopen });
    }

    fn handle_sustained(&mut self, now: Instant) {
        if let (Phase::Speaking { reply }, true) = (&self.phase, self.config.barge_in) {
            let reply = *reply;
            // First of all: everything else can wait.
            self.effects.push_front(Effect::Interrupt { reply, barge_in: true });
            self.listen(now);
            self.owed = Some(Cause::FalseInterruption);
        }
    }

    fn handle_committed(&mut self, utterance: Utterance) {
        match self.phase {
            Phase::Listening => {
                self.owed = None;
                self.reply(Cause::Answer(utterance));
            }
            Phase::Away => self.keep(utterance),
            // A short remark ("right", "mm-hm") or a button pressed while the interviewer talks: nothing to answer.
            Phase::Speaking { .. } | Phase::Thinking { .. } => {
                if utterance.written || utterance.words().is_some_and(|w| w >= REMARK_WORDS_MIN) {
                    self.keep(utterance);
                }
            }
        }
    }

    fn keep(&mut self, utterance: Utterance) {
        self.pending = Some(Utterance { kept: true, ..utterance });
    }

    fn listen(&mut self, now: Instant) {
        self.phase = Phase::Listening;
        self.quiet_since = now;
        self.effects.push_back(Effect::State(AgentState::Listening));
    }

    fn reply(&mut self, cause: Cause) {
        self.replies += 1;
        if cause != Cause::Silence {
            self.nudged = false;
        }
        self.phase = Phase::Thinking { reply: self.replies, cause: cause.clone() };
        self.effects.push_back(Effect::State(AgentState::Thinking));
        self.effects.push_back(Effect::Reply { reply: self.replies, cause });
    }
}
