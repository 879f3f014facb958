//! Viva, a real-time media server for live interviews: an SFU with an AI interviewer inside.
//!
//! Two walks go through it. **A packet** is read by a [`worker`]'s thread, decrypted, forwarded by [`sfu`] and sent on
//! the same thread: no lock, no channel, no await. **An utterance** leaves that thread as a copy of its packets (the
//! tap), becomes words in [`speech`], a turn and a reply in [`interview`], audio again in [`speech`], and goes back
//! (inject) to the same forwarder. Those two are the only crossings.
//!
//! Around them: [`rooms`] say who is where, [`signalling`] and [`http`] are the doors, [`webhooks`] tell the
//! integrator's servers, [`store`] keeps, [`config`] composes every module's settings, and [`server`] builds it all.
//! Imports go downwards only; `tests/architecture.rs` has the table. ARCHITECTURE.md has the map and the reasons.
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::expect_used, clippy::too_many_lines, clippy::unwrap_used)
)]

pub mod agents;
pub mod auth;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod front;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod id;
pub mod interview;
pub mod limits;
pub mod media;
pub mod model;
pub mod models;
pub mod rooms;
pub mod server;
pub mod sfu;
pub mod signalling;
pub mod speech;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod turn_server;
pub mod webhooks;
pub mod worker;
