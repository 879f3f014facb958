//! Lays configuration sources over each other, and finds everything that is wrong with them in one go.
//!
//! The known keys are those of the default configuration, serialised. Each value is tried by itself against the real
//! types, so that one mistake hides no other. It is not the place for rules across keys: see [`super::Config`].

use std::{fmt, marker::PhantomData, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_yaml_ng::{Mapping, Value};

use super::locate::line_of;

/// Prefix of the environment variables; `VIVA_SERVER__HTTP_LISTEN` is `server.http_listen`.
pub const ENV_PREFIX: &str = "VIVA_";
/// Between the sections of an environment variable's name.
const ENV_SEPARATOR: &str = "__";
/// A variable with this at its end names a file that holds the value, as container secrets do.
const FILE_SUFFIX: &str = "_file";

/// One thing that is wrong, with where it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `config/server.yaml:12`, `VIVA_RTC__WORKERS` or `--set`.
    pub origin: String,
    /// Dotted, as `rtc.workers`; empty where the source as a whole is wrong.
    pub key: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: `{}` {}", self.origin, self.key, self.message)
        }
    }
}

/// The sources laid so far; later ones win.
pub struct Layers<T> {
    schema: Value,
    tree: Value,
    /// Where each value came from, by its path.
    origins: Vec<(Vec<String>, String)>,
    problems: Vec<Problem>,
    _type: PhantomData<T>,
}

impl<T: Default + Serialize + DeserializeOwned> Layers<T> {
    #[expect(clippy::expect_used, reason = "no input gets here: defaults are plain data, and a test makes them")]
    pub fn new() -> Self {
        let schema = serde_yaml_ng::to_value(T::default()).expect("a configuration is plain data");
        Self { schema, tree: Value::Mapping(Mapping::new()), origins: vec![], problems: vec![], _type: PhantomData }
    }

    /// Lays a YAML file on top. `name` is how messages call it.
    pub fn file(&mut self, name: &str, text: &str) {
        match serde_yaml_ng::from_str::<Value>(text) {
            Ok(Value::Null) => {}
            Ok(Value::Mapping(map)) => self.section(name, text, &mut vec![], &map),
            Ok(_) => {
                self.problem(name.into(), &[], "must hold keys and values, as `server:` with keys below it".into())
            }
            Err(error) => self.problem(name.into(), &[], format!("is not valid YAML: {error}")),
        }
    }

    fn section(&mut self, name: &str, text: &str, path: &mut Vec<String>, map: &Mapping) {
        for (key, value) in map {
            let Some(key) = key.as_str() else {
                self.problem(name.into(), path, format!("has a key that is no text: {key:?}; write it in quotes"));
                continue;
            };
            path.push(key.to_owned());
            let origin = || match line_of(text, &path.iter().map(String::as_str).collect::<Vec<_>>()) {
                Some(line) => format!("{name}:{line}"),
                None => name.to_owned(),
            };
            match self.kind(path) {
                Kind::Unknown => self.unknown(origin(), path),
                Kind::Section => match value {
                    Value::Null => {}
                    Value::Mapping(map) => self.section(name, text, path, map),
                    _ => {
                        self.problem(origin(), path, "is a section: its keys go on the lines below it, indented".into())
                    }
                },
                Kind::Value => match self.try_value(path, value) {
                    Ok(()) => self.put(path, value.clone(), origin()),
                    Err(message) => self.problem(origin(), path, message),
                },
            }
            path.pop();
        }
    }

    /// Lays environment variables on top. Variables of other prefixes are not ours.
    pub fn env(&mut self, vars: impl IntoIterator<Item = (String, String)>) {
        let mut vars: Vec<_> = vars.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        vars.sort();
        for (name, text) in vars {
            let rest = &name[ENV_PREFIX.len()..];
            if !rest.contains(ENV_SEPARATOR) {
                self.maybe_misspelt(&name, rest);
                continue;
            }
            let mut path: Vec<String> = Vec::new();
            for part in rest.split(ENV_SEPARATOR) {
                // The keys of an open map, as API keys, keep their case.
                let open = matches!(self.kind(&path), Kind::Value);
                path.push(if open { part.to_owned() } else { part.to_lowercase() });
            }
            match self.text_in_file(&path, &text) {
                Some(Ok((path, text))) => self.text(&path, &text, name),
                Some(Err(message)) => self.problem(name, &path, message),
                None => self.text(&path, &text, name),
            }
        }
    }

