//! The pure media core of one worker.

mod api;

pub use api::{Command, DataChannel, Event, EventKind, MediaKind, PendingTrack};
