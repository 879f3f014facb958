//! Structured logs: one line an event, with ids, never with personal data.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Crates that log what they send or receive, which is what people said, or from where they come.
const INDISCREET: &[&str] = &["async_openai=off", "turn_server_proto=off", "stun_proto=off"];

/// Text for a terminal, JSON for machines. Writes to standard error. `filter` is an `EnvFilter` directive list.
pub fn init(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter `{filter}` is not valid: {e}"))?;
    let filter = INDISCREET.iter().filter_map(|d| d.parse().ok()).fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let done = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).with_ansi(stderr().is_terminal()).try_init()
    };
    done.map_err(|e| format!("logging was already set up: {e}"))
}
