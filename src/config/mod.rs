//! Config.
pub mod layers;
mod locate;
