//! A published track: its streams, who receives it, its tap, and when its keyframes are asked for.

use std::time::{Duration, Instant};

use str0m::format::Codec;

use super::{
    MediaKind,
    encodings::Encodings,
    injector::Injector,
    lane::TrackLanes,
    participant::ParticipantKey,
    redundancy::{History, Rebuilder},
    slots::Key,
    subscription::Subscription,
};
use crate::{id::TrackSid, media::TapWriter};

pub type TrackKey = Key<Track>;

/// Keyframes are large; one serves all who asked within this time.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// Streams of one track that keyframes are asked of at a time.
const KEYFRAME_STREAMS_MAX: usize = 16;
pub struct Track {
    pub sid: TrackSid,
    pub owner: ParticipantKey,
    pub kind: MediaKind,
    pub screen: bool,
    pub muted: bool,
    pub subscriptions: Vec<Subscription>,
    pub tap: Option<Tap>,
    /// Present on the track of a participant without a transport.
    pub injector: Option<Injector>,
    pub lanes: TrackLanes,
    pub encodings: Encodings,
    /// In which its publisher sends video, once that is seen, and when it was told.
    pub codec: Option<(Codec, Instant)>,
    keyframes: KeyframeRequests,
    /// Of sound: what was lost on its way here, and what goes to receivers once more.
    pub rebuilder: Rebuilder,
    pub history: History,
    /// RTP time of the last packet, to know how long packets are.
    pub last_audio_time: Option<u64>,
}

/// Where copies of a track's packets go.
pub struct Tap {
    /// The control plane's name of it.
    pub id: u64,
    pub writer: TapWriter,
}

impl Track {
    pub fn new(sid: TrackSid, owner: ParticipantKey, kind: MediaKind) -> Self {
        Self {
            sid,
            owner,
            kind,
            screen: false,
            muted: false,
            subscriptions: Vec::new(),
            tap: None,
            injector: None,
            lanes: TrackLanes::default(),
            encodings: Encodings::default(),
            codec: None,
            keyframes: KeyframeRequests::default(),
            rebuilder: Rebuilder::default(),
            history: History::default(),
            last_audio_time: None,
        }
    }

    /// Somebody needs a keyframe of this stream. True where the publisher is to be asked for one now; where that is too
    /// early, it is asked by the deadline.
    pub fn need_keyframe(&mut self, now: Instant, ssrc: u32) -> bool {
        self.keyframes.handle_need(now, ssrc)
    }

    pub fn keyframe_arrived(&mut self, ssrc: u32) {
        self.keyframes.handle_keyframe(ssrc);
    }

    pub fn keyframe_deadline(&self) -> Option<Instant> {
        self.keyframes.poll_timeout()
    }

    /// The streams whose requests were held back and are due now.
    pub fn keyframes_due(&mut self, now: Instant) -> Vec<u32> {
        self.keyframes.handle_timeout(now)
    }

    /// Mutes or unmutes; what is left out must not show as a gap.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.last_audio_time = None;
        self.rebuilder.interrupt();
        self.history.interrupt();
        for subscription in &mut self.subscriptions {
            subscription.interrupt();
        }
    }

    pub fn subscription_mut(&mut self, subscriber: ParticipantKey) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.subscriber == subscriber)
    }
}

/// Requests for keyframes of one track: for each of its streams at most one per [`KEYFRAME_INTERVAL`]. Pure.
#[derive(Default)]
struct KeyframeRequests {
    streams: Vec<KeyframeRequest>,
}

struct KeyframeRequest {
    ssrc: u32,
    last: Instant,
    /// Asked for too early: held back.
    pending: bool,
}

impl KeyframeRequests {
    fn handle_need(&mut self, now: Instant, ssrc: u32) -> bool {
        // What was served long ago need not be remembered.
        self.streams.retain(|it| it.pending || now < it.last + KEYFRAME_INTERVAL);
        if let Some(known) = self.streams.iter_mut().find(|it| it.ssrc == ssrc) {
            known.pending = true;
            return false;
        }
        let room = self.streams.len() < KEYFRAME_STREAMS_MAX;
        if room {
            self.streams.push(KeyframeRequest { ssrc, last: now, pending: false });
        }
        room
    }

    fn handle_keyframe(&mut self, ssrc: u32) {
        for known in self.streams.iter_mut().filter(|it| it.ssrc == ssrc) {
            known.pending = false;
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.streams.iter().filter(|it| it.pending).map(|it| it.last + KEYFRAME_INTERVAL).min()
    }

    fn handle_timeout(&mut self, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        for known in self.streams.iter_mut().filter(|it| it.pending && now >= it.last + KEYFRAME_INTERVAL) {
            (known.pending, known.last) = (false, now);
            due.push(known.ssrc);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn keyframe_requests_are_debounced_by_stream_and_none_is_lost() {
        let (mut requests, now) = (KeyframeRequests::default(), Instant::now());
        assert!(requests.handle_need(now, 1));
        assert!(!requests.handle_need(now + ms(100), 1));
        assert!(requests.handle_need(now + ms(100), 2), "another layer");
        assert_eq!(requests.poll_timeout(), Some(now + KEYFRAME_INTERVAL));
        assert!(requests.handle_timeout(now + ms(499)).is_empty());
        assert_eq!(requests.handle_timeout(now + ms(500)), [1]);
        assert_eq!(requests.poll_timeout(), None);
        assert!(!requests.handle_need(now + ms(600), 1), "one went out just now");
    }

    #[test]
    fn a_keyframe_that_came_meanwhile_serves_who_asked() {
        let (mut requests, now) = (KeyframeRequests::default(), Instant::now());
        requests.handle_need(now, 1);
        requests.handle_need(now + ms(100), 1);
        requests.handle_keyframe(1);
        assert!(requests.handle_timeout(now + ms(600)).is_empty());
    }
}