    /// `VIVA_SERVER_HTTP_LISTEN` is a mistake worth telling; other `VIVA_…` variables are somebody else's.
    fn maybe_misspelt(&mut self, name: &str, rest: &str) {
        let squeeze = |s: &str| s.to_lowercase().replace(['_', '.'], "");
        let meant = self.keys().into_iter().find(|key| squeeze(key) == squeeze(rest));
        if let Some(key) = meant {
            let right = format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', ENV_SEPARATOR));
            self.problem(name.to_owned(), &[], format!("is not read; did you mean `{right}` (two underscores)?"));
        }
    }

    /// The value of `…_FILE` variables: the content of the file, without the line end.
    fn text_in_file(&self, path: &[String], file: &str) -> Option<Result<(Vec<String>, String), String>> {
        let stem = path.last()?.strip_suffix(FILE_SUFFIX)?;
        let mut target = path[..path.len() - 1].to_vec();
        target.push(stem.to_owned());
        if !matches!(self.kind(path), Kind::Unknown) || !matches!(self.kind(&target), Kind::Value) {
            return None;
        }
        Some(match std::fs::read_to_string(Path::new(file)) {
            Ok(text) => Ok((target, text.trim_end().to_owned())),
            Err(error) => Err(format!("names the file {file}, which cannot be read: {error}")),
        })
    }

    /// Lays one value on top: `key` dotted, `text` as YAML or plain.
    pub fn set(&mut self, key: &str, text: &str, origin: &str) {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        self.text(&path, text, origin.to_owned());
    }

    /// A value from a text without types: YAML where that fits the key's type, else plain text, else a list.
    fn text(&mut self, path: &[String], text: &str, origin: String) {
        match self.kind(path) {
            Kind::Unknown => return self.unknown(origin, path),
            Kind::Section => return self.problem(origin, path, "is a section: name one of its keys".into()),
            Kind::Value => {}
        }
        let yaml = serde_yaml_ng::from_str(text).unwrap_or(Value::String(text.to_owned()));
        let list = text.split(',').map(|item| Value::String(item.trim().to_owned())).collect();
        let ways = [yaml, Value::String(text.to_owned()), Value::Sequence(list)];
        let first_error = match self.try_value(path, &ways[0]) {
            Ok(()) => return self.put(path, ways.into_iter().next().unwrap_or_default(), origin),
            Err(message) => message,
        };
        match ways.into_iter().skip(1).find(|value| self.try_value(path, value).is_ok()) {
            Some(value) => self.put(path, value, origin),
            None => self.problem(origin, path, first_error),
        }
    }

