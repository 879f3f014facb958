//! Piper voices: one small neural network per voice, run by ONNX Runtime on this machine.
//!
//! Our own caller of the network; of Piper only the format of the voices is used. Phonemes come from `espeak-ng` as a
//! process. One inference per sentence, so that the first sentence sounds while the next is made.

pub mod runtime;
mod voice;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ort::{session::Session, value::Tensor};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, mpsc},
};

use self::voice::{Sentence, Voice, sentences};
use super::{PcmChunk, TtsProvider, espeak};
use crate::{
    speech::{ProviderError, ProviderErrorKind},
    telemetry::Metrics,
};

pub const NAME: &str = "piper";
/// Sentences made ahead of the reader. Full: the next one waits.
const CHUNKS_MAX: usize = 2;
/// Time for espeak-ng to give phonemes.
const PHONEMES_TIMEOUT: Duration = Duration::from_secs(3);

pub struct Piper {
    inner: Arc<Inner>,
}

pub struct PiperOptions {
    /// The `.onnx` file; its description is beside it as `.onnx.json`.
    pub voice: PathBuf,
    /// Name or number; empty takes the first.
    pub speaker: String,
    /// Path of the ONNX Runtime library.
    pub runtime: PathBuf,
    /// Inferences at once, each on one core. Each holds the voice in memory.
    pub parallel: usize,
}

struct Inner {
    voice: Voice,
    model: PathBuf,
    /// Sessions that are free. One is taken with a permit of `slots` in hand, which is kept until it is back: also if
    /// nobody waits for the inference any more.
    free: Mutex<Vec<Session>>,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Piper {
    /// Loads the library and the voice; takes up to a second. An error says what is wrong and what to do.
    pub fn load(options: PiperOptions, metrics: Arc<Metrics>) -> Result<Self, String> {
        let description = with_suffix(&options.voice, ".json");
        let voice = Voice::load(&description, &options.speaker)?;
        if let Some(espeak_voice) = &voice.espeak_voice {
            espeak::check_voice(espeak_voice)?;
        }
        if !options.voice.is_file() {
            return Err(format!("the voice `{}` does not exist", options.voice.display()));
        }
        runtime::load(&options.runtime)?;
        let parallel = options.parallel.max(1);
        let sessions = (0..parallel).map(|_| session(&options.voice)).collect::<Result<Vec<_>, _>>()?;
        check_inputs(&sessions[0], voice.speaker.is_some())?;
        let (free, slots) = (Mutex::new(sessions), Arc::new(Semaphore::new(parallel)));
        Ok(Self { inner: Arc::new(Inner { voice, model: options.voice, free, slots, metrics }) })
    }

    /// Where a voice may lie: `wanted` as a path or a name in `dir`; if it is empty, all voices in `dir`.
    pub fn candidates(wanted: &str, dir: &Path) -> Vec<PathBuf> {
        if !wanted.is_empty() {
            let names = [wanted.to_owned(), format!("{wanted}.onnx")];
            let places = names.iter().flat_map(|name| [PathBuf::from(name), dir.join(name)]);
            return places.filter(|path| path.is_file()).take(1).collect();
        }
        let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "onnx") && with_suffix(path, ".json").is_file())
            .collect();
        found.sort();
        found
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn session(model: &Path) -> Result<Session, String> {
    let build = || -> Result<Session, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        // One thread: calls run beside each other, and threads that wait for each other spin.
        Session::builder()
            .map_err(|e| text(&e))?
            .with_intra_threads(1)
            .map_err(|e| text(&e))?
            .with_inter_threads(1)
            .map_err(|e| text(&e))?
            .commit_from_file(model)
            .map_err(|e| text(&e))
    };
    build().map_err(|error| format!("the voice `{}` cannot be loaded: {error}", model.display()))
}

