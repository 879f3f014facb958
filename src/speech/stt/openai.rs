//! Any service with OpenAI's transcription endpoint: `POST {url}/audio/transcriptions`, a WAVE file in a form.
//!
//! Gives no partials: the endpoint takes whole files. Audio is collected until the stretch ends, then sent once, and
//! once more after an error that may pass.

use std::{sync::Arc, time::Duration};

use reqwest::multipart::{Form, Part};
use tokio::sync::{Semaphore, mpsc};

use super::{SttCapabilities, SttEvent, SttProvider, SttStream, Transcript};
use crate::{
    auth::Secret,
    media::SPEECH_HZ,
    model::Personal,
    speech::{ProviderError, ProviderErrorKind, wav},
};

const NAME: &str = "openai";
/// Chunks of audio under way from the listener to the collector: 5 s of packets, plus the run-up.
const AUDIO_MAX: usize = 256;
/// Samples collected at most: a minute, twice what a listener ever sends. More is cut off.
const SAMPLES_MAX: usize = SPEECH_HZ as usize * 60;
/// Time for the TCP and TLS handshakes, s: a service that does not answer in this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before the second try, ms.
const RETRY_AFTER: Duration = Duration::from_millis(150);
/// Bytes of an answer that are read: a minute of speech is under 2 KiB of text.
const ANSWER_MAX: usize = 256 * 1024;

pub struct OpenAiStt {
    request: Arc<Request>,
}

struct Request {
    client: reqwest::Client,
    url: String,
    model: String,
    api_key: Option<Secret>,
    /// Requests under way at once; others wait.
    slots: Semaphore,
}

pub struct OpenAiSttOptions {
    /// Base address, as `http://localhost:8000/v1`.
    pub url: String,
    pub model: String,
    pub api_key: Option<Secret>,
    /// For one try, from request to answer.
    pub timeout: Duration,
    pub parallel: usize,
}

impl OpenAiStt {
    /// An error says what is wrong with the options.
    pub fn new(options: OpenAiSttOptions) -> Result<Self, String> {
        let url = format!("{}/audio/transcriptions", options.url.trim_end_matches('/'));
        match reqwest::Url::parse(&url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {}
            Ok(_) => return Err(format!("`{}` must begin with http:// or https://", options.url)),
            Err(error) => return Err(format!("`{}` is not an address: {error}", options.url)),
        }
        let client = reqwest::Client::builder()
            .timeout(options.timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| format!("the HTTP client cannot be set up: {error}"))?;
        let request = Request {
            client,
            url,
            model: options.model,
            api_key: options.api_key.filter(|key| !key.is_empty()),
            slots: Semaphore::new(options.parallel.max(1)),
        };
        Ok(Self { request: Arc::new(request) })
    }
}

impl SttProvider for OpenAiStt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> SttCapabilities {
        SttCapabilities { remote: true }
    }

    fn open(&self, language: &str) -> SttStream {
        let (audio, mut chunks) = mpsc::channel::<Box<[i16]>>(AUDIO_MAX);
        // One event ever: the transcript or the failure.
        let (events, receiver) = mpsc::channel(1);
        let request = self.request.clone();
        // The endpoint wants ISO 639-1: `en` of `en-GB`.
        let language = language.split('-').next().unwrap_or_default().to_ascii_lowercase();
        tokio::spawn(async move {
            let work = async {
                let mut samples = Vec::new();
                while let Some(chunk) = chunks.recv().await {
                    let room = SAMPLES_MAX - samples.len();
                    samples.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                request.transcribe(samples, &language).await
            };
            let result = tokio::select! {
                () = events.closed() => return,
                result = work => result,
            };
            let event = match result {
                Ok(text) => SttEvent::Final(Transcript { text }),
                Err(error) => SttEvent::Failed(error),
            };
            let _ = events.send(event).await;
        });
        SttStream { audio: Some(audio), events: receiver }
    }
}

impl Request {
    async fn transcribe(&self, samples: Vec<i16>, language: &str) -> Result<Personal, ProviderError> {
        let _slot = self.slots.acquire().await;
        let file = bytes::Bytes::from(wav::write(&samples, SPEECH_HZ));
        match self.attempt(file.clone(), language).await {
            Err(error) if error.kind.retryable() => {
                tokio::time::sleep(RETRY_AFTER).await;
                self.attempt(file, language).await
            }
            result => result,
        }
    }

    async fn attempt(&self, file: bytes::Bytes, language: &str) -> Result<Personal, ProviderError> {
        let length = file.len() as u64;
        let file = Part::stream_with_length(file, length)
            .file_name("speech.wav")
            .mime_str("audio/wav")
            .map_err(|_| error(ProviderErrorKind::Malformed, "the upload cannot be built"))?;
        let mut form = Form::new().part("file", file).text("response_format", "json");
        if !self.model.is_empty() {
            form = form.text("model", self.model.clone());
        }
        if !language.is_empty() {
            form = form.text("language", language.to_owned());
        }
        let mut request = self.client.post(&self.url).multipart(form);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        let mut response = request.send().await.map_err(transport_error)?;
        let status = response.status();
        if !status.is_success() {
            return Err(status_error(status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(error(ProviderErrorKind::Malformed, "the answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| error(ProviderErrorKind::Malformed, "the answer is not JSON with a `text`"))?;
        Ok(Personal(answer.text.trim().to_owned()))
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    text: String,
}

fn error(kind: ProviderErrorKind, message: impl Into<String>) -> ProviderError {
    ProviderError { provider: NAME, kind, message: message.into() }
}

/// The address may hold a key: it stays out of the message.
fn transport_error(e: reqwest::Error) -> ProviderError {
    let kind = if e.is_timeout() { ProviderErrorKind::Timeout } else { ProviderErrorKind::Unavailable };
    let message = if e.is_timeout() {
        "no answer in time".to_owned()
    } else if e.is_connect() {
        "cannot connect: is the transcription service running at speech.stt.url?".to_owned()
    } else {
        e.without_url().to_string()
    };
    error(kind, message)
}

fn status_error(status: reqwest::StatusCode) -> ProviderError {
    let (kind, hint) = match status.as_u16() {
        401 | 403 => (ProviderErrorKind::Rejected, ": check speech.stt.api_key"),
        404 => (ProviderErrorKind::Rejected, ": check speech.stt.url and speech.stt.model"),
        408 | 504 => (ProviderErrorKind::Timeout, ""),
        429 | 500..=599 => (ProviderErrorKind::Unavailable, ""),
        _ => (ProviderErrorKind::Rejected, ""),
    };
    error(kind, format!("answered {status}{hint}"))
}
