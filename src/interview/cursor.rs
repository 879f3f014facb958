//! Where an interview is in its plan, and what the interviewer does next.
//!
//! PURE, and the only place where that is decided: a language model may word an act, never choose it. The cursor is small
//! and cheap to clone, so that a reply that was never heard is undone by putting the old cursor back.

use super::{
    phrases::{asks_to_repeat, asks_to_skip, refuses},
    plan::{Plan, Question, QuestionKind},
};

/// How often a question that was cut off is asked again before what was said counts as the answer.
const REASKS_MAX: u32 = 2;
/// Words from which an answer counts although the question was cut off.
const EAGER_ANSWER_WORDS: usize = 12;

/// What the interviewer does. Numbers are indexes into the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Greet, and ask the first question.
    Greet {
        question: usize,
    },
    Ask {
        question: usize,
        after: After,
    },
    /// `probe`: which follow-up to this question, from 0.
    Probe {
        question: usize,
        probe: usize,
    },
    Repeat {
        question: usize,
        why: RepeatWhy,
    },
    Nudge {
        question: usize,
    },
    Close {
        why: CloseWhy,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Answer,
    /// The interviewee asked to go on.
    Skip,
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatWhy {
    Asked,
    /// The question was cut off, or something that was no speech stopped it.
    CutOff,
    Returned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseWhy {
    Done,
    TimeUp,
}

impl Act {
    /// As in metrics and turn records.
    pub fn label(self) -> &'static str {
        match self {
            Act::Greet { .. } => "greet",
            Act::Ask { .. } => "ask",
            Act::Probe { .. } => "probe",
            Act::Repeat { .. } => "repeat",
            Act::Nudge { .. } => "nudge",
            Act::Close { .. } => "close",
        }
    }

    pub fn question(self) -> Option<usize> {
        match self {
            Act::Greet { question }
            | Act::Ask { question, .. }
            | Act::Probe { question, .. }
            | Act::Repeat { question, .. }
            | Act::Nudge { question } => Some(question),
            Act::Close { .. } => None,
        }
    }
}

/// What happened, to which the next act responds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    Begin,
    Answer {
        /// `None` where the words are not known.
        text: Option<&'a str>,
        /// Whether `text` is all of it.
        complete: bool,
        /// The interviewer was interrupted before most of its last act was heard.
        cut_off: bool,
        /// The interviewee pressed *I'm done*.
        done: bool,
    },
    Silence,
    GiveUp,
    Repeat,
    FalseInterruption,
    Returned,
    TimeUp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanCursor {
    /// The question that was asked last; `None` before the greeting.
    current: Option<usize>,
    follow_ups: u32,
    reasks: u32,
    closed: bool,
}

impl PlanCursor {
    /// The cursor of an interview in which `asked` questions had been asked.
    pub fn resumed(asked: u32) -> Self {
        Self { current: (asked as usize).checked_sub(1), ..Self::default() }
    }

    /// Questions asked so far.
    pub fn asked(&self) -> u32 {
        self.current.map_or(0, |i| i as u32 + 1)
    }

    /// The question that is being talked about.
    pub fn question<'p>(&self, plan: &'p Plan) -> Option<&'p Question> {
        self.current.filter(|_| !self.closed).and_then(|i| plan.questions.get(i))
    }

    /// Decides the next act, and moves on.
    pub fn decide(&mut self, plan: &Plan, input: Input<'_>) -> Act {
        let Some(current) = self.current.filter(|i| *i < plan.questions.len()) else {
            return match input {
                Input::TimeUp => self.close(CloseWhy::TimeUp),
                _ => {
                    self.current = Some(0);
                    Act::Greet { question: 0 }
                }
            };
        };
        match input {
            Input::TimeUp => self.close(CloseWhy::TimeUp),
            _ if self.closed => self.close(CloseWhy::Done),
            Input::Silence => Act::Nudge { question: current },
            Input::GiveUp => self.next(plan, current, After::Silence),
            Input::Repeat => Act::Repeat { question: current, why: RepeatWhy::Asked },
            Input::FalseInterruption => Act::Repeat { question: current, why: RepeatWhy::CutOff },
            Input::Begin | Input::Returned => Act::Repeat { question: current, why: RepeatWhy::Returned },
            Input::Answer { text, complete, cut_off, done } => {
                self.after_answer(plan, current, text, complete, cut_off, done)
            }
        }
    }

    fn after_answer(
        &mut self,
        plan: &Plan,
        current: usize,
        text: Option<&str>,
        complete: bool,
        cut_off: bool,
        done: bool,
    ) -> Act {
        let question = &plan.questions[current];
        let text = text.unwrap_or_default();
        let words = text.split_whitespace().count();
        if asks_to_repeat(text) {
            return Act::Repeat { question: current, why: RepeatWhy::Asked };
        }
        if done && words == 0 {
            return self.next(plan, current, After::Skip);
        }
        // A question that was cut off was not asked; only an answer that shows it was understood counts.
        if cut_off && self.reasks < REASKS_MAX && words < question.follow_up.min_words.max(EAGER_ANSWER_WORDS) {
            self.reasks += 1;
            return Act::Repeat { question: current, why: RepeatWhy::CutOff };
        }
        if asks_to_skip(text) {
            return self.next(plan, current, After::Skip);
        }
        let probe = match question.kind {
            QuestionKind::Question => complete && words < question.follow_up.min_words,
            QuestionKind::YourQuestions => words > 0 && !refuses(text),
        };
        if probe && self.follow_ups < question.follow_up.max_follow_ups && !question.follow_up.probes.is_empty() {
            let probe = (self.follow_ups as usize).min(question.follow_up.probes.len() - 1);
            self.follow_ups += 1;
            return Act::Probe { question: current, probe };
        }
        self.next(plan, current, After::Answer)
    }

    fn next(&mut self, plan: &Plan, current: usize, after: After) -> Act {
        let question = current + 1;
        if question >= plan.questions.len() {
            return self.close(CloseWhy::Done);
        }
        *self = Self { current: Some(question), ..Self::default() };
        Act::Ask { question, after }
    }

    fn close(&mut self, why: CloseWhy) -> Act {
        self.closed = true;
        Act::Close { why }
    }
}
