//! The voice that is always there: `espeak-ng` as a process of its own, one per clause.
//!
//! A process and not the library: espeak-ng is under the GPL and keeps global state. Its first audio comes about 10 ms
//! after the start; a clause that is no longer wanted is killed.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::{Semaphore, mpsc},
};

use super::{PcmChunk, TtsProvider};
use crate::{
    speech::{
        ProviderError, ProviderErrorKind,
        wav::{SampleReader, WavHeader},
    },
    telemetry::Metrics,
};

pub const NAME: &str = "espeak-ng";
const PROGRAM: &str = "espeak-ng";
/// What to do where the program is missing.
pub const INSTALL: &str = "install it with `apt-get install espeak-ng`";
/// Chunks made ahead of the reader, each up to [`READ_BYTES`]: 6 s of audio. Full: the process waits in its pipe.
const CHUNKS_MAX: usize = 64;
/// Bytes read at a time: 93 ms of audio.
const READ_BYTES: usize = 4096;
/// Processes at once in this server: each takes some milliseconds per clause, so more would only queue in the kernel.
const PROCESSES_MAX: usize = 16;
/// A clause that gives no byte for this long has failed.
const STALL: Duration = Duration::from_secs(5);

pub struct Espeak {
    voice: String,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Espeak {
    /// Checks that the program and the voice are there. Blocks for some milliseconds. An error says what to do.
    pub fn new(voice: &str, metrics: Arc<Metrics>) -> Result<Self, String> {
        check_voice(voice)?;
        Ok(Self { voice: voice.to_owned(), slots: Arc::new(Semaphore::new(PROCESSES_MAX)), metrics })
    }
}

/// Runs the program once with `voice`.
pub fn check_voice(voice: &str) -> Result<(), String> {
    let output = std::process::Command::new(PROGRAM)
        .args(["-v", voice, "-q", "--ipa", "a"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("espeak-ng is not installed: {INSTALL}"),
            _ => format!("espeak-ng cannot be started: {error}"),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("espeak-ng does not know the voice `{voice}`: `espeak-ng --voices` lists those it knows"))
}

/// Starts the program with `args`, gives it `text` and returns it with its output open. Dropping the child kills it.
pub(super) async fn start(args: &[&str], text: &str, output: Stdio) -> Result<Child, ProviderError> {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .arg("--stdin")
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failure(format!("not installed: {INSTALL}")),
            _ => failure(format!("cannot be started: {error}")),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads all of its input before it speaks, so this does not wait for its output to be read.
        stdin.write_all(plain(text).as_bytes()).await.map_err(|error| failure(format!("takes no text: {error}")))?;
    }
    Ok(child)
}

/// Text as text: `[[` would begin phoneme codes.
fn plain(text: &str) -> String {
    text.replace("[[", "[ [").replace(|c: char| c.is_control() && c != '\n', " ")
}

fn failure(message: String) -> ProviderError {
    ProviderError { provider: NAME, kind: ProviderErrorKind::Unavailable, message }
}

impl TtsProvider for Espeak {
    fn name(&self) -> &'static str {
        NAME
    }

    fn speak(&self, text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let (text, voice) = (text.to_owned(), self.voice.clone());
        let (slots, metrics) = (self.slots.clone(), self.metrics.clone());
        tokio::spawn(async move {
            let work = async {
                let _slot = slots.acquire().await;
                run(&voice, &text, &chunks, &metrics).await
            };
            let result = tokio::select! {
                // Nobody listens: the child is dropped, and so killed.
                () = chunks.closed() => return,
                result = work => result,
            };
            if let Err(error) = result {
                let _ = chunks.send(Err(error)).await;
            }
        });
        receiver
    }
}

async fn run(
    voice: &str,
    text: &str,
    chunks: &mpsc::Sender<Result<PcmChunk, ProviderError>>,
    metrics: &Metrics,
) -> Result<(), ProviderError> {
    let mut child = start(&["-v", voice, "--stdout"], text, Stdio::piped()).await?;
    let Some(mut stdout) = child.stdout.take() else { return Err(failure("has no output".into())) };
    let mut head = Vec::new();
    let mut header: Option<WavHeader> = None;
    let mut reader = SampleReader::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::time::timeout(STALL, stdout.read(&mut buffer)).await;
        let n = read.map_err(|_| timeout())?.map_err(|error| failure(format!("cannot be read: {error}")))?;
        if n == 0 {
            break;
        }
        let mut samples = Vec::with_capacity(n / 2 + 1);
        match header {
            Some(_) => reader.push(&buffer[..n], &mut samples),
            None => {
                head.extend_from_slice(&buffer[..n]);
                header = WavHeader::parse(&head).map_err(malformed)?.filter(|header| header.data_at <= head.len());
                if let Some(header) = header {
                    reader.push(&head[header.data_at..], &mut samples);
                }
            }
        }
        let Some(WavHeader { sample_rate, .. }) = header.filter(|_| !samples.is_empty()) else { continue };
        let seconds = samples.len() as f64 / f64::from(sample_rate);
        metrics.tts_audio_seconds.with_label_values(&[NAME]).inc_by(seconds);
        if chunks.send(Ok(PcmChunk { sample_rate, samples })).await.is_err() {
            return Ok(());
        }
    }
    let status = tokio::time::timeout(STALL, child.wait()).await.map_err(|_| timeout())?;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failure(format!("ended with {status}"))),
        Err(error) => Err(failure(format!("cannot be waited for: {error}"))),
    }
}

fn timeout() -> ProviderError {
    ProviderError { provider: NAME, kind: ProviderErrorKind::Timeout, message: "gives no audio".into() }
}

fn malformed(error: crate::speech::wav::WavError) -> ProviderError {
    ProviderError { provider: NAME, kind: ProviderErrorKind::Malformed, message: error.to_string() }
}
