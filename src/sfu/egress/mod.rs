//! What goes out to receivers without passing str0m: sealing it, and what they report of it.

#![allow(dead_code, reason = "the transports still send by str0m alone")]

pub mod rtcp;
pub mod srtp;
