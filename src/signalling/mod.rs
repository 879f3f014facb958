//! How clients talk to rooms: LiveKit's signalling, and WHIP and WHEP for clients that have no socket.

mod ice;
pub mod livekit;
pub mod whip;

use axum::Router;

use self::livekit::Signalling;

/// Longest identity, in bytes.
const IDENTITY_BYTES_MAX: usize = 256;

/// The routes of all protocols, for any origin.
pub fn router(state: Signalling) -> Router {
    livekit::router(state.clone()).merge(whip::router(state))
}
