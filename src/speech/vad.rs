//! When somebody speaks: a probability per 16 ms from a small network, and the level per 5 ms that says exactly where
//! speech began and ended.
//!
//! The network lags: it still says *voice* 70-200 ms after the last sound. Who measures a response latency cannot live
//! with that, so an end is placed at the last window that was audible while the network said voice. Pure: the clock
//! is the `Instant` that comes with the samples.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::media::SPEECH_HZ;

/// Samples that the network takes at a time: 16 ms.
const FRAME: usize = 256;
/// Samples of one level window: 5 ms, a quarter of a packet.
const WINDOW: usize = 80;
/// The end of a stretch needs the probability to fall below `threshold` minus this: no flutter at the edge.
const HYSTERESIS: f32 = 0.15;
/// Root mean square (full scale 1) below which a window is never audible: -58 dBFS, the hiss of a good microphone.
const AUDIBLE_FLOOR: f32 = 0.0012;
/// A window is audible only if it is not further below the stretch's loudest window than this factor (-34 dB): what is
/// softer is the room's echo.
const AUDIBLE_BELOW_PEAK: f32 = 0.02;
/// ... and if it stands above the background by this factor (9 dB).
const AUDIBLE_ABOVE_NOISE: f32 = 2.8;
/// Windows kept to look back at: 1 s, more than the network ever lags.
const WINDOWS_KEPT: usize = 200;
/// How far before the network's onset the first sound of a word may lie: soft consonants come before it hears voice.
const ONSET_LOOK_BACK: Duration = Duration::from_millis(160);
/// Silence inside that look-back which separates the word from an earlier noise, windows.
const ONSET_GAP_WINDOWS: usize = 10;
/// How fast the background estimate rises, per window: doubles in about 1.5 s of steady noise. It falls at once.
const NOISE_RISE: f32 = 1.0023;
/// ... and in the first 2 s, when nothing is known of the room yet.
const NOISE_RISE_AT_FIRST: f32 = 1.03;
const AT_FIRST_SAMPLES: u64 = SPEECH_HZ as u64 * 2;
/// Audio that the network must have seen before it is trusted: its first frames stand on an empty past.
const WARM_UP_FRAMES: u32 = 2;

/// When speech begins and ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VadConfig {
    /// Probability of voice (0-1) above which a frame of 16 ms counts as speech.
    pub threshold: f32,
    /// Speech in ms that must come together before it is taken for speech: shorter sounds are clicks.
    pub min_speech_ms: u32,
    /// Silence in ms that ends a stretch of speech and asks for its words. When the *turn* is over is decided by
    /// `interview.endpointing`.
    pub min_silence_ms: u32,
}

