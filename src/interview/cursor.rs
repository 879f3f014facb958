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
/// How often one question is said again because the interviewee's words seem to ask for it; their button has no limit.
const REPEATS_MAX: u32 = 4;
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
    /// Say the question again, or where it was asked last its follow-up `probe`.
    Repeat {
        question: usize,
        probe: Option<usize>,
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
    /// Its follow-up that was asked last.
    probing: Option<usize>,
    follow_ups: u32,
    reasks: u32,
    repeats: u32,
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
            Input::Repeat => self.repeat(current, RepeatWhy::Asked),
            Input::FalseInterruption => self.repeat(current, RepeatWhy::CutOff),
            Input::Begin | Input::Returned => {
                self.probing = None;
                self.repeat(current, RepeatWhy::Returned)
            }
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
        if asks_to_repeat(text) && self.repeats < REPEATS_MAX {
            self.repeats += 1;
            return self.repeat(current, RepeatWhy::Asked);
        }
        if done && words == 0 {
            return self.next(plan, current, After::Skip);
        }
        // A question that was cut off was not asked; only an answer that shows it was understood counts.
        if cut_off && self.reasks < REASKS_MAX && words < question.follow_up.min_words.max(EAGER_ANSWER_WORDS) {
            self.reasks += 1;
            return self.repeat(current, RepeatWhy::CutOff);
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
            self.probing = Some(probe);
            return Act::Probe { question: current, probe };
        }
        self.next(plan, current, After::Answer)
    }

    fn repeat(&self, question: usize, why: RepeatWhy) -> Act {
        Act::Repeat { question, probe: self.probing, why }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interview::plan::FollowUp;

    fn plan() -> Plan {
        let question = |kind, max_follow_ups| Question {
            kind,
            text: "?".into(),
            follow_up: FollowUp { min_words: 5, max_follow_ups, probes: vec!["Why?".into(), "And?".into()] },
            ..Question::default()
        };
        Plan {
            questions: vec![
                question(QuestionKind::Question, 2),
                question(QuestionKind::Question, 0),
                question(QuestionKind::YourQuestions, 2),
            ],
            ..Plan::default()
        }
    }

    fn heard(text: &str) -> Input<'_> {
        Input::Answer { text: Some(text), complete: true, cut_off: false, done: false }
    }

    const UNHEARD: Input<'_> = Input::Answer { text: None, complete: false, cut_off: false, done: false };
    const LONG: &str = "one two three four five six";

    fn acts(inputs: &[Input<'_>]) -> Vec<Act> {
        let mut cursor = PlanCursor::default();
        inputs.iter().map(|input| cursor.decide(&plan(), *input)).collect()
    }

    fn ask(question: usize) -> Act {
        Act::Ask { question, after: After::Answer }
    }

    fn repeat(question: usize, probe: Option<usize>, why: RepeatWhy) -> Act {
        Act::Repeat { question, probe, why }
    }

    #[test]
    fn long_answers_lead_through_the_plan() {
        let close = Act::Close { why: CloseWhy::Done };
        let inputs = [Input::Begin, heard(LONG), heard(LONG), heard("No, thank you."), heard("Bye."), Input::Repeat];
        assert_eq!(acts(&inputs), [Act::Greet { question: 0 }, ask(1), ask(2), close, close, close]);
        assert_eq!(acts(&[Input::Begin, UNHEARD, UNHEARD, UNHEARD])[1..], [ask(1), ask(2), close]);
    }

    #[test]
    fn short_answers_are_followed_up_as_often_as_the_plan_says() {
        let probe = |probe| Act::Probe { question: 0, probe };
        assert_eq!(
            acts(&[Input::Begin, heard("Yes."), heard("Well."), heard("No."), heard("Yes.")])[1..],
            [probe(0), probe(1), ask(1), ask(2)]
        );
        // Not where part of the words is missing, or where the interviewee asks to go on.
        let part = Input::Answer { text: Some("Yes."), complete: false, cut_off: false, done: false };
        assert_eq!(acts(&[Input::Begin, part])[1], ask(1));
        assert_eq!(acts(&[Input::Begin, heard("I don't know.")])[1], Act::Ask { question: 1, after: After::Skip });
        let done = Input::Answer { text: Some(""), complete: true, cut_off: false, done: true };
        assert_eq!(acts(&[Input::Begin, done])[1], Act::Ask { question: 1, after: After::Skip });
    }

    #[test]
    fn what_was_asked_last_is_what_is_repeated() {
        assert_eq!(
            acts(&[Input::Begin, heard("Pardon?"), heard("Yes."), heard("Could you repeat that?")])[1..],
            [
                repeat(0, None, RepeatWhy::Asked),
                Act::Probe { question: 0, probe: 0 },
                repeat(0, Some(0), RepeatWhy::Asked),
            ]
        );
        assert_eq!(acts(&[Input::Begin, heard("Yes."), Input::Returned])[2], repeat(0, None, RepeatWhy::Returned));
    }

    #[test]
    fn words_that_seem_to_ask_for_the_question_do_not_hold_the_plan_up_for_ever() {
        let mut inputs = vec![Input::Begin];
        inputs.extend([heard("Could you repeat that?"); 5]);
        let again = repeat(0, None, RepeatWhy::Asked);
        assert_eq!(acts(&inputs)[1..], [again, again, again, again, Act::Probe { question: 0, probe: 0 }]);
    }

    #[test]
    fn a_question_that_was_cut_off_is_asked_again_but_not_for_ever() {
        let cut = |text| Input::Answer { text: Some(text), complete: true, cut_off: true, done: false };
        let again = repeat(0, None, RepeatWhy::CutOff);
        assert_eq!(acts(&[Input::Begin, cut("Hello?"), cut(LONG), cut(LONG)])[1..], [again, again, ask(1)]);
        let eager = "I know that one so let me tell you about the cache that we built";
        assert_eq!(acts(&[Input::Begin, cut(eager)])[1], ask(1));
    }

    #[test]
    fn the_interviewees_questions_are_taken_until_there_are_no_more() {
        let to_the_end = [Input::Begin, heard(LONG), heard(LONG), heard("Who is the boss?"), heard("No.")];
        assert_eq!(acts(&to_the_end)[3..], [Act::Probe { question: 2, probe: 0 }, Act::Close { why: CloseWhy::Done }]);
    }

    #[test]
    fn silence_and_time_move_the_cursor_and_a_restart_does_not() {
        assert_eq!(
            acts(&[Input::Begin, Input::Silence, Input::GiveUp, Input::TimeUp])[1..],
            [
                Act::Nudge { question: 0 },
                Act::Ask { question: 1, after: After::Silence },
                Act::Close { why: CloseWhy::TimeUp },
            ]
        );
        let mut cursor = PlanCursor::resumed(2);
        assert_eq!(cursor.decide(&plan(), Input::Returned), repeat(1, None, RepeatWhy::Returned));
        assert_eq!(cursor.decide(&plan(), heard(LONG)), ask(2));
        assert_eq!(cursor.asked(), 3);
    }
}
