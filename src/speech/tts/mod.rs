//! Text-to-speech: one small trait, one file per provider.

pub mod espeak;
pub mod fallback;
pub mod piper;

use tokio::sync::mpsc;

use super::ProviderError;

/// Mono PCM as the voice makes it.
pub struct PcmChunk {
    pub sample_rate: u32,
    pub samples: Vec<i16>,
}

pub trait TtsProvider: Send + Sync {
    /// Short and bounded: it is a metric label.
    fn name(&self) -> &'static str;
    /// Speaks one clause. Must not block. Audio comes in chunks as it is made; the channel ends after the last, or
    /// after an error. Dropping the receiver cancels the work at once (kills the process, stops the inference at the
    /// next sentence).
    fn speak(&self, text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>>;
}
