//! The plans and personas that the server has, read once at the start.

use std::{fmt, path::Path, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    persona::Persona,
    plan::Plan,
    yaml::{Checker, Problem},
};

#[derive(Clone, Debug)]
pub struct Library {
    plans: Vec<Arc<Plan>>,
    personas: Vec<Arc<Persona>>,
}

/// Everything that is wrong with the plans and personas; its text has a line for each mistake.
#[derive(Debug)]
pub struct LibraryError {
    pub problems: Vec<Problem>,
}

impl std::error::Error for LibraryError {}

impl fmt::Display for LibraryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plans and personas have {} mistake(s):", self.problems.len())?;
        self.problems.iter().try_for_each(|p| write!(f, "\n  {p}"))
    }
}

impl Library {
    /// Loads every `*.yaml` of both folders.
    pub fn load(plans_dir: &Path, personas_dir: &Path) -> Result<Self, LibraryError> {
        let mut problems = Vec::new();
        let plans = load_all(plans_dir, "interview.plans_dir", &mut problems, |plan: &mut Plan, id, checker| {
            plan.id = id;
            plan.check(checker);
        });
        let personas =
            load_all(personas_dir, "interview.personas_dir", &mut problems, |persona: &mut Persona, id, checker| {
                persona.id = id;
                persona.check(checker);
            });
        if problems.is_empty() { Ok(Self { plans, personas }) } else { Err(LibraryError { problems }) }
    }

    /// Sorted by id.
    pub fn plans(&self) -> &[Arc<Plan>] {
        &self.plans
    }

    /// Sorted by id.
    pub fn personas(&self) -> &[Arc<Persona>] {
        &self.personas
    }

    pub fn plan(&self, id: &str) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|p| p.id == id)
    }

    pub fn persona(&self, id: &str) -> Option<&Arc<Persona>> {
        self.personas.iter().find(|p| p.id == id)
    }
}

fn load_all<T: DeserializeOwned + Default>(
    folder: &Path,
    key: &str,
    problems: &mut Vec<Problem>,
    finish: impl Fn(&mut T, String, &mut Checker<'_>),
) -> Vec<Arc<T>> {
    let mut whole = |message: String| {
        problems.push(Problem { file: folder.display().to_string(), line: None, key: String::new(), message });
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            whole(format!("this folder cannot be read: {error}; set {key} to the right one"));
            return vec![];
        }
    };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .collect();
    files.sort();
    if files.is_empty() {
        whole(format!("this folder holds no *.yaml file; add one, or set {key} to another folder"));
    }
    let mut loaded = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot be read: {error}");
                problems.push(Problem { file, line: None, key: String::new(), message });
                continue;
            }
        };
        let (value, mistakes) = read(&file, &text, id, &finish);
        problems.extend(mistakes);
        loaded.push(Arc::new(value));
    }
    loaded
}

fn read<T: DeserializeOwned + Default>(
    file: &str,
    text: &str,
    id: String,
    finish: impl Fn(&mut T, String, &mut Checker<'_>),
) -> (T, Vec<Problem>) {
    let mut checker = Checker::new(file, text);
    let mut value: T = checker.parse();
    finish(&mut value, id, &mut checker);
    (value, checker.finish())
}

/// Reads any text as a plan and as a persona; for fuzzers.
pub(super) fn fuzz(text: &str) {
    for problem in read::<Plan>("f", text, "p".into(), |plan, _, checker| plan.check(checker)).1 {
        let _ = problem.to_string();
    }
    let _ = read::<Persona>("f", text, "p".into(), |persona, _, checker| persona.check(checker));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(plan: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), plan).unwrap();
        let personas = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/personas");
        match Library::load(folder.path(), &personas) {
            Ok(_) => String::new(),
            Err(error) => error.to_string().replace(&folder.path().display().to_string(), ""),
        }
    }

    const GOOD: &str = "\
title: T
role: R
level: senior
minutes: 10
greeting: Hello {name}.
questions:
  - id: q1
    text: What do you do?
    competencies: [c]
    follow_up:
      min_words: 5
      max_follow_ups: 1
      probes: [Tell me more.]
closing: Bye.
rubric:
  competencies:
    - id: c
      name: C
      job_related_reason: It is the job.
      anchors: {1: a, 2: b, 3: c, 4: d, 5: e}
";

    #[test]
    fn the_plans_and_personas_of_this_repository_are_good() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = Library::load(&root.join("config/plans"), &root.join("config/personas"));
        let library = library.unwrap_or_else(|e| panic!("{e}"));
        assert!(library.plans().len() >= 2 && library.personas().len() >= 2);
        for plan in library.plans() {
            assert_eq!(plan.questions.last().unwrap().kind, super::super::plan::QuestionKind::YourQuestions);
        }
    }

    #[test]
    fn mistakes_name_file_line_and_key() {
        assert_eq!(errors(GOOD), "");
        let cases = [
            ("level: senior\n", "", "/p.yaml: `level`: is missing or empty"),
            ("minutes: 10", "minutes: ten", "/p.yaml:4: `minutes`: invalid type: string \"ten\""),
            (
                "max_follow_ups",
                "max_followups",
                "/p.yaml:12: `questions[0].follow_up.max_followups`: is not a known key; did you mean `max_follow_ups`?",
            ),
            ("[c]", "[c, d]", "/p.yaml:9: `questions[0].competencies[1]`: `d` is not in the rubric"),
            ("Hello {name}", "Hello {nam}", "/p.yaml:5: `greeting`: `{nam}` is not filled in"),
            (", 5: e", "", "/p.yaml:20: `rubric.competencies[0].anchors`: must say what each score"),
            ("probes: [Tell me more.]", "probes: []", "/p.yaml:13: `questions[0].follow_up.probes`: must hold"),
            ("id: q1", "id: Q 1", "/p.yaml:7: `questions[0].id`: must be at most 40"),
        ];
        for (from, to, expected) in cases {
            let found = errors(&GOOD.replacen(from, to, 1));
            assert!(found.contains(expected), "{expected}\n{found}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let found =
            errors(&GOOD.replace("title: T", "titel: T").replace("id: q1", "id: ''").replace("Bye.", "<b>Bye</b>"));
        for key in ["`titel`", "`title`", "`questions[0].id`", "`closing`"] {
            assert!(found.contains(key), "{key}\n{found}");
        }
        assert!(Library::load(Path::new("/nowhere"), Path::new("/nowhere")).unwrap_err().problems.len() == 2);
    }
}
