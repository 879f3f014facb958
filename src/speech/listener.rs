//! One person's ear: packets of a tap in, what was said out.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::stt::{SttProvider, Transcript};
use crate::{media::TapReader, model::Personal, telemetry::Metrics};

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

/// Spawns the listener's task. `stt` `None`: voice activity alone. Ends after the tap does.
pub fn spawn(
    _reader: TapReader,
    _stt: Option<Arc<dyn SttProvider>>,
    _config: ListenerConfig,
    _metrics: Arc<Metrics>,
) -> mpsc::Receiver<SpeechEvent> {
    todo!()
}
