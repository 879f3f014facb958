//! Speech recognition: one small trait, one file per provider.

pub mod ggml;
pub mod openai;
pub mod whisper;

use std::time::Duration;

use tokio::sync::mpsc;

use super::ProviderError;

/// One stretch of speech, from voice onset (with pre-roll) to the end of voice.
///
/// The owner sends 16 kHz mono samples and drops (or [`SttStream::finish`]es) the sender at the end of speech; the
/// provider then sends exactly one `Final` or `Failed` and ends. Dropping the whole stream cancels the work.
pub struct SttStream {
    /// 16 kHz mono, in chunks of any size.
    pub audio: Option<mpsc::Sender<Box<[i16]>>>,
    pub events: mpsc::Receiver<SttEvent>,
}

impl SttStream {
    /// Says that the speech is over: the final transcript comes next.
    pub fn finish(&mut self) {
        self.audio = None;
    }
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
    /// Words with their times after the start of the stream; empty where the provider has none.
    pub words: Vec<(crate::model::Personal, Duration, Duration)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SttCapabilities {
    pub partials: bool,
    pub word_times: bool,
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
