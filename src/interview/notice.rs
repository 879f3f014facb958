//! What a person is told before they consent. The version is part of the consent record: change it with the text.

/// Version of the two texts below.
pub const VERSION: &str = "2026-11-1";
/// For [`crate::model::Purpose::AiInterviewer`].
pub const AI: &str = "You will talk with an AI interviewer. It speaks with a synthetic voice and listens to your \
    microphone to take turns and to understand your answers. It does not watch your camera, and it gives no scores. You \
    can withdraw at any time: it stops listening within a second.";
/// For [`crate::model::Purpose::Transcription`].
pub const KEPT: &str = "What you say is kept as text with your name, together with the interviewer's words and the times \
    of each turn. No audio or video is recorded. Without this consent your words are shown as captions and forgotten.";
