//! A published track: its layers, who receives it, its tap, and when its keyframes are asked for.

use std::time::{Duration, Instant};

use super::{
    MediaKind, injector::Injector, lane::TrackLanes, participant::ParticipantKey, slots::Key,
    subscription::Subscription,
};
use crate::{id::TrackSid, media::TapWriter};

pub type TrackKey = Key<Track>;

/// Keyframes are large; one serves all who asked within this time.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// A layer without packets for this long has stopped; a lower one may take over.
const LAYER_STALE: Duration = Duration::from_millis(500);
/// Encodings of one track: three are simulcast; more are SSRC changes, of which only the newest matter.
const LAYERS_MAX: usize = 8;

pub struct Track {
    pub sid: TrackSid,
    pub owner: ParticipantKey,
    pub kind: MediaKind,
    pub muted: bool,
    pub subscriptions: Vec<Subscription>,
    pub tap: Option<Tap>,
    /// Present on the track of a participant without a transport.
    pub injector: Option<Injector>,
    pub lanes: TrackLanes,
    /// The layer that is forwarded.
    current: Option<u32>,
    layers: Vec<Layer>,
    keyframes: KeyframeRequests,
    /// RTP time of the last packet, to know how long packets are.
    pub last_audio_time: Option<u64>,
}

/// Where copies of a track's packets go.
pub struct Tap {
    /// The control plane's name of it.
    pub id: u64,
    pub writer: TapWriter,
}

struct Layer {
    ssrc: u32,
    /// Higher is better; from the order of the rids.
    rank: usize,
    last_seen: Instant,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Forward,
    Drop,
    /// A better layer is there but must start with a keyframe.
    DropAndAskKeyframe,
}

impl Track {
    pub fn new(sid: TrackSid, owner: ParticipantKey, kind: MediaKind) -> Self {
        Self {
            sid,
            owner,
            kind,
            muted: false,
            subscriptions: Vec::new(),
            tap: None,
            injector: None,
            lanes: TrackLanes::default(),
            current: None,
            layers: Vec::new(),
            keyframes: KeyframeRequests::default(),
            last_audio_time: None,
        }
    }

    /// Whether this layer is the one to forward; switches on keyframes only.
    pub fn select(&mut self, now: Instant, ssrc: u32, rank: usize, keyframe: bool) -> Selection {
        self.see(now, ssrc, rank);
        if self.kind == MediaKind::Audio || self.current == Some(ssrc) {
            self.current = Some(ssrc);
            return Selection::Forward;
        }
        let current = self.layers.iter().find(|layer| Some(layer.ssrc) == self.current);
        let wanted = current.is_none_or(|current| {
            rank >= current.rank || now.saturating_duration_since(current.last_seen) > LAYER_STALE
        });
        match (wanted, keyframe) {
            (false, _) => Selection::Drop,
            (true, false) => Selection::DropAndAskKeyframe,
            (true, true) => {
                self.current = Some(ssrc);
                Selection::Forward
            }
        }
    }

    fn see(&mut self, now: Instant, ssrc: u32, rank: usize) {
        if let Some(layer) = self.layers.iter_mut().find(|layer| layer.ssrc == ssrc) {
            layer.last_seen = now;
            return;
        }
        if self.layers.len() >= LAYERS_MAX
            && let Some(oldest) = (0..self.layers.len()).min_by_key(|at| self.layers[*at].last_seen)
        {
            self.layers.swap_remove(oldest);
        }
        self.layers.push(Layer { ssrc, rank, last_seen: now });
    }

    /// The stream that keyframes come from: the layer that is forwarded, else the best that flows.
    pub fn keyframe_source(&self) -> Option<u32> {
        self.current.or_else(|| self.layers.iter().max_by_key(|layer| layer.rank).map(|layer| layer.ssrc))
    }

    /// Somebody needs a keyframe. Gives the stream of which the publisher is to be asked for one now; where that is
    /// too early, or no stream is known, it is asked for by the deadline.
    pub fn need_keyframe(&mut self, now: Instant, ssrc: Option<u32>) -> Option<u32> {
        let ssrc = ssrc.or_else(|| self.keyframe_source());
        self.keyframes.handle_need(now, ssrc)
    }

