//! Tidy rules that the compiler does not know: who may import whom, what the pure parts must not touch, how long a
//! file may be, how metrics are called.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines after which a file must be split.
const FILE_LINES_MAX: usize = 800;

/// Level by level, what each module may import besides itself. An edge that is not here is a mistake: move the type
/// down, or pass a value.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("limits", &[]),
    ("media", &["id"]),
    ("model", &["id"]),
    ("auth", &["id"]),
    ("telemetry", &["id"]),
    ("tls", &[]),
    ("front", &["tls"]),
    ("sfu", &["id", "media", "limits"]),
    ("speech", &["id", "media", "model", "telemetry", "auth"]),
    ("store", &["id", "model", "telemetry"]),
    ("turn_server", &["auth", "front", "telemetry", "tls"]),
    ("webhooks", &["auth", "telemetry"]),
    ("models", &["speech"]),
    ("worker", &["sfu", "id", "media", "telemetry"]),
    ("rooms", &["worker", "sfu", "auth", "id", "media", "model", "telemetry", "limits"]),
    ("signalling", &["rooms", "turn_server", "auth", "id", "model", "telemetry", "limits"]),
    ("interview", &["rooms", "speech", "store", "model", "id", "media", "telemetry", "auth", "limits"]),
    ("agents", &["interview", "rooms", "auth", "model", "id", "telemetry"]),
    (
        "http",
        &["agents", "front", "interview", "rooms", "signalling", "store", "auth", "model", "id", "telemetry", "limits"],
    ),
    (
        "config",
        &[
            "auth",
            "http",
            "interview",
            "models",
            "rooms",
            "signalling",
            "speech",
            "store",
            "turn_server",
            "webhooks",
            "worker",
            "telemetry",
            "tls",
            "id",
            "media",
            "model",
        ],
    ),
    ("doctor", &["auth", "config", "models", "tls", "turn_server"]),
    ("fuzzing", &["*"]),
    ("cli", &["*"]),
    ("server", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// `(file or folder, words that must not appear in its code, why)`.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "src/sfu",
        &[
            "tokio",
            "async fn",
            "Instant::now",
            "SystemTime::now",
            "Mutex",
            "RwLock",
            "Atomic",
            "mpsc",
            "println",
            "dbg!",
            "thread::",
            "prometheus",
        ],
        "the media core has no runtime, no locks and no clock: time and input are arguments, output is returned",
    ),
    ("src/interview/turn.rs", PURE, "the turn detector is a pure machine: time is an argument"),
    ("src/interview/conversation.rs", PURE, "the conversation is a pure machine: time is an argument"),
    ("src/interview/cursor.rs", PURE, "the plan's cursor is a pure machine"),
    ("src/front/opening.rs", PURE, "what a client speaks is told by bytes alone"),
    ("src/agents/registry.rs", PURE, "the registry of agents is a pure machine: time is an argument"),
    ("src/agents/plan.rs", PURE, "the registry of agents is a pure machine: time is an argument"),
    ("src/agents/talk.rs", PURE, "the registry of agents is a pure machine: time is an argument"),
    ("src/agents/workers.rs", PURE, "the choice of a worker is pure"),
    ("src/agents/job.rs", PURE, "a job is plain data"),
    ("src/limits.rs", PURE, "limits are pure machines: time is an argument"),
    ("src/signalling/livekit/allowance.rs", PURE, "a client's allowance is a pure machine: time is an argument"),
    ("src/rooms/revoked.rs", PURE, "what is revoked is a pure machine: time is an argument"),
    ("src/webhooks/queue.rs", PURE, "the queue of webhooks is a pure machine"),
    ("src/webhooks/retry.rs", PURE, "the retries of webhooks are a pure machine: time is an argument"),
    ("src/speech", &["RoomName", "RoomSid", "livekit_protocol"], "speech knows no rooms and no wire protocol"),
    ("src/interview", &["str0m", "RtpHeader"], "the interviewer never sees the transport"),
    ("src/store", &["str0m", "tokio::sync::mpsc"], "the store is called by the control plane only"),
];

const PURE: &[&str] =
    &["tokio", "async fn", "Instant::now", "SystemTime::now", "Mutex", "RwLock", "Atomic", "mpsc", "println", "dbg!"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return out };
    for entry in entries.map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            out.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|ext| ext == "rs") {
            out.push(entry);
        }
    }
    out.sort();
    out
}

fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs" || name == "fake.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// The code of a file without comments and without its `#[cfg(test)]` module at the end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("readable");
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(without_comment).collect::<Vec<_>>().join("\n")
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    // `://` of an address inside a string is no comment.
    match line.find("// ") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

