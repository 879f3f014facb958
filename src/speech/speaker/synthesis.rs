//! From clauses to Opus frames, as fast as the voice makes them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{Command, CommandKind, Item, ItemKind};
use crate::{
    media::PACKET_SAMPLES,
    model::Personal,
    speech::{
        ProviderErrorKind,
        codec::{CodecError, Encoder, Resampler},
        tts::TtsProvider,
    },
    telemetry::Metrics,
};

/// A frame is audible if a sample is above this (-40 dBFS): the same measure as a listener with a wave editor takes.
const AUDIBLE: i16 = 328;
/// Silence left before the first sound of a clause, in samples: 5 ms. Voices begin with up to 100 ms of nothing,
/// which the interviewee would wait for.
const LEAD: usize = PACKET_SAMPLES / 4;
/// Silence left after the last sound of a clause: 160 ms is the breath between two clauses; more drags.
const TRAIL: usize = PACKET_SAMPLES * 8;
/// Longest wait for the next audio of a clause. Above what voices allow themselves, so that they fail by their own
/// reasons; a voice that hangs would hold up the whole interview.
const STALL: Duration = Duration::from_secs(10);
/// Frames of silence after the last clause: more than the 6.5 ms that the encoder holds back.
const TAIL_FRAMES: usize = 1;

pub struct Synthesiser {
    tts: Arc<dyn TtsProvider>,
    metrics: Arc<Metrics>,
    epoch: watch::Receiver<u64>,
    resampler: Option<(u32, Resampler)>,
    encoder: Option<Encoder>,
    /// The utterance that is being synthesised, and whether it has given any audio yet.
    current: Option<(u64, u64)>,
    sounded: bool,
}

/// The player is gone.
struct Gone;

impl Synthesiser {
    pub fn new(tts: Arc<dyn TtsProvider>, metrics: Arc<Metrics>, epoch: watch::Receiver<u64>) -> Self {
        Self { tts, metrics, epoch, resampler: None, encoder: None, current: None, sounded: false }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, items: mpsc::Sender<Item>) {
        while let Some(command) = commands.recv().await {
            if self.handle(command, &items).await.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, command: Command, items: &mpsc::Sender<Item>) -> Result<(), Gone> {
        let Command { epoch, utterance, kind } = command;
        let out = Out { epoch, utterance, items };
        if self.current != Some((epoch, utterance)) {
            self.current = Some((epoch, utterance));
            self.sounded = false;
            if self.encoder.as_mut().is_some_and(|encoder| encoder.reset().is_err()) {
                self.encoder = None;
            }
        }
        match kind {
            CommandKind::Clause(text) => {
                out.send(ItemKind::Clause(Personal(text.clone()))).await?;
                let complete = self.clause(&text, &out).await?;
                out.send(ItemKind::ClauseEnd { complete }).await
            }
            CommandKind::End => {
                for _ in 0..TAIL_FRAMES {
                    if let (true, Ok(payload)) = (self.sounded, self.encode(&[0; PACKET_SAMPLES])) {
                        out.send(ItemKind::Tail(payload)).await?;
                    }
                }
                out.send(ItemKind::End).await
            }
        }
    }

    /// Speaks one clause. False: it failed or was interrupted.
    async fn clause(&mut self, text: &str, out: &Out<'_>) -> Result<bool, Gone> {
        // Mark the present number as seen, then compare: an interruption after this line wakes `changed`.
        if *self.epoch.borrow_and_update() != out.epoch || text.trim().is_empty() {
            return Ok(text.trim().is_empty());
        }
        let mut stream = self.tts.speak(text);
        let mut frames = Frames::default();
        loop {
            let chunk = tokio::select! {
                biased;
                // Dropping the stream cancels the voice. An error: the speaker is gone.
                changed = self.epoch.changed() => return if changed.is_ok() { Ok(false) } else { Err(Gone) },
                chunk = timeout(STALL, stream.recv()) => chunk,
            };
            let Ok(chunk) = chunk else {
                self.failed(self.tts.name(), ProviderErrorKind::Timeout.as_str(), "gives no audio");
                return Ok(false);
            };
            let last = chunk.is_none();
            let pcm = match chunk.transpose() {
                Ok(pcm) => pcm,
                Err(error) => {
                    self.failed(error.provider, error.kind.as_str(), &error.message);
                    return Ok(false);
                }
            };
            if pcm.as_ref().is_some_and(|pcm| !pcm.samples.is_empty()) && !self.sounded {
                self.sounded = true;
                out.send(ItemKind::FirstAudio(tokio::time::Instant::now().into_std())).await?;
            }
            let made = match pcm {
                Some(pcm) => self.resample(pcm.sample_rate, &pcm.samples, &mut frames.samples),
                None => self.resampler.as_mut().map_or(Ok(()), |(_, r)| r.finish(&mut frames.samples)),
            };
            if let Err(error) = made {
                self.failed(self.tts.name(), "malformed", &error.to_string());
                return Ok(false);
            }
            while let Some((frame, audible)) = frames.next(last) {
                match self.encode(&frame) {
                    Ok(payload) => {
                        out.send(ItemKind::Frame { payload, audible }).await?;
                        // The player was woken on this thread: without a pause the first frame would wait there until
                        // the whole chunk is encoded, with a long chunk for tens of milliseconds.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => {
                        self.failed(self.tts.name(), "malformed", &error.to_string());
                        return Ok(false);
                    }
                }
            }
            if last {
                return Ok(true);
            }
        }
    }

    fn resample(&mut self, rate: u32, samples: &[i16], out: &mut Vec<i16>) -> Result<(), CodecError> {
        if self.resampler.as_ref().is_none_or(|(r, _)| *r != rate) {
            self.resampler = Some((rate, Resampler::new(rate)?));
        }
        match &mut self.resampler {
            Some((_, resampler)) => resampler.push(samples, out),
            None => Ok(()),
        }
    }

    fn encode(&mut self, frame: &[i16]) -> Result<Box<[u8]>, CodecError> {
        if self.encoder.is_none() {
            self.encoder = Some(Encoder::new()?);
        }
        match &mut self.encoder {
            Some(encoder) => encoder.encode(frame),
            None => Ok(Box::default()),
        }
    }

    fn failed(&mut self, provider: &str, kind: &str, message: &str) {
        self.metrics.provider_errors.with_label_values(&["tts", provider, kind]).inc();
        tracing::warn!(provider, kind, message, "a clause could not be spoken");
        // What is left of the clause in the filter must not sound in the next one.
        self.resampler = None;
    }
}

struct Out<'a> {
    epoch: u64,
    utterance: u64,
    items: &'a mpsc::Sender<Item>,
}

