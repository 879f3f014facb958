//! Interview plans: what is asked, in which order, when to follow up, and by which rubric answers are to be judged.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::yaml::Checker;

/// Longest text that is spoken in one go, characters: about 40 s.
const SPOKEN_MAX: usize = 600;
/// Most questions in a plan: what a person can bear, and a bound on what is kept and shown.
const QUESTIONS_MAX: usize = 40;
/// What may stand in braces in the greeting and the closing.
pub const PLACEHOLDERS: [&str; 5] = ["name", "persona", "title", "minutes", "questions"];

/// A plan, as its YAML file holds it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The file's name without `.yaml`; not in the file.
    #[serde(skip)]
    pub id: String,
    pub title: String,
    /// The role that is interviewed for, as `Backend engineer`.
    pub role: String,
    pub level: String,
    /// Planned length, minutes.
    pub minutes: u32,
    /// First words. `{name}`, `{persona}`, `{title}`, `{minutes}` and `{questions}` are filled in.
    pub greeting: String,
    pub questions: Vec<Question>,
    /// Last words, with the same placeholders.
    pub closing: String,
    /// What the interviewer may tell about the company; a language model answers the interviewee from nothing else.
    pub company_facts: Vec<String>,
    pub rubric: Rubric,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    #[default]
    Question,
    /// The part where the interviewee asks.
    YourQuestions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    pub id: String,
    pub kind: QuestionKind,
    pub text: String,
    /// Ids of the competencies that the answer tells about.
    pub competencies: Vec<String>,
    /// What a good answer has; for people and for a language model, never spoken.
    pub looking_for: Vec<String>,
    pub follow_up: FollowUp,
}

/// When and how to ask on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FollowUp {
    /// An answer of fewer words is followed up.
    pub min_words: usize,
    /// Most follow-ups to this question.
    pub max_follow_ups: u32,
    /// What to ask, in this order; the last is repeated where there are fewer than `max_follow_ups`.
    pub probes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rubric {
    pub competencies: Vec<Competency>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Competency {
    pub id: String,
    pub name: String,
    /// Why the job needs it.
    pub job_related_reason: String,
    /// What each score from 1 to 5 looks like.
    pub anchors: BTreeMap<u8, String>,
}

impl Plan {
    /// How many questions there are.
    pub fn total(&self) -> u32 {
        self.questions.len() as u32
    }

    /// Says everything that is wrong with a plan that could be read.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (key, text) in [("title", &self.title), ("role", &self.role), ("level", &self.level)] {
            checker.require(key, text);
        }
        for (key, text) in [("greeting", &self.greeting), ("closing", &self.closing)] {
            spoken(checker, key, text);
            for name in placeholders(text).filter(|n| !PLACEHOLDERS.contains(n)) {
                checker.problem(
                    key,
                    format!("`{{{name}}}` is not filled in; known are {{{}}}", PLACEHOLDERS.join("}, {")),
                );
            }
        }
        if !(1..=240).contains(&self.minutes) {
            checker.problem("minutes", "must be from 1 to 240");
        }
        if self.questions.is_empty() || self.questions.len() > QUESTIONS_MAX {
            checker.problem("questions", format!("must hold 1 to {QUESTIONS_MAX} questions"));
        }
        self.check_questions(checker);
        self.check_rubric(checker);
    }

    fn check_questions(&self, checker: &mut Checker<'_>) {
        for (i, question) in self.questions.iter().enumerate() {
            let at = format!("questions[{i}]");
            identifier(checker, &format!("{at}.id"), &question.id);
            if self.questions[..i].iter().any(|q| q.id == question.id) {
                checker.problem(&format!("{at}.id"), format!("`{}` is used by an earlier question", question.id));
            }
            spoken(checker, &format!("{at}.text"), &question.text);
            for (n, competency) in question.competencies.iter().enumerate() {
                if !self.rubric.competencies.iter().any(|c| &c.id == competency) {
                    checker.problem(&format!("{at}.competencies[{n}]"), format!("`{competency}` is not in the rubric"));
                }
            }
            match question.kind {
                QuestionKind::Question if question.competencies.is_empty() => {
                    checker.problem(&format!("{at}.competencies"), "must name what the question is asked for");
                }
                QuestionKind::YourQuestions if i + 1 != self.questions.len() => {
                    checker.problem(&format!("{at}.kind"), "`your_questions` is for the last question");
                }
                _ => {}
            }
            let follow_up = &question.follow_up;
            if follow_up.max_follow_ups > 0 && follow_up.probes.is_empty() {
                checker
                    .problem(&format!("{at}.follow_up.probes"), "must hold what to ask on, as max_follow_ups is not 0");
            }
            if follow_up.max_follow_ups > 5 {
                checker.problem(&format!("{at}.follow_up.max_follow_ups"), "must be from 0 to 5");
            }
            for (n, probe) in follow_up.probes.iter().enumerate() {
                spoken(checker, &format!("{at}.follow_up.probes[{n}]"), probe);
            }
        }
    }

    fn check_rubric(&self, checker: &mut Checker<'_>) {
        if self.rubric.competencies.is_empty() {
            checker.problem("rubric.competencies", "must name what is judged");
        }
        for (i, competency) in self.rubric.competencies.iter().enumerate() {
            let at = format!("rubric.competencies[{i}]");
            identifier(checker, &format!("{at}.id"), &competency.id);
            if self.rubric.competencies[..i].iter().any(|c| c.id == competency.id) {
                checker.problem(&format!("{at}.id"), format!("`{}` is used by an earlier competency", competency.id));
            }
            checker.require(&format!("{at}.name"), &competency.name);
            checker.require(&format!("{at}.job_related_reason"), &competency.job_related_reason);
            if !competency.anchors.keys().copied().eq(1..=5) {
                checker.problem(&format!("{at}.anchors"), "must say what each score from 1 to 5 looks like");
            }
            for (score, anchor) in &competency.anchors {
                checker.require(&format!("{at}.anchors.{score}"), anchor);
            }
            if !self.questions.iter().any(|q| q.competencies.contains(&competency.id)) {
                checker.problem(&at, format!("no question asks for `{}`", competency.id));
            }
        }
    }
}

/// Names in braces.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

pub(super) fn spoken(checker: &mut Checker<'_>, key: &str, text: &str) {
    checker.require(key, text);
    if text.chars().count() > SPOKEN_MAX {
        checker.problem(key, format!("is too long to be said in one go: at most {SPOKEN_MAX} characters"));
    }
    if text.contains(['<', '>']) {
        checker.problem(key, "is spoken as it is: no markup");
    }
}

fn identifier(checker: &mut Checker<'_>, key: &str, id: &str) {
    checker.require(key, id);
    if !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_') || id.len() > 40 {
        checker.problem(key, "must be at most 40 of a-z, 0-9, `-` and `_`");
    }
}
