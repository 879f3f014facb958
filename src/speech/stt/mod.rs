//! Speech recognition: one small trait, one file per provider.

pub mod ggml;
pub mod openai;
pub mod whisper;

use tokio::sync::mpsc;

use super::ProviderError;

/// One stretch of speech, from voice onset (with pre-roll) to the end of voice.
///
/// The owner sends 16 kHz mono samples and drops the sender at the end of speech; the provider then sends exactly one
/// `Final` or `Failed` and ends. Dropping the whole stream cancels the work.
pub struct SttStream {
    /// 16 kHz mono, in chunks of any size.
    pub audio: Option<mpsc::Sender<Box<[i16]>>>,
    pub events: mpsc::Receiver<SttEvent>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SttEvent {
    /// What was understood so far; each replaces the one before.
    Partial(crate::model::Personal),
    Final(Transcript),
    Failed(ProviderError),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// Trimmed; empty where nothing was understood.
    pub text: crate::model::Personal,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SttCapabilities {
    /// The audio leaves this server, which people are told before they consent.
    pub remote: bool,
}

pub trait SttProvider: Send + Sync {
    /// Short and bounded: it is a metric label.
    fn name(&self) -> &'static str;
    fn capabilities(&self) -> SttCapabilities;
    /// Starts listening to one stretch of speech. Must not block. `language` is BCP 47, as `en`.
    fn open(&self, language: &str) -> SttStream;
}
