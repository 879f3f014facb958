//! Audio to words and words to audio. Knows no rooms and no RTP.

pub mod codec;
pub mod config;
pub mod ear;
pub mod listener;
pub mod speaker;
pub mod stt;
pub mod tts;
pub mod vad;
pub mod wav;

pub use config::{Chosen, Config, SetupError, stt_from_config, tts_from_config};

/// Why a provider failed, and whether trying again (or elsewhere) may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {kind}: {message}")]
pub struct ProviderError {
    pub provider: &'static str,
    pub kind: ProviderErrorKind,
    /// For the log: never what was said or prompted.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderErrorKind {
    Timeout,
    Unavailable,
    /// The request was refused: wrong key, unknown model.
    Rejected,
    Malformed,
}

impl ProviderErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Malformed => "malformed",
        }
    }

    pub fn retryable(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }
}

impl std::fmt::Display for ProviderErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
