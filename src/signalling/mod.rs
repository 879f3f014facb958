//! How clients talk to rooms: LiveKit's signalling.

pub mod livekit;