impl Out<'_> {
    async fn send(&self, kind: ItemKind) -> Result<(), Gone> {
        let item = Item { epoch: self.epoch, utterance: self.utterance, kind };
        self.items.send(item).await.map_err(|_| Gone)
    }
}

/// Cuts a clause into frames, without the silence at its ends.
#[derive(Default)]
struct Frames {
    samples: Vec<i16>,
    started: bool,
    /// Silence since the last sound that was given out, in samples.
    silent: usize,
}

impl Frames {
    /// The next whole frame, and whether it is audible. `last`: no more samples will come.
    fn next(&mut self, last: bool) -> Option<(Vec<i16>, bool)> {
        if !self.started {
            let sound = self.samples.iter().position(|&s| is_audible(s));
            let keep_from = sound.unwrap_or(self.samples.len()).saturating_sub(LEAD);
            self.samples.drain(..keep_from);
            self.started = sound.is_some();
            if !self.started {
                return None;
            }
        }
        if last && !self.samples.iter().any(|&s| is_audible(s)) {
            let room = TRAIL.saturating_sub(self.silent) / PACKET_SAMPLES * PACKET_SAMPLES;
            self.samples.truncate(room);
        }
        if self.samples.is_empty() || self.samples.len() < PACKET_SAMPLES && !last {
            return None;
        }
        let mut frame: Vec<i16> = self.samples.drain(..self.samples.len().min(PACKET_SAMPLES)).collect();
        frame.resize(PACKET_SAMPLES, 0);
        let audible = frame.iter().any(|&s| is_audible(s));
        self.silent = if audible { 0 } else { self.silent + PACKET_SAMPLES };
        Some((frame, audible))
    }
}

fn is_audible(sample: i16) -> bool {
    sample.unsigned_abs() >= AUDIBLE.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_the_ends_of_a_clause_is_cut() {
        let mut frames = Frames { samples: vec![0; 9_600], ..Frames::default() };
        assert!(frames.next(false).is_none());
        frames.samples.extend([5000; 1920]);
        frames.samples.extend([0; 48_000]);
        let mut all = Vec::new();
        while let Some(frame) = frames.next(true) {
            all.push(frame.1);
        }
        let sound = all.iter().filter(|&&a| a).count();
        assert_eq!(sound, 3, "{LEAD} samples of lead and 1920 of sound");
        assert!(all[0] && all.len() <= 3 + TRAIL / PACKET_SAMPLES + 1, "{}", all.len());
    }
}
