//! One person's ear: packets of a tap in, what was said out.
//!
//! Not the one who decides when a turn is over: that is the turn detector's. Recognition runs elsewhere (a service, a
//! pool of threads); what runs here costs about 30 µs per packet.
//!
//! Invariant: every `Started` is followed by exactly one `Ended` and then exactly one `Final` of the same segment, also
//! if the tap closes in the middle of a word; `Closed` is last.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    ProviderError, ProviderErrorKind,
    ear::{Ear, EarStats},
    stt::{SttEvent, SttProvider, SttStream, Transcript},
    vad::{Vad, VadConfig, VadEvent},
};
use crate::{
    media::{AudioPacket, SPEECH_HZ, TapReader},
    model::Personal,
    telemetry::Metrics,
};

/// Events that wait for the reader: a minute of lively talk. Full: listening waits, and the tap drops and counts.
const EVENTS_MAX: usize = 256;
/// Audio kept from before the onset, in samples: 300 ms of run-up for the recogniser and 200 ms in which the onset
/// was not yet sure.
const PRE_ROLL: usize = SPEECH_HZ as usize / 2;
/// After this a stretch is cut at the next quiet moment, and at `SEGMENT_HARD_MAX` anywhere: recognisers take 30 s.
const SEGMENT_SOFT_MAX: u64 = 24 * SPEECH_HZ as u64;
const SEGMENT_HARD_MAX: u64 = 28 * SPEECH_HZ as u64;
/// Segments whose words are awaited at once. Above it recognition is so far behind that a new stretch is not sent at
/// all: its `Final` is empty and failed.
const PENDING_MAX: usize = 16;
/// A provider that says nothing for this long after the end of speech is given up; its own timeouts are shorter.
const FINAL_TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Probability above which a frame is voice.
    pub vad_threshold: f32,
    pub min_speech_ms: u32,
    /// Silence that closes a stretch of speech and asks for its final transcript.
    pub min_silence_ms: u32,
    /// BCP 47.
    pub language: String,
}

impl From<&super::Config> for ListenerConfig {
    fn from(config: &super::Config) -> Self {
        Self {
            vad_threshold: config.vad.threshold,
            min_speech_ms: config.vad.min_speech_ms,
            min_silence_ms: config.vad.min_silence_ms,
            language: config.stt.language.clone(),
        }
    }
}

/// What one person's voice did. Times are on the clock of packet arrival: `Instant` of the packet that held it.
#[derive(Clone, Debug)]
pub enum SpeechEvent {
    /// Voice began (after `min_speech_ms` of it).
    Started {
        segment: u64,
        at: Instant,
    },
    Partial {
        segment: u64,
        text: Personal,
    },
    /// Voice ended; `last_speech` is when the last audible speech arrived, refined by energy, not when the silence had
    /// lasted long enough.
    Ended {
        segment: u64,
        last_speech: Instant,
    },
    /// The stretch's final transcript. Empty text: nothing was understood. Comes once per segment, also after a failure
    /// (then empty and `failed`) and when recognition is off (`failed` false).
    Final {
        segment: u64,
        started: Instant,
        last_speech: Instant,
        transcript: Transcript,
        failed: bool,
    },
    /// The tap is closed and everything it held is recognised: the last event.
    Closed,
}

/// Spawns the listener's task. `stt` `None`: voice activity alone. Ends after the tap does, or when the receiver is
/// dropped.
pub fn spawn(
    reader: TapReader,
    stt: Option<Arc<dyn SttProvider>>,
    config: ListenerConfig,
    metrics: Arc<Metrics>,
) -> mpsc::Receiver<SpeechEvent> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        match Ear::new() {
            Ok(ear) => Listener::new(ear, stt, config, metrics, events).run(reader).await,
            Err(error) => {
                tracing::error!(%error, "a track cannot be listened to");
                let _ = events.send(SpeechEvent::Closed).await;
            }
        }
    });
    receiver
}

/// The reader of the events is gone.
struct Gone;

struct Listener {
    ear: Ear,
    vad: Vad,
    stt: Option<Arc<dyn SttProvider>>,
    language: String,
    metrics: Arc<Metrics>,
    events: mpsc::Sender<SpeechEvent>,
    pre_roll: Vec<i16>,
    segments: u64,
    open: Option<Segment>,
    pending: JoinSet<()>,
    /// What of the ear's drops was counted already.
    counted: EarStats,
}

/// The open stretch of speech.
struct Segment {
    id: u64,
    started: Instant,
    samples: u64,
    /// `None` where recognition is off or has failed.
    audio: Option<mpsc::Sender<Box<[i16]>>>,
    /// Tells the task that awaits the words that speech is over.
    ended: Option<oneshot::Sender<Instant>>,
    /// It should have been recognised, but is not being.
    failed: bool,
}

