//! Personas: how the interviewer sounds and words things. A persona never changes what is asked.

use serde::Deserialize;

use super::{plan::spoken, yaml::Checker};

/// A persona, as its YAML file holds it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Persona {
    /// The file's name without `.yaml`; not in the file.
    #[serde(skip)]
    pub id: String,
    /// The name by which people see and hear it.
    pub name: String,
    /// One sentence, shown to people and told to a language model.
    pub style: String,
    /// 0 = matter-of-fact, 10 = very warm; told to a language model.
    pub warmth: u8,
    /// A Piper voice of the models folder or, where the server speaks with espeak-ng, one of its voices; empty, or a
    /// voice that is not there = the server's.
    pub voice: String,
    pub phrases: Phrases,
}

/// The persona's own words around the plan's. Each list is gone through in turn.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Phrases {
    /// Before the next question, after an answer.
    pub acknowledge: Vec<String>,
    /// Before a follow-up.
    pub probe: Vec<String>,
    /// Before a question is said again.
    pub repeat: Vec<String>,
    /// In a long silence.
    pub nudge: Vec<String>,
    /// Before the next question, where none was answered.
    pub move_on: Vec<String>,
    /// Before the question is said again to somebody who came back.
    pub welcome_back: Vec<String>,
    /// Before the closing where the time is up.
    pub time_up: Vec<String>,
}

impl Persona {
    /// Says everything that is wrong with a persona that could be read.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.require("name", &self.name);
        checker.require("style", &self.style);
        if self.warmth > 10 {
            checker.problem("warmth", "must be from 0 to 10");
        }
        let phrases = &self.phrases;
        for (name, list) in [
            ("acknowledge", &phrases.acknowledge),
            ("probe", &phrases.probe),
            ("repeat", &phrases.repeat),
            ("nudge", &phrases.nudge),
            ("move_on", &phrases.move_on),
            ("welcome_back", &phrases.welcome_back),
            ("time_up", &phrases.time_up),
        ] {
            let key = format!("phrases.{name}");
            if list.is_empty() {
                checker.problem(&key, "must hold at least one phrase");
            }
            for (i, phrase) in list.iter().enumerate() {
                spoken(checker, &format!("{key}[{i}]"), phrase);
            }
        }
    }
}
