//! Reads YAML files that people write, and tells everything that is wrong with one at once: file, line, key.
//!
//! After each mistake the offending value is taken out and the rest is read again, so that one mistake hides no other.
//! The types that are read this way have a default for every field; what must be there, their own checks say.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_yaml_ng::{Mapping, Value};

/// Mistakes of one file that are worth telling.
const PROBLEMS_MAX: usize = 100;
/// Likeness from which a key is offered instead of an unknown one, of 1.
const SIMILAR: f64 = 0.6;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; `None` where the file as a whole is wrong.
    pub line: Option<usize>,
    /// Dotted, as `questions[2].follow_up.min_words`.
    pub key: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": `{}`", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The mistakes of one file, with its text to find their lines.
pub struct Checker<'a> {
    file: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: vec![] }
    }

    /// Adds a mistake, unless the same value (or one around it) has one already.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let covers =
            |outer: &str| key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if self.problems.len() < PROBLEMS_MAX && !self.problems.iter().any(|p| !p.key.is_empty() && covers(&p.key)) {
            let line = line_of(self.text, key);
            self.problems.push(Problem {
                file: self.file.to_owned(),
                line,
                key: key.to_owned(),
                message: message.into(),
            });
        }
    }

    /// Says so where a text that must be there is not.
    pub fn require(&mut self, key: &str, value: &str) {
        if value.trim().is_empty() {
            self.problem(key, "is missing or empty");
        }
    }

    /// Reads the file as far as it can be read.
    pub fn parse<T: DeserializeOwned + Default>(&mut self) -> T {
        let mut value = match serde_yaml_ng::from_str::<Value>(self.text) {
            Ok(value @ Value::Mapping(_)) => value,
            Ok(_) => {
                self.problem("", "must hold keys and values, as `title: Backend engineer`");
                return T::default();
            }
            Err(error) => {
                self.problem("", format!("is not valid YAML: {error}"));
                if let (Some(problem), Some(at)) = (self.problems.last_mut(), error.location()) {
                    problem.line = Some(at.line());
                }
                return T::default();
            }
        };
        for _ in 0..PROBLEMS_MAX {
            let error = match serde_path_to_error::deserialize::<_, T>(&value) {
                Ok(parsed) => return parsed,
                Err(error) => error,
            };
            let key = error.path().to_string();
            self.problem(&key, readable(&error.into_inner().to_string()));
            if !remove(&mut value, &segments(&key)) {
                break;
            }
        }
        T::default()
    }

    /// In the order of the file.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|p| p.line);
        self.problems
    }
}

/// Says what to do about an unknown key.
fn readable(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else { return message.to_owned() };
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let nearest = known
        .iter()
        .map(|k| (strsim::jaro_winkler(unknown, k), k))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, nearest)) => format!("is not a known key; did you mean `{nearest}`?"),
        None => format!("is not a known key; known are {}", known.join(", ")),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

fn segments(key: &str) -> Vec<Segment> {
    let mut found = Vec::new();
    for part in key.split('.').filter(|p| !p.is_empty()) {
        let mut pieces = part.split('[');
        if let Some(name) = pieces.next().filter(|n| !n.is_empty()) {
            found.push(Segment::Key(name.to_owned()));
        }
        found.extend(pieces.filter_map(|p| p.strip_suffix(']')?.parse().ok()).map(Segment::Index));
    }
    found
}