fn check_inputs(session: &Session, speakers: bool) -> Result<(), String> {
    let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
    let needed = ["input", "input_lengths", "scales"].into_iter().chain(speakers.then_some("sid"));
    for name in needed {
        if !names.contains(&name) {
            return Err(format!("not a Piper voice: its network has no input `{name}`"));
        }
    }
    Ok(())
}

impl TtsProvider for Piper {
    fn name(&self) -> &'static str {
        NAME
    }

    fn speak(&self, text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let (inner, sentences) = (self.inner.clone(), sentences(text));
        tokio::spawn(async move {
            for sentence in sentences {
                let made = tokio::select! {
                    // An inference that runs comes to its end, but nothing after it begins.
                    () = chunks.closed() => return,
                    made = inner.clone().speak(&sentence) => made,
                };
                let failed = made.is_err();
                if chunks.send(made).await.is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

impl Inner {
    async fn speak(self: Arc<Self>, sentence: &Sentence) -> Result<PcmChunk, ProviderError> {
        let phonemes = match &self.voice.espeak_voice {
            Some(voice) => sentence.phonemes(&phonemise(voice, &sentence.for_espeak()).await?),
            None => sentence.letters(),
        };
        let ids = self.voice.ids(&phonemes);
        let (inner, slots) = (self.clone(), self.slots.clone());
        let slot = slots.acquire_owned().await;
        let run = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            inner.infer(ids)
        });
        let samples = run.await.map_err(|_| error(ProviderErrorKind::Malformed, "synthesis panicked"))??;
        let sample_rate = self.voice.sample_rate;
        let seconds = samples.len() as f64 / f64::from(sample_rate.max(1));
        self.metrics.tts_audio_seconds.with_label_values(&[NAME]).inc_by(seconds);
        Ok(PcmChunk { sample_rate, samples })
    }

    /// Blocks for a fraction of the sentence's length.
    fn infer(&self, ids: Vec<i64>) -> Result<Vec<i16>, ProviderError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One is missing only after a panic in an inference.
        let mut session = match free {
            Some(session) => session,
            None => session(&self.model).map_err(|message| error(ProviderErrorKind::Unavailable, message))?,
        };
        let samples = self.run(&mut session, ids).map_err(|e| error(ProviderErrorKind::Malformed, e.to_string()));
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        samples
    }

    fn run(&self, session: &mut Session, ids: Vec<i64>) -> ort::Result<Vec<i16>> {
        let count = ids.len();
        let mut inputs = ort::inputs![
            "input" => Tensor::from_array(([1, count], ids))?,
            "input_lengths" => Tensor::from_array(([1], vec![count as i64]))?,
            "scales" => Tensor::from_array(([3], self.voice.scales.to_vec()))?,
        ];
        if let Some(speaker) = self.voice.speaker {
            inputs.push(("sid".into(), Tensor::from_array(([1], vec![speaker]))?.into()));
        }
        let outputs = session.run(inputs)?;
        let (_, samples) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(samples.iter().map(|&s| (s * 32767.0).clamp(-32768.0, 32767.0) as i16).collect())
    }
}

async fn phonemise(voice: &str, text: &str) -> Result<String, ProviderError> {
    let work = async {
        let mut child = espeak::start(&["-q", "--ipa", "-v", voice], text, Stdio::piped()).await?;
        let mut output = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            let read = stdout.read_to_string(&mut output).await;
            read.map_err(|e| error(ProviderErrorKind::Malformed, format!("phonemes cannot be read: {e}")))?;
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(output),
            _ => Err(error(ProviderErrorKind::Unavailable, "espeak-ng gave no phonemes")),
        }
    };
    let result = tokio::time::timeout(PHONEMES_TIMEOUT, work).await;
    result.map_err(|_| error(ProviderErrorKind::Timeout, "espeak-ng gave no phonemes in time"))?
}

fn error(kind: ProviderErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError { provider: NAME, kind, message: message.into() }
}

#[cfg(test)]
mod tests;
