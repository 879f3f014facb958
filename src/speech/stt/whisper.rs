//! Recognition in this process: whisper.cpp on a small pool of threads.
//!
//! Audio is collected while somebody speaks and recognised when they stop. With partials on, the open stretch is also
//! recognised now and then while a thread is free; a final never waits for a partial.
//!
//! The model is checked before it is loaded (`ggml.rs`), since whisper.cpp aborts the process on a bad one.

mod engine;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use self::engine::{Busy, Engine, Job};
use super::{SttCapabilities, SttEvent, SttProvider, SttStream, Transcript, ggml};
use crate::{
    media::SPEECH_HZ,
    speech::{ProviderError, ProviderErrorKind},
};

const NAME: &str = "whisper";
/// Chunks of audio under way from the listener to the collector: 5 s of packets, plus the run-up.
const AUDIO_MAX: usize = 256;
/// whisper's window is 30 s; what is above is cut off. Listeners send less.
const SAMPLES_MAX: usize = SPEECH_HZ as usize * 30;
/// New audio in samples before the open stretch is recognised again: 1 s.
const PARTIAL_STEP: usize = SPEECH_HZ as usize;
/// A stretch that is not recognised in this time is given up: the pool is far behind.
const JOB_TIMEOUT: Duration = Duration::from_secs(40);

pub struct Whisper {
    engine: Arc<Engine>,
    partials: bool,
}

pub struct WhisperOptions {
    pub model: PathBuf,
    /// BCP 47; the model must know it.
    pub language: String,
    /// Jobs at once, each on one thread.
    pub threads: usize,
    pub partials: bool,
}

impl Whisper {
    /// Checks and loads the model; takes up to seconds for a large one. An error says what is wrong with it.
    pub fn load(options: &WhisperOptions) -> Result<Self, String> {
        let info = ggml::check(&options.model).map_err(|error| error.to_string())?;
        let language = language_code(&options.language);
        if info.english_only && language != "en" {
            return Err(format!(
                "the model knows English only, and speech.stt.language is `{}`: take a model without `.en` in its name",
                options.language
            ));
        }
        engine::check_language(&language)?;
        let engine = Engine::start(&options.model, info, options.threads)?;
        Ok(Self { engine: Arc::new(engine), partials: options.partials })
    }

    /// Where a model may lie, in the order of preference: `wanted` as a path or a name in `dir`; if it is empty, the
    /// models in `dir`, the better ones of those that run in real time first.
    pub fn candidates(wanted: &str, dir: &Path) -> Vec<PathBuf> {
        if !wanted.is_empty() {
            let names = [wanted.to_owned(), format!("ggml-{wanted}.bin")];
            let places = names.iter().flat_map(|name| [PathBuf::from(name), dir.join(name)]);
            return places.filter(|path| path.is_file()).take(1).collect();
        }
        const BEST_FIRST: [&str; 6] = ["base.en", "base", "small.en", "small", "tiny.en", "tiny"];
        let rank = |name: &str| BEST_FIRST.iter().position(|b| name == format!("ggml-{b}.bin")).unwrap_or(usize::MAX);
        let mut found: Vec<(usize, PathBuf)> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                (name.starts_with("ggml-") && name.ends_with(".bin")).then(|| (rank(&name), entry.path()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }
}

/// ISO 639-1 of a BCP 47 tag.
fn language_code(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

impl SttProvider for Whisper {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> SttCapabilities {
        SttCapabilities { remote: false }
    }

    fn open(&self, language: &str) -> SttStream {
        let (audio, chunks) = mpsc::channel(AUDIO_MAX);
        // Partials that nobody has read yet are old ones: few are enough.
        let (events, receiver) = mpsc::channel(4);
        let stretch = Stretch { engine: self.engine.clone(), language: language_code(language), samples: Vec::new() };
        let partials = self.partials;
        tokio::spawn(async move {
            tokio::select! {
                // The stream was dropped: the job under way is told to stop.
                () = events.closed() => {}
                () = stretch.run(chunks, &events, partials) => {}
            }
        });
        SttStream { audio: Some(audio), events: receiver }
    }
}

/// Tells a job to stop when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Answer = oneshot::Receiver<Result<Transcript, ProviderError>>;

struct Stretch {
    engine: Arc<Engine>,
    language: String,
    samples: Vec<i16>,
}

impl Stretch {
    async fn run(mut self, mut chunks: mpsc::Receiver<Box<[i16]>>, events: &mpsc::Sender<SttEvent>, partials: bool) {
        let mut next_partial = PARTIAL_STEP;
        let mut partial: Option<(StopOnDrop, Answer)> = None;
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                answer = answer_of(&mut partial), if partial.is_some() => {
                    partial = None;
                    if let Some(Ok(transcript)) = answer && !transcript.text.0.is_empty() {
                        let _ = events.try_send(SttEvent::Partial(transcript.text));
                    }
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            let room = SAMPLES_MAX - self.samples.len();
            self.samples.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if partials && partial.is_none() && self.samples.len() >= next_partial {
                next_partial = self.samples.len() + PARTIAL_STEP;
                partial = self.submit(false).ok();
            }
        }
        // A partial under way would only be in the way of the final.
        drop(partial);
        let result = match self.submit(true) {
            Ok((_stop, answer)) => match tokio::time::timeout(JOB_TIMEOUT, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(error(ProviderErrorKind::Unavailable, "the pool of threads is gone")),
                Err(_) => Err(error(ProviderErrorKind::Timeout, "took too long: the machine is too busy")),
            },
            Err(Busy) => Err(error(ProviderErrorKind::Unavailable, "too many stretches of speech wait already")),
        };
        let event = match result {
            Ok(transcript) => SttEvent::Final(transcript),
            Err(error) => SttEvent::Failed(error),
        };
        let _ = events.send(event).await;
    }

    fn submit(&self, last: bool) -> Result<(StopOnDrop, Answer), Busy> {
        let stop = Arc::new(AtomicBool::new(false));
        let (reply, answer) = oneshot::channel();
        let job =
            Job { samples: self.samples.clone(), language: self.language.clone(), stop: stop.clone(), reply, last };
        self.engine.submit(job)?;
        Ok((StopOnDrop(stop), answer))
    }
}

async fn answer_of(partial: &mut Option<(StopOnDrop, Answer)>) -> Option<Result<Transcript, ProviderError>> {
    match partial {
        Some((_, answer)) => answer.await.ok(),
        None => None,
    }
}

fn error(kind: ProviderErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError { provider: NAME, kind, message: message.into() }
}

#[cfg(test)]
mod tests;