impl Listener {
    fn new(
        ear: Ear,
        stt: Option<Arc<dyn SttProvider>>,
        config: ListenerConfig,
        metrics: Arc<Metrics>,
        events: mpsc::Sender<SpeechEvent>,
    ) -> Self {
        let vad = Vad::new(&VadConfig {
            threshold: config.vad_threshold,
            min_speech_ms: config.min_speech_ms,
            min_silence_ms: config.min_silence_ms,
        });
        Self {
            ear,
            vad,
            stt,
            language: config.language,
            metrics,
            events,
            pre_roll: Vec::with_capacity(PRE_ROLL * 2),
            segments: 0,
            open: None,
            pending: JoinSet::new(),
            counted: EarStats::default(),
        }
    }

    async fn run(mut self, mut reader: TapReader) {
        let events = self.events.clone();
        loop {
            let due = self.ear.poll_timeout(self.vad.speaking()).map(tokio::time::Instant::from_std);
            let done = tokio::select! {
                biased;
                () = events.closed() => return,
                packet = reader.read() => match packet {
                    Some(packet) => self.handle_packet(packet).await,
                    None => break,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    self.handle_timeout().await
                }
                Some(_) = self.pending.join_next(), if !self.pending.is_empty() => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
        let _ = self.close().await;
    }

    async fn handle_packet(&mut self, packet: AudioPacket) -> Result<(), Gone> {
        let mut heard = Vec::with_capacity(1);
        self.ear.handle_packet(packet, &mut |samples, at| heard.push((samples.to_vec(), at)));
        self.hear(heard).await
    }

    async fn handle_timeout(&mut self) -> Result<(), Gone> {
        let now = tokio::time::Instant::now().into_std();
        let mut heard = Vec::new();
        self.ear.handle_timeout(now, self.vad.speaking(), &mut |samples, at| heard.push((samples.to_vec(), at)));
        self.hear(heard).await
    }

    /// The tap is closed: what it held is heard out, an open stretch is ended and all words are awaited.
    async fn close(mut self) -> Result<(), Gone> {
        let mut heard = Vec::new();
        self.ear.drain(&mut |samples, at| heard.push((samples.to_vec(), at)));
        self.hear(heard).await?;
        self.end_open().await?;
        while self.pending.join_next().await.is_some() {}
        self.send(SpeechEvent::Closed).await
    }

    async fn hear(&mut self, heard: Vec<(Vec<i16>, Instant)>) -> Result<(), Gone> {
        self.count_drops();
        let mut vad_events = Vec::new();
        for (samples, at) in heard {
            self.vad.push(&samples, at, &mut vad_events);
            self.keep(samples);
            for event in vad_events.drain(..) {
                match event {
                    VadEvent::Started { at } => self.begin(at).await?,
                    VadEvent::Ended { last_speech } => self.end(last_speech).await?,
                }
            }
            let samples = self.open.as_ref().map_or(0, |s| s.samples);
            if samples > SEGMENT_HARD_MAX || samples > SEGMENT_SOFT_MAX && self.vad.quiet() {
                self.end_open().await?;
            }
        }
        Ok(())
    }

    /// Gives samples to the open stretch, or keeps them for the next one's run-up.
    fn keep(&mut self, samples: Vec<i16>) {
        match &mut self.open {
            Some(segment) => segment.push(samples),
            None => {
                self.pre_roll.extend_from_slice(&samples);
                if self.pre_roll.len() >= PRE_ROLL * 2 {
                    self.pre_roll.drain(..self.pre_roll.len() - PRE_ROLL);
                }
            }
        }
    }

    async fn begin(&mut self, at: Instant) -> Result<(), Gone> {
        let id = self.segments;
        self.segments += 1;
        self.send(SpeechEvent::Started { segment: id, at }).await?;
        let mut segment = Segment { id, started: at, samples: 0, audio: None, ended: None, failed: false };
        match &self.stt {
            Some(stt) if self.pending.len() < PENDING_MAX => {
                let mut stream = stt.open(&self.language);
                let (ended, end) = oneshot::channel();
                segment.audio = stream.audio.take();
                segment.ended = Some(ended);
                let follower = Follower {
                    segment: id,
                    started: at,
                    provider: stt.name(),
                    events: self.events.clone(),
                    metrics: self.metrics.clone(),
                };
                self.pending.spawn(follower.run(stream, end));
            }
            Some(stt) => {
                segment.failed = true;
                let labels = ["stt", stt.name(), ProviderErrorKind::Unavailable.as_str()];
                self.metrics.provider_errors.with_label_values(&labels).inc();
                tracing::warn!(provider = stt.name(), "recognition is too far behind: a stretch of speech is left out");
            }
            None => {}
        }
        let mut run_up = std::mem::take(&mut self.pre_roll);
        let surplus = run_up.len().saturating_sub(PRE_ROLL);
        segment.push(run_up.split_off(surplus));
        self.open = Some(segment);
        Ok(())
    }

    async fn end_open(&mut self) -> Result<(), Gone> {
        match self.vad.end() {
            Some(VadEvent::Ended { last_speech }) => self.end(last_speech).await,
            _ => Ok(()),
        }
    }

    async fn end(&mut self, last_speech: Instant) -> Result<(), Gone> {
        let Some(segment) = self.open.take() else { return Ok(()) };
        self.pre_roll.clear();
        self.send(SpeechEvent::Ended { segment: segment.id, last_speech }).await?;
        if let (Some(ended), Some(stt)) = (segment.ended, &self.stt) {
            let seconds = segment.samples as f64 / f64::from(SPEECH_HZ);
            self.metrics.stt_audio_seconds.with_label_values(&[stt.name()]).inc_by(seconds);
            // The task may have ended only if the reader is gone.
            return ended.send(last_speech).map_err(|_| Gone);
        }
        self.send(SpeechEvent::Final {
            segment: segment.id,
            started: segment.started,
            last_speech,
            transcript: Transcript::default(),
            failed: segment.failed,
        })
        .await
    }

    async fn send(&mut self, event: SpeechEvent) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// What the tap itself dropped is counted by the media worker.
    fn count_drops(&mut self) {
        let stats = self.ear.stats();
        let told = std::mem::replace(&mut self.counted, stats);
        for (reason, more) in [("late", stats.late - told.late), ("malformed", stats.malformed - told.malformed)] {
            if more > 0 {
                self.metrics.tap_packets_dropped.with_label_values(&["speech", reason]).inc_by(more);
            }
        }
    }
}

impl Segment {
    fn push(&mut self, samples: Vec<i16>) {
        self.samples += samples.len() as u64;
        let Some(audio) = &self.audio else { return };
        // A provider takes audio as it comes. One that does not has failed: its stream is closed, and it says so.
        if audio.try_send(samples.into_boxed_slice()).is_err() {
            self.audio = None;
        }
    }
}

/// Awaits the words of one stretch of speech.
struct Follower {
    segment: u64,
    started: Instant,
    provider: &'static str,
    events: mpsc::Sender<SpeechEvent>,
    metrics: Arc<Metrics>,
}

impl Follower {
    async fn run(self, mut stream: SttStream, mut end: oneshot::Receiver<Instant>) {
        let mut outcome: Option<Result<Transcript, ProviderError>> = None;
        let mut partials = false;
        let mut last_speech = None;
        let give_up = tokio::time::sleep(Duration::MAX);
        tokio::pin!(give_up);
        let last_speech = loop {
            if let (Some(at), true) = (last_speech, outcome.is_some()) {
                break at;
            }
            tokio::select! {
                event = stream.events.recv(), if outcome.is_none() => match event {
                    Some(SttEvent::Partial(text)) => {
                        if !std::mem::replace(&mut partials, true) {
                            let took = tokio::time::Instant::now().into_std().saturating_duration_since(self.started);
                            let metric = self.metrics.stt_first_partial.with_label_values(&[self.provider]);
                            metric.observe(took.as_secs_f64());
                        }
                        if self.events.send(SpeechEvent::Partial { segment: self.segment, text }).await.is_err() {
                            return;
                        }
                    }
                    Some(SttEvent::Final(transcript)) => outcome = Some(Ok(transcript)),
                    Some(SttEvent::Failed(error)) => outcome = Some(Err(error)),
                    None => outcome = Some(Err(self.error(ProviderErrorKind::Unavailable, "ended without a transcript"))),
                },
                at = &mut end, if last_speech.is_none() => match at {
                    Ok(at) => {
                        last_speech = Some(at);
                        give_up.as_mut().reset(tokio::time::Instant::now() + FINAL_TIMEOUT);
                    }
                    // The listener was dropped: nobody waits for the words.
                    Err(_) => return,
                },
                () = &mut give_up, if last_speech.is_some() => {
                    outcome = Some(Err(self.error(ProviderErrorKind::Timeout, "no transcript came")));
                }
            }
        };
        let result = outcome.unwrap_or_else(|| Ok(Transcript::default()));
        let failed = result.is_err();
        let transcript = result.unwrap_or_else(|error| {
            let labels = ["stt", error.provider, error.kind.as_str()];
            self.metrics.provider_errors.with_label_values(&labels).inc();
            tracing::warn!(provider = error.provider, kind = %error.kind, message = error.message, "recognition failed");
            Transcript::default()
        });
        let Follower { segment, started, events, .. } = self;
        let _ = events.send(SpeechEvent::Final { segment, started, last_speech, transcript, failed }).await;
    }

    fn error(&self, kind: ProviderErrorKind, message: &str) -> ProviderError {
        ProviderError { provider: self.provider, kind, message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests;
