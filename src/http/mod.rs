//! HTTP.

pub mod error;
pub mod layers;
pub mod listener;
pub mod ops;
pub mod page;