/// First segments of the paths that begin with `crate::`, in `use` lists too.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and names that end so are other things.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level_items(list)),
            None => found.extend(first_word(rest)),
        }
    }
    found
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// The first words of the items of a `{…}` list whose opening bracket is gone.
fn top_level_items(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().filter_map(first_word).collect()
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).expect("under src");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn modules_import_only_downwards() {
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut mistakes = Vec::new();
    for path in rust_files(&root().join("src")).into_iter().filter(|path| !is_test_file(path)) {
        let module = module_of(&path);
        let Some(allowed) = table.get(module.as_str()) else {
            mistakes
                .push(format!("{}: module `{module}` is not in the table of levels; give it a row", relative(&path)));
            continue;
        };
        for import in imports(&code(&path)) {
            let known = table.contains_key(import.as_str());
            if known && import != module && !allowed.contains(&"*") && !allowed.contains(&import.as_str()) {
                mistakes.push(format!("{}: `{module}` may not import `{import}`", relative(&path)));
            }
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn the_table_of_levels_has_no_cycle() {
    let level: BTreeMap<_, _> = MAY_IMPORT.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    for (name, imports) in MAY_IMPORT {
        for import in imports.iter().filter(|import| **import != "*") {
            assert!(level[import] < level[name], "`{name}` must stand below `{import}`");
        }
    }
}

#[test]
fn pure_parts_touch_no_runtime_no_lock_and_no_clock() {
    let mut mistakes = Vec::new();
    for (place, words, why) in FORBIDDEN {
        let at = root().join(place);
        let files = if at.is_dir() { rust_files(&at) } else { vec![at] };
        for path in files.into_iter().filter(|path| path.exists() && !is_test_file(path)) {
            for (number, line) in code(&path).lines().enumerate() {
                for word in words.iter().filter(|word| holds_word(line, word)) {
                    mistakes.push(format!("{}:{}: `{word}`: {why}", relative(&path), number + 1));
                }
            }
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

/// `word` with no identifier in front of it, so that `print` does not match in `blueprint`.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn only_rooms_holds_worker_handles_and_only_the_media_core_names_str0m() {
    for path in rust_files(&root().join("src")).into_iter().filter(|path| !is_test_file(path)) {
        let (module, code) = (module_of(&path), code(&path));
        if !["worker", "rooms", "server"].contains(&module.as_str()) {
            assert!(!holds_word(&code, "WorkerHandle"), "{}: only rooms hold worker handles", relative(&path));
        }
        if !["sfu", "worker"].contains(&module.as_str()) {
            assert!(!holds_word(&code, "str0m::"), "{}: only the media core names str0m", relative(&path));
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let mut files: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|dir| rust_files(&root().join(dir))).collect();
    files.retain(|path| !path.components().any(|part| part.as_os_str() == "node_modules"));
    for path in files {
        let lines = fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines; split it", relative(&path));
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).expect("readable");
        assert!(
            text.trim_start().starts_with("//!") || is_test_file(&path) || path.ends_with("main.rs"),
            "{} lacks a module comment (`//!`): what it is, what it is not, its invariant",
            relative(&path)
        );
    }
}

/// Kind, name and the rest of the line of every metric. A family without a child is not rendered, so they are read from
/// the source.
fn metrics() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join("src/telemetry/metrics.rs")).expect("readable");
    let metric = |line: &str| {
        let (kind, rest) = line.trim().split_once(": ")?.1.split_once("(\"")?;
        let kind_is_a_word = !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphabetic());
        let (name, rest) = rest.split_once('"')?;
        kind_is_a_word.then(|| (kind.to_owned(), name.to_owned(), rest.to_owned()))
    };
    let found: Vec<_> = text.lines().filter(|line| line.starts_with("    ")).filter_map(metric).collect();
    assert!(found.len() > 20, "the metrics were not found in the source");
    found
}

#[test]
fn metric_names_follow_the_rules() {
    use prometheus::core::Collector;
    for (kind, name, rest) in metrics() {
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}: snake_case, no digits");
        assert_eq!(kind.contains("Counter"), name.ends_with("_total"), "{name}: counters end in _total, and only they");
        if kind.starts_with("Histogram") {
            assert!(
                name.ends_with("_seconds") || name.ends_with("_bytes"),
                "{name}: histograms end in their base unit"
            );
        }
        for bad in ["_ms", "_us", "_millis", "_micros", "_kb"] {
            assert!(!name.ends_with(bad), "{name}: base units only (seconds, bytes)");
        }
        for label in ["room", "participant", "session", "identity", "name"] {
            assert!(!rest.contains(&format!("\"{label}\"")), "{name}: `{label}` is no label, it has no bound");
        }
    }
    let metrics = viva::telemetry::Metrics::new();
    assert_eq!(metrics.rooms.desc()[0].fq_name, "rooms");
    assert!(metrics.render().contains("viva_rooms 0"), "the registry adds the prefix once");
}

#[test]
fn metrics_that_are_promised_exist() {
    let known: BTreeSet<String> = metrics().into_iter().map(|(_, name, _)| format!("viva_{name}")).collect();
    let mut promised = 0;
    for file in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(file)).expect("readable");
        let names = text.split('`').filter(|word| word.starts_with("viva_") && *word != "viva_");
        for name in names.map(|word| word.split('{').next().unwrap_or(word)) {
            promised += 1;
            assert!(known.contains(name), "{file} promises `{name}`, which src/telemetry/metrics.rs does not have");
        }
    }
    assert!(promised > 10, "README.md's section on metrics was not read");
}

#[test]
fn imports_are_read_from_lists_and_paths() {
    let code = "use crate::{\n    id::{A, B},\n    media,\n    sfu::{api::{C}, D},\n};\nfn f() -> crate::model::Role {}\n$crate::no;";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["id", "media", "model", "sfu"]);
}
