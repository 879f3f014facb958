//! How clients talk to rooms: LiveKit's signalling.

pub mod livekit;

/// Longest identity, in bytes.
const IDENTITY_BYTES_MAX: usize = 256;