    /// The configuration and where each value came from, or all problems.
    pub fn finish(self) -> Result<(T, Origins), Vec<Problem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        match serde_yaml_ng::from_value(self.tree) {
            Ok(config) => Ok((config, Origins(self.origins))),
            // Each value fitted by itself, so this is a rule inside one module's types.
            Err(error) => {
                Err(vec![Problem { origin: "configuration".into(), key: String::new(), message: error.to_string() }])
            }
        }
    }

    fn kind(&self, path: &[String]) -> Kind {
        let mut at = &self.schema;
        for key in path {
            match at {
                Value::Mapping(map) if map.is_empty() => return Kind::Value,
                Value::Mapping(map) => match map.get(key.as_str()) {
                    Some(value) => at = value,
                    None => return Kind::Unknown,
                },
                _ => return Kind::Unknown,
            }
        }
        match at {
            Value::Mapping(map) if !map.is_empty() => Kind::Section,
            _ => Kind::Value,
        }
    }

    /// Whether the value fits the key's type, tried with every other key at its default.
    fn try_value(&self, path: &[String], value: &Value) -> Result<(), String> {
        let mut tree = Value::Mapping(Mapping::new());
        insert(&mut tree, path, value.clone());
        match serde_path_to_error::deserialize::<_, T>(tree) {
            Ok(_) => Ok(()),
            Err(_) if is_secret(path) => Err("has a value of the wrong type; write it in quotes".into()),
            Err(error) => {
                let inner = error.path().to_string();
                let message = error.into_inner().to_string();
                // serde_yaml repeats the path in front of its message.
                let message = message.strip_prefix(&format!("{inner}: ")).unwrap_or(&message);
                Err(format!("cannot be used: {message}{}", self.example(path)))
            }
        }
    }

    /// The default, where it shows what a value looks like.
    fn example(&self, path: &[String]) -> String {
        let default = path.iter().try_fold(&self.schema, |at, key| at.get(key.as_str()));
        match default.and_then(|value| serde_yaml_ng::to_string(value).ok()) {
            Some(text) if !matches!(text.trim(), "null" | "''" | "[]" | "{}") => {
                format!("; the default is {}", text.trim())
            }
            _ => String::new(),
        }
    }

    fn put(&mut self, path: &[String], value: Value, origin: String) {
        insert(&mut self.tree, path, value);
        self.origins.retain(|(at, _)| at != path);
        self.origins.push((path.to_vec(), origin));
    }

    fn unknown(&mut self, origin: String, path: &[String]) {
        let dotted = path.join(".");
        let message = match nearest(&dotted, &self.keys()) {
            Some(key) => format!("is not a known key; did you mean `{key}`?"),
            None => "is not a known key; config/server.yaml lists them all".to_owned(),
        };
        self.problem(origin, path, message);
    }

    fn problem(&mut self, origin: String, path: &[String], message: String) {
        self.problems.push(Problem { origin, key: path.join("."), message });
    }

    /// All keys, sections too, dotted.
    fn keys(&self) -> Vec<String> {
        fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
            let Value::Mapping(map) = value else { return };
            for (key, value) in map {
                let Some(key) = key.as_str() else { continue };
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                walk(value, &path, out);
                out.push(path);
            }
        }
        let mut out = Vec::new();
        walk(&self.schema, "", &mut out);
        out
    }
}

/// Where each value came from.
#[derive(Debug)]
pub struct Origins(Vec<(Vec<String>, String)>);

impl Origins {
    /// The source that set `key` (dotted) or a key below it; `None` where it has its default.
    pub fn of(&self, key: &str) -> Option<&str> {
        let wanted: Vec<_> = key.split('.').collect();
        let found = self.0.iter().rev().find(|(path, _)| path.iter().take(wanted.len()).eq(wanted.iter()));
        found.map(|(_, origin)| origin.as_str())
    }
}

enum Kind {
    Section,
    /// A leaf, or a place inside a map whose keys are the user's own.
    Value,
    Unknown,
}

fn insert(tree: &mut Value, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    let mut map = match std::mem::take(tree) {
        Value::Mapping(map) => map,
        _ => Mapping::new(),
    };
    insert(map.entry(Value::String(key.clone())).or_insert(Value::Null), rest, value);
    *tree = Value::Mapping(map);
}

fn is_secret(path: &[String]) -> bool {
    path.iter().any(|part| ["key", "keys", "secret", "password", "token"].iter().any(|word| part.ends_with(word)))
}