/// Takes the value at `path` out. An item of a list is emptied instead, so that those after it keep their numbers.
fn remove(value: &mut Value, path: &[Segment]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut at = value;
    for segment in parents {
        let next = match (segment, at) {
            (Segment::Key(key), Value::Mapping(map)) => find_key(map, key).and_then(|key| map.get_mut(key)),
            (Segment::Index(index), Value::Sequence(items)) => items.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (last, at) {
        (Segment::Key(key), Value::Mapping(map)) => find_key(map, key).is_some_and(|key| map.remove(key).is_some()),
        (Segment::Index(index), Value::Sequence(items)) => items.get_mut(*index).is_some_and(|item| {
            let empty_map = Value::Mapping(Mapping::new());
            let empty_text = Value::String(String::new());
            let next = if *item == empty_map { empty_text } else { empty_map };
            let changed = *item != Value::String(String::new());
            *item = next;
            changed
        }),
        _ => false,
    }
}

/// Keys are text in the path, but may be numbers in the file.
fn find_key(map: &Mapping, name: &str) -> Option<Value> {
    map.keys()
        .find(|key| match key {
            Value::String(key) => key == name,
            Value::Number(key) => key.to_string() == name,
            Value::Bool(key) => key.to_string() == name,
            _ => false,
        })
        .cloned()
}

/// The line, from 1, on which the value with this key stands, or the nearest value around it that is in block style.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let target = segments(key);
    let mut stack: Vec<(usize, Segment)> = Vec::new();
    let mut best = (0, None);
    let mut scalar_indent = None;
    for (number, line) in text.lines().enumerate() {
        let mut indent = line.len() - line.trim_start().len();
        let mut rest = line.trim();
        if rest.is_empty() || scalar_indent.is_some_and(|i| indent > i) {
            continue;
        }
        scalar_indent = None;
        if rest.starts_with('#') {
            continue;
        }
        let mut visit = |indent: usize, segment: Option<&str>| {
            let mut index = 0;
            while let Some((i, last)) = stack.last() {
                let sibling = *i == indent && (segment.is_some() || matches!(last, Segment::Index(_)));
                if *i < indent || (*i == indent && !sibling) {
                    break;
                }
                if let (true, Segment::Index(n), None) = (*i == indent, last, segment) {
                    index = n + 1;
                }
                stack.pop();
            }
            stack.push((indent, segment.map_or(Segment::Index(index), |k| Segment::Key(k.to_owned()))));
            let same = stack.iter().zip(&target).take_while(|((_, a), b)| a == *b).count();
            if same == stack.len() && same > best.0 {
                best = (same, Some(number + 1));
            }
        };
        while let Some(after) = rest.strip_prefix("- ").or((rest == "-").then_some("")) {
            visit(indent, None);
            let trimmed = after.trim_start();
            indent += 2 + after.len() - trimmed.len();
            rest = trimmed;
        }
        if let Some((name, value)) = split_key(rest) {
            visit(indent, Some(name));
            if value.starts_with(['|', '>']) {
                scalar_indent = Some(indent);
            }
        }
    }
    best.1
}

fn split_key(line: &str) -> Option<(&str, &str)> {
    if line.starts_with(['{', '[', '&', '*', '!']) {
        return None;
    }
    let (name, value) = line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, "")))?;
    Some((name.trim().trim_matches(['"', '\'']), value.trim()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        title: String,
        items: Vec<Inner>,
        words: Vec<String>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        id: String,
        count: u32,
        text: String,
    }

    fn problems(text: &str) -> Vec<String> {
        let mut checker = Checker::new("plan.yaml", text);
        checker.parse::<Outer>();
        checker.finish().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = "\
# a comment
titel: x
items:
  - id: a
    count: many
    text: |
      count: not a key
      - nor an item
  - id: b
    cuont: 3
  - just a text
words:
- one
- [two]
wholly_different: 1
";
        assert_eq!(
            problems(text),
            [
                "plan.yaml:2: `titel`: is not a known key; did you mean `title`?",
                "plan.yaml:5: `items[0].count`: invalid type: string \"many\", expected u32",
                "plan.yaml:10: `items[1].cuont`: is not a known key; did you mean `count`?",
                "plan.yaml:11: `items[2]`: invalid type: string \"just a text\", expected struct Inner",
                "plan.yaml:14: `words[1]`: invalid type: sequence, expected a string",
                "plan.yaml:15: `wholly_different`: is not a known key; known are title, items, words",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_yaml_says_where() {
        let found = problems("title: x\nitems: [1, 2\n");
        assert!(found[0].starts_with("plan.yaml:") && found[0].contains("not valid YAML"), "{found:?}");
        assert!(problems("- a\n- b\n")[0].contains("keys and values"));
    }

    #[test]
    fn a_good_file_is_read() {
        let mut checker = Checker::new("f", "title: t\nitems: [{id: a, count: 2}]\n");
        let read: Outer = checker.parse();
        assert_eq!(read.items[0], Inner { id: "a".into(), count: 2, text: String::new() });
        assert!(checker.finish().is_empty());
    }

    #[test]
    fn what_was_told_once_is_not_told_of_its_parts() {
        let mut checker = Checker::new("f", "items: 3\n");
        checker.problem("items", "first");
        checker.problem("items[0].id", "second");
        checker.problem("items2", "third");
        assert_eq!(checker.finish().len(), 2);
    }
}