impl Default for VadConfig {
    fn default() -> Self {
        Self { threshold: 0.5, min_speech_ms: 48, min_silence_ms: 300 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VadEvent {
    /// Speech began at this time; it is reported `min_speech_ms` later at the earliest.
    Started { at: Instant },
    /// Speech ended; `last_speech` is the arrival of its last audible sound.
    Ended { last_speech: Instant },
}

#[derive(Clone, Copy)]
struct Window {
    /// Samples before the end of the window since the start.
    end: u64,
    at: Instant,
    level: f32,
}

/// Voice activity of one person.
pub struct Vad {
    detector: Box<earshot::Detector>,
    on: f32,
    off: f32,
    min_speech_frames: u32,
    min_silence_samples: u64,
    frame: Vec<i16>,
    /// Samples taken; samples that the network has judged.
    taken: u64,
    judged: u64,
    frames: u32,
    windows: VecDeque<Window>,
    noise: f32,
    /// Frames of voice in a row while silent.
    run: u32,
    speech: Option<Speech>,
}

struct Speech {
    peak: f32,
    /// The last audible window that the network has confirmed.
    last: Window,
    /// Where the last frame of voice ended, in samples.
    voice_end: u64,
}

impl Vad {
    pub fn new(config: &VadConfig) -> Self {
        let on = config.threshold.clamp(0.05, 0.99);
        Self {
            detector: Box::default(),
            on,
            off: (on - HYSTERESIS).max(0.02),
            min_speech_frames: (config.min_speech_ms * SPEECH_HZ / 1000).div_ceil(FRAME as u32).max(1),
            min_silence_samples: u64::from(config.min_silence_ms) * u64::from(SPEECH_HZ) / 1000,
            frame: Vec::with_capacity(FRAME),
            taken: 0,
            judged: 0,
            frames: 0,
            windows: VecDeque::with_capacity(WINDOWS_KEPT),
            noise: AUDIBLE_FLOOR,
            run: 0,
            speech: None,
        }
    }

    pub fn speaking(&self) -> bool {
        self.speech.is_some()
    }

    /// Whether the network hears silence now, inside or outside a stretch.
    pub fn quiet(&self) -> bool {
        self.speech.as_ref().is_none_or(|s| s.voice_end < self.judged)
    }

    /// Takes the samples of one packet that arrived at `arrived`. At most one event per frame of 16 ms.
    pub fn push(&mut self, samples: &[i16], arrived: Instant, events: &mut Vec<VadEvent>) {
        self.measure(samples, arrived);
        for &sample in samples {
            self.frame.push(sample);
            if self.frame.len() == FRAME {
                let voice = self.detector.predict_i16(&self.frame);
                self.frame.clear();
                self.judged += FRAME as u64;
                self.frames = self.frames.saturating_add(1);
                let voice = if self.frames <= WARM_UP_FRAMES { 0.0 } else { voice };
                events.extend(self.judge(voice));
            }
        }
    }

    /// Ends an open stretch at once, as when the track ends or the stretch has become too long.
    pub fn end(&mut self) -> Option<VadEvent> {
        self.run = 0;
        let mut speech = self.speech.take()?;
        // What came since the network's last word may still be speech: hanging up in a word is not silence.
        speech.confirm(&mut self.windows, self.noise, self.taken);
        Some(VadEvent::Ended { last_speech: speech.last.at })
    }

    /// Splits a packet into windows of 5 ms and gives each its level and time.
    fn measure(&mut self, samples: &[i16], arrived: Instant) {
        let total = samples.len();
        let rise = if self.taken < AT_FIRST_SAMPLES { NOISE_RISE_AT_FIRST } else { NOISE_RISE };
        for (i, window) in samples.chunks(WINDOW).enumerate() {
            let end = i * WINDOW + window.len();
            let level = rms(window);
            self.noise = if level < self.noise { level } else { self.noise * rise }.max(AUDIBLE_FLOOR / 4.0);
            if self.windows.len() == WINDOWS_KEPT {
                self.windows.pop_front();
            }
            self.windows.push_back(Window {
                end: self.taken + end as u64,
                at: place_in_packet(arrived, end - window.len() / 2, total),
                level,
            });
        }
        self.taken += total as u64;
    }

    fn judge(&mut self, voice: f32) -> Option<VadEvent> {
        let (judged, noise) = (self.judged, self.noise);
        let Some(speech) = &mut self.speech else {
            self.run = if voice >= self.on { self.run + 1 } else { 0 };
            return (self.run >= self.min_speech_frames).then(|| self.begin());
        };
        if voice >= self.off {
            speech.voice_end = judged;
            speech.confirm(&mut self.windows, noise, judged);
            return None;
        }
        if judged.saturating_sub(speech.last.end) < self.min_silence_samples {
            return None;
        }
        let last_speech = speech.last.at;
        self.speech = None;
        self.run = 0;
        Some(VadEvent::Ended { last_speech })
    }

    fn begin(&mut self) -> VadEvent {
        let run_start = self.judged.saturating_sub(u64::from(self.run) * FRAME as u64);
        let reach = (ONSET_LOOK_BACK.as_millis() as u64) * u64::from(SPEECH_HZ) / 1000;
        let peak = self.windows.iter().filter(|w| w.end > run_start).map(|w| w.level).fold(0.0, f32::max);
        let bar = audible_bar(peak, self.noise);
        let (mut first, mut last, mut gap) = (None, None, 0);
        for window in self.windows.iter().rev().filter(|w| w.end <= self.judged) {
            if window.level >= bar {
                last = last.or(Some(*window));
                first = Some(*window);
                gap = 0;
            } else if window.end <= run_start {
                gap += 1;
            }
            if window.end + reach < run_start || gap > ONSET_GAP_WINDOWS {
                break;
            }
        }
        // The network heard voice though nothing stands out: its own word counts, for start and end.
        let fallback = self.windows.back().copied().unwrap_or(Window { end: 0, at: Instant::now(), level: 0.0 });
        let last = last.unwrap_or(fallback);
        self.speech = Some(Speech { peak, last, voice_end: self.judged });
        VadEvent::Started { at: first.unwrap_or(last).at }
    }
}

impl Speech {
    /// Moves the last audible window on, up to sample `until`.
    fn confirm(&mut self, windows: &mut VecDeque<Window>, noise: f32, until: u64) {
        let fresh = windows.iter().filter(|w| w.end > self.last.end && w.end <= until);
        self.peak = fresh.clone().map(|w| w.level).fold(self.peak, f32::max);
        let bar = audible_bar(self.peak, noise);
        if let Some(last) = fresh.rev().find(|w| w.level >= bar) {
            self.last = *last;
        }
    }
}

fn audible_bar(peak: f32, noise: f32) -> f32 {
    AUDIBLE_FLOOR.max(peak * AUDIBLE_BELOW_PEAK).max((noise * AUDIBLE_ABOVE_NOISE).min(peak * 0.5))
}

/// The time of a place in a packet, within half a packet of its arrival: the middle of the packet is when it arrived.
/// So an end is as exact as the audio, and right on average for who measures from packet to packet.
fn place_in_packet(arrived: Instant, offset: usize, total: usize) -> Instant {
    let from_middle = offset as i64 - total as i64 / 2;
    let shift = Duration::from_micros(from_middle.unsigned_abs() * 1_000_000 / u64::from(SPEECH_HZ));
    if from_middle >= 0 { arrived + shift } else { arrived.checked_sub(shift).unwrap_or(arrived) }
}

fn rms(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return 0.0;
    }
    let sum: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    ((sum / samples.len() as f64).sqrt() / 32768.0) as f32
}
