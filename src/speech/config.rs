//! What is set under `speech`, and which providers follow from it.

use std::{path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::vad::VadConfig;
use super::{
    stt::{
        SttProvider,
        openai::{OpenAiStt, OpenAiSttOptions},
        whisper::{Whisper, WhisperOptions},
    },
    tts::{
        TtsProvider,
        espeak::{self, Espeak},
        fallback::Fallback,
        piper::{Piper, PiperOptions, runtime},
    },
};
use crate::{auth::Secret, telemetry::Metrics};

/// Requests to a transcription service at once, where the file says nothing.
const OPENAI_PARALLEL: usize = 16;
/// Inferences of a Piper voice at once. Each holds the voice in memory (about 100 MB for a medium one), and takes a
/// fraction of real time, so that two serve many interviews.
const PIPER_PARALLEL_MAX: usize = 2;

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
    /// One line for the log and the terminal; where it is not what was asked for, with the reason.
    pub line: String,
}

impl<P> Chosen<P> {
    fn new(provider: P, line: impl Into<String>) -> Self {
        Self { provider, line: line.into() }
    }
}

fn setup(key: &'static str, message: impl Into<String>) -> SetupError {
    SetupError { key, message: message.into() }
}

/// Cores of this machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets up recognition; `None` is voice activity alone. Loads a model where one is used, so it may take a second.
pub fn stt_from_config(config: &Config, models_dir: &Path) -> Result<Chosen<Option<Arc<dyn SttProvider>>>, SetupError> {
    let stt = &config.stt;
    match stt.provider {
        SttChoice::Off => Ok(Chosen::new(None, "recognition: off; voice activity alone")),
        SttChoice::Openai => openai(stt).map(|provider| {
            Chosen::new(Some(Arc::new(provider) as Arc<dyn SttProvider>), "recognition: transcription service")
        }),
        SttChoice::Whisper => {
            let path = Whisper::candidates(&stt.model, models_dir).into_iter().next();
            let Some(path) = path else {
                let (what, dir) = (if stt.model.is_empty() { "ggml-*.bin" } else { &stt.model }, models_dir.display());
                let message = format!("no model `{what}` in `{dir}`: `viva models pull` fetches one");
                return Err(setup("speech.stt.model", message));
            };
            whisper(stt, &path).map_err(|message| {
                setup("speech.stt.model", format!("{message}; `viva models pull` fetches a good one"))
            })
        }
        SttChoice::Auto => Ok(stt_auto(stt, models_dir)),
    }
}

fn openai(stt: &SttConfig) -> Result<OpenAiStt, SetupError> {
    if stt.url.is_empty() {
        let message = "provider `openai` needs the address of a service, as http://localhost:8000/v1";
        return Err(setup("speech.stt.url", message));
    }
    OpenAiStt::new(OpenAiSttOptions {
        url: stt.url.clone(),
        model: stt.model.clone(),
        api_key: Some(stt.api_key.clone()),
        timeout: Duration::from_millis(stt.timeout_ms.max(1)),
        parallel: if stt.threads == 0 { OPENAI_PARALLEL } else { stt.threads },
    })
    .map_err(|message| setup("speech.stt.url", message))
}

fn whisper(stt: &SttConfig, path: &Path) -> Result<Chosen<Option<Arc<dyn SttProvider>>>, String> {
    let threads = if stt.threads == 0 { (cores() / 2).max(1) } else { stt.threads };
    let options =
        WhisperOptions { model: path.to_owned(), language: stt.language.clone(), threads, partials: stt.partials };
    let provider = Whisper::load(&options).map_err(|message| format!("`{}`: {message}", path.display()))?;
    let plural = if threads == 1 { "" } else { "s" };
    let line = format!("recognition: whisper, `{}`, {threads} thread{plural}", file_name(path));
    Ok(Chosen::new(Some(Arc::new(provider)), line))
}

fn stt_auto(stt: &SttConfig, models_dir: &Path) -> Chosen<Option<Arc<dyn SttProvider>>> {
    let mut why = format!("no whisper model in `{}`; `viva models pull` fetches one", models_dir.display());
    for path in Whisper::candidates(&stt.model, models_dir) {
        match whisper(stt, &path) {
            Ok(chosen) => return chosen,
            Err(message) => why = message,
        }
    }
    let line = format!("recognition: off, voice activity alone ({why})");
    Chosen::new(None, line)
}

/// Sets up the voice. May take a second.
pub fn tts_from_config(
    config: &Config,
    models_dir: &Path,
    metrics: &Arc<Metrics>,
) -> Result<Chosen<Arc<dyn TtsProvider>>, SetupError> {
    let tts = &config.tts;
    let espeak = Espeak::new(&tts.espeak_voice, metrics.clone());
    let piper = match tts.provider {
        TtsChoice::Espeak => None,
        TtsChoice::Auto | TtsChoice::Piper => Some(piper(tts, models_dir, metrics)),
    };
    match (piper, espeak) {
        (Some(Ok((voice, name))), Ok(espeak)) => {
            let provider = Arc::new(Fallback::new(Arc::new(voice), Arc::new(espeak), metrics.clone()));
            Ok(Chosen::new(provider, format!("voice: Piper `{name}`, and espeak-ng where it fails")))
        }
        // The voice makes its phonemes from letters, so that it works without espeak-ng.
        (Some(Ok((voice, name))), Err(_)) => Ok(Chosen::new(Arc::new(voice), format!("voice: Piper `{name}`"))),
        (Some(Err(message)), _) if tts.provider == TtsChoice::Piper => Err(setup("speech.tts.voice", message)),
        (Some(Err(message)), Ok(espeak)) => {
            let line = format!("voice: espeak-ng `{}` ({message})", tts.espeak_voice);
            Ok(Chosen::new(Arc::new(espeak), line))
        }
        (None, Ok(espeak)) => Ok(Chosen::new(Arc::new(espeak), format!("voice: espeak-ng `{}`", tts.espeak_voice))),
        (_, Err(message)) => Err(setup("speech.tts.espeak_voice", message)),
    }
}

