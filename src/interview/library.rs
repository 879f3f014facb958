//! The plans and personas that the server has.

use std::path::Path;

use super::{persona::Persona, plan::Plan};

#[derive(Clone, Debug)]
pub struct Library {
    plans: Vec<Plan>,
    personas: Vec<Persona>,
}

/// One thing that is wrong in a plan or persona.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; `None` where the file as a whole is wrong.
    pub line: Option<usize>,
    /// Dotted, as `questions[2].follow_up.min_words`.
    pub key: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{} mistake(s) in plans and personas", problems.len())]
pub struct LibraryError {
    pub problems: Vec<Problem>,
}

impl Library {
    /// Loads every `*.yaml` of both folders.
    pub fn load(_plans_dir: &Path, _personas_dir: &Path) -> Result<Self, LibraryError> {
        todo!()
    }

    /// Sorted by id.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    pub fn personas(&self) -> &[Persona] {
        &self.personas
    }

    pub fn plan(&self, id: &str) -> Option<&Plan> {
        self.plans.iter().find(|p| p.id == id)
    }

    pub fn persona(&self, id: &str) -> Option<&Persona> {
        self.personas.iter().find(|p| p.id == id)
    }
}
