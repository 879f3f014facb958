//! Viva, a real-time media server for live interviews: an SFU with an AI interviewer inside.

pub mod auth;
pub mod cli;
pub mod config;
pub mod http;
pub mod id;
pub mod interview;
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
pub mod worker;