    pub fn keyframe_arrived(&mut self, ssrc: u32) {
        self.keyframes.handle_keyframe(ssrc);
    }

    pub fn keyframe_deadline(&self) -> Option<Instant> {
        self.keyframes.poll_timeout()
    }

    /// A request held back that is due now.
    pub fn keyframe_due(&mut self, now: Instant) -> Option<u32> {
        let fallback = self.keyframe_source();
        self.keyframes.handle_timeout(now, fallback)
    }

    /// Mutes or unmutes; what is left out must not show as a gap.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.last_audio_time = None;
        for subscription in &mut self.subscriptions {
            subscription.interrupt(self.kind);
        }
    }

    pub fn subscription_mut(&mut self, subscriber: ParticipantKey) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.subscriber == subscriber)
    }
}

/// Requests for keyframes of one track, at most one per [`KEYFRAME_INTERVAL`]. Pure.
#[derive(Default)]
struct KeyframeRequests {
    last: Option<Instant>,
    /// Held back; `Some(None)` where the stream was not known yet.
    pending: Option<Option<u32>>,
}

impl KeyframeRequests {
    fn handle_need(&mut self, now: Instant, ssrc: Option<u32>) -> Option<u32> {
        let early = self.last.is_some_and(|last| now < last + KEYFRAME_INTERVAL);
        match ssrc {
            Some(ssrc) if !early => {
                (self.last, self.pending) = (Some(now), None);
                Some(ssrc)
            }
            _ => {
                self.last.get_or_insert(now);
                self.pending = Some(ssrc);
                None
            }
        }
    }

    fn handle_keyframe(&mut self, ssrc: u32) {
        self.pending.take_if(|pending| pending.is_none_or(|wanted| wanted == ssrc));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.pending.and(self.last).map(|last| last + KEYFRAME_INTERVAL)
    }

    fn handle_timeout(&mut self, now: Instant, fallback: Option<u32>) -> Option<u32> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return None;
        }
        let wanted = self.pending.take()?.or(fallback);
        match wanted {
            // No stream yet: whoever subscribed will need one when packets come.
            None => self.last = None,
            Some(_) => self.last = Some(now),
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn video() -> Track {
        Track::new("TR_test".into(), ParticipantKey::dangling(), MediaKind::Video)
    }

    #[test]
    fn the_best_flowing_layer_is_taken_at_its_keyframe_and_left_when_it_stops() {
        let (mut track, now) = (video(), Instant::now());
        assert_eq!(track.select(now, 1, 0, false), Selection::DropAndAskKeyframe);
        assert_eq!(track.select(now, 1, 0, true), Selection::Forward);
        assert_eq!(track.select(now, 3, 2, false), Selection::DropAndAskKeyframe);
        assert_eq!(track.select(now, 1, 0, false), Selection::Forward);
        assert_eq!(track.select(now, 3, 2, true), Selection::Forward);
        assert_eq!(track.select(now, 1, 0, true), Selection::Drop);
        // The best layer stops; the lower one takes over, with a keyframe.
        let later = now + LAYER_STALE + ms(1);
        assert_eq!(track.select(later, 1, 0, false), Selection::DropAndAskKeyframe);
        assert_eq!(track.select(later, 1, 0, true), Selection::Forward);
    }

    #[test]
    fn keyframe_requests_are_debounced_and_none_is_lost() {
        let (mut requests, now) = (KeyframeRequests::default(), Instant::now());
        assert_eq!(requests.handle_need(now, Some(1)), Some(1));
        assert_eq!(requests.handle_need(now + ms(100), Some(1)), None);
        assert_eq!(requests.poll_timeout(), Some(now + KEYFRAME_INTERVAL));
        assert_eq!(requests.handle_timeout(now + ms(499), None), None);
        assert_eq!(requests.handle_timeout(now + ms(500), None), Some(1));
        assert_eq!(requests.poll_timeout(), None);
    }

    #[test]
    fn a_keyframe_that_came_meanwhile_serves_who_asked() {
        let (mut requests, now) = (KeyframeRequests::default(), Instant::now());
        requests.handle_need(now, Some(1));
        requests.handle_need(now + ms(100), Some(1));
        requests.handle_keyframe(1);
        assert_eq!(requests.handle_timeout(now + ms(600), None), None);
    }
}
