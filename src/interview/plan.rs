//! Interview plans: what is asked, in which order, when to follow up, and by which rubric answers are to be judged.

use std::collections::BTreeMap;

use serde::Deserialize;

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