/// The known key that was most likely meant: few edits away, or the same name in another section.
fn nearest(wrong: &str, known: &[String]) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &String| {
        let whole = strsim::damerau_levenshtein(wrong, key);
        let moved = 2 + strsim::damerau_levenshtein(&last(wrong), &last(key));
        whole.min(moved)
    };
    let most = (last(wrong).len() / 3).max(2);
    known.iter().map(|key| (distance(key), key)).filter(|(d, _)| *d <= most).min().map(|(_, key)| key.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        port: u16,
        ips: Vec<std::net::IpAddr>,
        name: String,
        keys: BTreeMap<String, String>,
        listen: Option<std::net::SocketAddr>,
    }

    impl Default for Part {
        fn default() -> Self {
            Self { port: 1, ips: vec![], name: "x".into(), keys: BTreeMap::new(), listen: None }
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        server: Part,
        other: Part,
    }

    fn problems(layers: Layers<Whole>) -> Vec<String> {
        layers.finish().expect_err("is wrong").iter().map(Problem::to_string).collect()
    }

    #[test]
    fn later_layers_win_and_the_rest_keeps_its_default() {
        let mut layers = Layers::<Whole>::new();
        layers.file("f.yaml", "server:\n  port: 2\n  name: file\nother:\n");
        layers.env([("VIVA_SERVER__PORT".into(), "3".into()), ("HOME".into(), "/".into())]);
        layers.set("server.port", "4", "--set");
        let (config, origins) = layers.finish().expect("fits");
        assert_eq!((config.server.port, config.server.name.as_str(), config.other.port), (4, "file", 1));
        assert_eq!(origins.of("server.port"), Some("--set"));
        assert_eq!(origins.of("server.name"), Some("f.yaml:3"));
        assert_eq!(origins.of("other.port"), None);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line_and_the_nearest_key() {
        let mut layers = Layers::<Whole>::new();
        layers.file("f.yaml", "server:\n  prot: 2\n  port: many\nother: 5\nserv:\n  port: 1\n");
        layers.env([("VIVA_SERVER__LISTENN".into(), "x".into()), ("VIVA_SERVER_PORT".into(), "1".into())]);
        let found = problems(layers);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert_eq!(found[0], "f.yaml:2: `server.prot` is not a known key; did you mean `server.port`?");
        assert!(found[1].starts_with("f.yaml:3: `server.port` cannot be used: "), "{}", found[1]);
        assert!(found[2].starts_with("f.yaml:4: `other` is a section"), "{}", found[2]);
        assert_eq!(found[3], "f.yaml:5: `serv` is not a known key; did you mean `server`?");
        assert!(found[4].contains("VIVA_SERVER__PORT"), "{}", found[4]);
        assert_eq!(
            found[5],
            "VIVA_SERVER__LISTENN: `server.listenn` is not a known key; did you mean `server.listen`?"
        );
    }

    #[test]
    fn texts_become_what_the_key_needs() {
        let mut layers = Layers::<Whole>::new();
        layers.env([
            ("VIVA_SERVER__NAME".into(), "123".into()),
            ("VIVA_SERVER__IPS".into(), "10.0.0.1, ::1".into()),
            ("VIVA_SERVER__KEYS__APIkey".into(), "42".into()),
            ("VIVA_SERVER__LISTEN".into(), "[::]:9090".into()),
        ]);
        let (config, _) = layers.finish().expect("fits");
        assert_eq!(config.server.name, "123");
        assert_eq!(config.server.ips.len(), 2);
        assert_eq!(config.server.keys["APIkey"], "42");
        assert_eq!(config.server.listen.map(|a| a.port()), Some(9090));
    }

    #[test]
    fn a_file_variable_is_read_and_its_absence_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("name");
        std::fs::write(&path, "from file\n").expect("writable");
        let mut layers = Layers::<Whole>::new();
        layers.env([("VIVA_SERVER__NAME_FILE".into(), path.display().to_string())]);
        assert_eq!(layers.finish().expect("fits").0.server.name, "from file");
        let mut layers = Layers::<Whole>::new();
        layers.env([("VIVA_SERVER__NAME_FILE".into(), "/nowhere/at/all".into())]);
        assert!(problems(layers)[0].contains("cannot be read"));
    }

    #[test]
    fn a_wrong_secret_is_not_repeated() {
        let mut layers = Layers::<Whole>::new();
        layers.file("f.yaml", "server:\n  keys:\n    a: [hidden]\n");
        assert!(!problems(layers)[0].contains("hidden"));
    }

    #[test]
    fn broken_yaml_names_its_line() {
        let mut layers = Layers::<Whole>::new();
        layers.file("f.yaml", "server:\n  port: [1\n");
        assert!(problems(layers)[0].contains("line"));
    }
}
