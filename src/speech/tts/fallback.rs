//! A voice with another one behind it: what the first cannot say, the second does.
//!
//! A clause is handed over only before its first audio; once it has begun to sound, an error ends it. After some
//! failures in a row the first voice is left alone for a while, so that not every clause waits for it to fail.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{PcmChunk, TtsProvider};
use crate::{
    speech::{ProviderError, ProviderErrorKind},
    telemetry::Metrics,
};

/// Chunks passed on ahead of the reader.
const CHUNKS_MAX: usize = 4;
/// Time in which the first voice must begin: longer is silence that the interviewee hears.
const FIRST_AUDIO: Duration = Duration::from_secs(2);
/// Failures in a row after which the first voice is left alone, and for how long.
const FAILURES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(30);

type Chunks = mpsc::Receiver<Result<PcmChunk, ProviderError>>;

pub struct Fallback {
    first: Arc<dyn TtsProvider>,
    second: Arc<dyn TtsProvider>,
    metrics: Arc<Metrics>,
    health: Arc<Mutex<Health>>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Fallback {
    pub fn new(first: Arc<dyn TtsProvider>, second: Arc<dyn TtsProvider>, metrics: Arc<Metrics>) -> Self {
        Self { first, second, metrics, health: Arc::default() }
    }
}

impl Health {
    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    fn record(&mut self, ok: bool) {
        self.failures = if ok { 0 } else { self.failures + 1 };
        self.rests_until = (self.failures >= FAILURES_MAX).then(|| Instant::now() + REST);
    }
}

impl TtsProvider for Fallback {
    fn name(&self) -> &'static str {
        self.first.name()
    }

    fn speak(&self, text: &str) -> Chunks {
        let lock = || self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().rests() {
            return self.second.speak(text);
        }
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let mut stream = self.first.speak(text);
        let (second, metrics, health) = (self.second.clone(), self.metrics.clone(), self.health.clone());
        let (name, text) = (self.first.name(), text.to_owned());
        tokio::spawn(async move {
            let first = tokio::select! {
                () = chunks.closed() => return,
                first = timeout(FIRST_AUDIO, stream.recv()) => first,
            };
            let failure = match first {
                Ok(Some(Err(error))) => Some(error),
                Err(_) => {
                    let message = "no audio in time".into();
                    Some(ProviderError { provider: name, kind: ProviderErrorKind::Timeout, message })
                }
                Ok(Some(Ok(chunk))) => {
                    if chunks.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                    None
                }
                // Nothing to say in this text.
                Ok(None) => None,
            };
            health.lock().unwrap_or_else(PoisonError::into_inner).record(failure.is_none());
            if let Some(error) = failure {
                metrics.provider_errors.with_label_values(&["tts", name, error.kind.as_str()]).inc();
                tracing::warn!(provider = name, kind = %error.kind, message = error.message, "another voice speaks this clause");
                stream = second.speak(&text);
            }
            pass_on(stream, &chunks).await;
        });
        receiver
    }
}

async fn pass_on(mut stream: Chunks, chunks: &mpsc::Sender<Result<PcmChunk, ProviderError>>) {
    loop {
        let chunk = tokio::select! {
            // The reader has gone: dropping the stream cancels the voice.
            () = chunks.closed() => return,
            chunk = stream.recv() => chunk,
        };
        let Some(chunk) = chunk else { return };
        if chunks.send(chunk).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says its text's length in samples, or fails, or says nothing.
    struct Stub(&'static str, Behaviour);

    #[derive(Clone, Copy, PartialEq)]
    enum Behaviour {
        Speaks,
        Fails,
        Hangs,
        BreaksOff,
    }

    impl TtsProvider for Stub {
        fn name(&self) -> &'static str {
            self.0
        }

        fn speak(&self, text: &str) -> Chunks {
            let (tx, rx) = mpsc::channel(4);
            let (name, behaviour, samples) = (self.0, self.1, vec![1; text.len()]);
            tokio::spawn(async move {
                let error = ProviderError { provider: name, kind: ProviderErrorKind::Malformed, message: "x".into() };
                match behaviour {
                    Behaviour::Fails => return drop(tx.send(Err(error)).await),
                    Behaviour::Hangs => std::future::pending().await,
                    _ => {}
                }
                let rate = if name == "first" { 22_050 } else { 16_000 };
                let _ = tx.send(Ok(PcmChunk { sample_rate: rate, samples })).await;
                if behaviour == Behaviour::BreaksOff {
                    let _ = tx.send(Err(error)).await;
                }
            });
            rx
        }
    }

    async fn spoken(voice: &Fallback) -> Vec<Result<u32, ProviderErrorKind>> {
        let (mut stream, mut all) = (voice.speak("hello"), Vec::new());
        while let Some(chunk) = stream.recv().await {
            all.push(chunk.map(|c| c.sample_rate).map_err(|e| e.kind));
        }
        all
    }

    fn voice(first: Behaviour) -> (Fallback, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let (first, second) = (Stub("first", first), Stub("second", Behaviour::Speaks));
        (Fallback::new(Arc::new(first), Arc::new(second), metrics.clone()), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_voice_speaks_what_the_first_cannot() {
        for (first, expected, errors) in [
            (Behaviour::Speaks, vec![Ok(22_050)], 0),
            (Behaviour::Fails, vec![Ok(16_000)], 1),
            (Behaviour::BreaksOff, vec![Ok(22_050), Err(ProviderErrorKind::Malformed)], 0),
        ] {
            let (voice, metrics) = voice(first);
            assert_eq!(spoken(&voice).await, expected);
            assert_eq!(metrics.provider_errors.with_label_values(&["tts", "first", "malformed"]).get(), errors);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_voice_that_hangs_is_waited_for_three_times_and_tried_again_later() {
        let (voice, _) = voice(Behaviour::Hangs);
        for waits in [true, true, true, false] {
            let begun = Instant::now();
            assert_eq!(spoken(&voice).await, [Ok(16_000)]);
            assert_eq!(begun.elapsed() >= FIRST_AUDIO, waits);
        }
        tokio::time::sleep(REST).await;
        let begun = Instant::now();
        spoken(&voice).await;
        assert!(begun.elapsed() >= FIRST_AUDIO);
    }
}
