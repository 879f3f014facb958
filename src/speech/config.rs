//! What is set under `speech`, and which providers follow from it.

use std::{path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::vad::VadConfig;
use super::{
    stt::{
        SttProvider,
        openai::{OpenAiStt, OpenAiSttOptions},
    },
    tts::{TtsProvider, espeak::Espeak},
};
use crate::{auth::Secret, telemetry::Metrics};

/// The ear and the voice of the interviewer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When somebody speaks.
    pub vad: VadConfig,
    /// Speech to text.
    pub stt: SttConfig,
    /// Text to speech.
    pub tts: TtsConfig,
}

/// Speech to text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SttConfig {
    /// `auto` (whisper if a model is in the models folder, else off), `whisper`, `openai` (any service with OpenAI's
    /// transcription endpoint) or `off` (voice activity alone).
    pub provider: SttChoice,
    /// For `whisper`: the model's file, a name in the models folder or a path; empty takes the best that is there. For
    /// `openai`: the name of the service's model.
    pub model: String,
    /// Language that is spoken, as BCP 47: `en`, `en-GB`.
    pub language: String,
    /// For `openai`: base address of the service, as `http://localhost:8000/v1`.
    pub url: String,
    /// For `openai`: key of the service, if it wants one. Better set by the environment than in a file.
    pub api_key: Secret,
    /// For `openai`: time in ms that one try may take; there are two.
    pub timeout_ms: u64,
    /// Stretches of speech recognised at once. Each takes a whole core with `whisper`. 0: half of the cores, for
    /// `openai` 16.
    pub threads: usize,
    /// For `whisper`: also recognise while somebody still speaks, when a thread is free. Captions come sooner and cost
    /// a multiple of the CPU time.
    pub partials: bool,
}

impl Default for SttConfig {
    fn default() -> Self {
        Self {
            provider: SttChoice::Auto,
            model: String::new(),
            language: "en".into(),
            url: String::new(),
            api_key: Secret::default(),
            timeout_ms: 8000,
            threads: 0,
            partials: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SttChoice {
    #[default]
    Auto,
    Whisper,
    Openai,
    Off,
}

/// Text to speech.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TtsConfig {
    /// `auto` (a Piper voice if one is in the models folder and ONNX Runtime is there, else espeak-ng), `piper` or
    /// `espeak`.
    pub provider: TtsChoice,
    /// For `piper`: the voice's `.onnx` file, a name in the models folder or a path; empty takes the first that is
    /// there. Its `.onnx.json` lies beside it.
    pub voice: String,
    /// Speaker of a voice that has several, by name or number; empty takes the first.
    pub speaker: String,
    /// Path of `libonnxruntime.so`, 1.24 or later. Empty: looked for in the models folder, in `ORT_DYLIB_PATH` and in
    /// the project's Python environment `.venv`.
    pub onnxruntime: String,
    /// Voice of espeak-ng, as `espeak-ng --voices` lists them.
    pub espeak_voice: String,
}

impl Default for TtsConfig {
    fn default() -> Self {
        Self {
            provider: TtsChoice::Auto,
            voice: String::new(),
            speaker: String::new(),
            onnxruntime: String::new(),
            espeak_voice: "en-us".into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtsChoice {
    #[default]
    Auto,
    Piper,
    Espeak,
}

/// A provider cannot be set up; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SetupError {
    /// The configuration key that it is about.
    pub key: &'static str,
    pub message: String,
}

/// What was chosen.
pub struct Chosen<P> {
    pub provider: P,
    /// One line for the log and the terminal.
    pub line: String,
    /// Whether it is what was asked for, or a fallback that a person may want to know of.
    pub fallback: bool,
}

impl<P> Chosen<P> {
    fn new(provider: P, line: impl Into<String>) -> Self {
        Self { provider, line: line.into(), fallback: false }
    }
}

fn setup(key: &'static str, message: impl Into<String>) -> SetupError {
    SetupError { key, message: message.into() }
}

/// Sets up recognition; `None` is voice activity alone. Loads a model where one is used, so it may take a second;
/// call it in a tokio runtime.
pub fn stt_from_config(
    config: &Config,
    models_dir: &Path,
    _metrics: &Arc<Metrics>,
) -> Result<Chosen<Option<Arc<dyn SttProvider>>>, SetupError> {
    let stt = &config.stt;
    let _ = models_dir;
    match stt.provider {
        SttChoice::Off => Ok(Chosen::new(None, "recognition: off")),
        SttChoice::Openai => {
            if stt.url.is_empty() {
                return Err(setup(
                    "speech.stt.url",
                    "provider `openai` needs the address of a service, as http://localhost:8000/v1",
                ));
            }
            let options = OpenAiSttOptions {
                url: stt.url.clone(),
                model: stt.model.clone(),
                api_key: Some(stt.api_key.clone()),
                timeout: Duration::from_millis(stt.timeout_ms.max(1)),
                parallel: if stt.threads == 0 { 16 } else { stt.threads },
            };
            let provider = OpenAiStt::new(options).map_err(|message| setup("speech.stt.url", message))?;
            Ok(Chosen::new(Some(Arc::new(provider)), "recognition: OpenAI-compatible transcription service"))
        }
        SttChoice::Whisper => Err(setup("speech.stt.provider", "not built in")),
        SttChoice::Auto => Ok(Chosen::new(None, "recognition: off")),
    }
}

/// Sets up the voice. May take a second; call it in a tokio runtime.
pub fn tts_from_config(
    config: &Config,
    _models_dir: &Path,
    metrics: &Arc<Metrics>,
) -> Result<Chosen<Arc<dyn TtsProvider>>, SetupError> {
    let tts = &config.tts;
    let espeak = Espeak::new(&tts.espeak_voice, metrics.clone()).map_err(|m| setup("speech.tts", m))?;
    Ok(Chosen::new(Arc::new(espeak), format!("voice: espeak-ng `{}`", tts.espeak_voice)))
}