/// The voice that a persona asks for by name: a Piper voice in the models folder or, where the server speaks with
/// espeak-ng, one of its voices (`en-us+f3`). `None` where the server has no such voice: the persona then speaks with
/// the server's.
pub fn named_voice(
    config: &Config,
    models_dir: &Path,
    metrics: &Arc<Metrics>,
    name: &str,
    server: &dyn TtsProvider,
) -> Option<Arc<dyn TtsProvider>> {
    let mut named = config.clone();
    if config.tts.provider != TtsChoice::Espeak && !Piper::candidates(name, models_dir).is_empty() {
        named.tts.voice = name.into();
    } else if server.name() == espeak::NAME {
        named.tts.provider = TtsChoice::Espeak;
        named.tts.espeak_voice = name.into();
    } else {
        return None;
    }
    tts_from_config(&named, models_dir, metrics).ok().map(|chosen| chosen.provider)
}

fn piper(tts: &TtsConfig, models_dir: &Path, metrics: &Arc<Metrics>) -> Result<(Piper, String), String> {
    let dir = models_dir.display();
    let voice = Piper::candidates(&tts.voice, models_dir).into_iter().next();
    let voice = voice.ok_or_else(|| match tts.voice.as_str() {
        "" => format!("no Piper voice in `{dir}`; `viva models pull` fetches one"),
        wanted => format!("no Piper voice `{wanted}` in `{dir}`; `viva models pull` fetches one"),
    })?;
    let mut why = format!("no ONNX Runtime: {}", runtime::INSTALL);
    for library in runtime::candidates(&tts.onnxruntime, models_dir) {
        match runtime::load(&library) {
            Ok(_) => {
                let name = file_name(&voice);
                let options = PiperOptions {
                    voice,
                    speaker: tts.speaker.clone(),
                    runtime: library,
                    parallel: cores().min(PIPER_PARALLEL_MAX),
                };
                return Piper::load(options, metrics.clone()).map(|piper| (piper, name));
            }
            Err(message) => why = message,
        }
    }
    Err(why)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Config {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn an_empty_folder_gives_voice_activity_and_espeak_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let stt = stt_from_config(&Config::default(), dir.path()).unwrap();
        assert!(stt.provider.is_none() && stt.line.contains("viva models pull"), "{}", stt.line);
        let tts = tts_from_config(&Config::default(), dir.path(), &metrics).unwrap();
        assert_eq!(tts.provider.name(), "espeak-ng");
        assert!(tts.line.contains("no Piper voice"), "{}", tts.line);
    }

    #[test]
    fn what_was_asked_for_and_is_not_there_is_an_error_that_names_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        for (yaml, key) in [
            ("stt: {provider: whisper}", "speech.stt.model"),
            ("stt: {provider: openai}", "speech.stt.url"),
            ("stt: {provider: openai, url: 'ftp://x'}", "speech.stt.url"),
        ] {
            let error = stt_from_config(&config(yaml), dir.path()).err().expect(yaml);
            assert_eq!(error.key, key, "{error}");
        }
        for (yaml, key) in [
            ("tts: {provider: piper}", "speech.tts.voice"),
            ("tts: {provider: espeak, espeak_voice: zz-none}", "speech.tts.espeak_voice"),
        ] {
            let error = tts_from_config(&config(yaml), dir.path(), &metrics).err().expect(yaml);
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn a_persona_speaks_with_the_voice_it_names_where_the_server_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let server = tts_from_config(&Config::default(), dir.path(), &metrics).unwrap().provider;
        let voice = |name| named_voice(&Config::default(), dir.path(), &metrics, name, &*server);
        assert!(voice("en-us+f3").is_some());
        assert!(voice("zz-none").is_none());
    }

    #[test]
    fn a_damaged_model_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ggml-base.en.bin"), b"lmgg but then nothing").unwrap();
        let stt = stt_from_config(&Config::default(), dir.path()).unwrap();
        assert!(stt.provider.is_none() && stt.line.contains("ggml-base.en.bin"), "{}", stt.line);
        let error = stt_from_config(&config("stt: {provider: whisper}"), dir.path()).err().unwrap();
        assert!(error.message.contains("pull"), "{error}");
    }

    #[test]
    fn keys_are_not_shown() {
        let config = config("stt: {provider: openai, url: 'http://localhost/v1', api_key: hush}");
        assert!(!format!("{config:?}").contains("hush"));
        assert!(!serde_yaml_ng::to_string(&config).unwrap().contains("hush"));
        assert!(stt_from_config(&config, Path::new("/none")).unwrap().provider.is_some());
    }
}
