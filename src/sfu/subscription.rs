//! One track as one receiver gets it: which of its streams and layers, and what becomes of each packet.

use str0m::{format::PayloadParams, rtp::Vp8Descriptor};

use super::{
    MediaKind,
    encodings::Encodings,
    extensions::MediaExtensions,
    forwarder::MediaPacket,
    frames::Frame,
    munger::{FrameMunger, RtpMunger, Vp8Munger, Vp8Patch},
    participant::ParticipantKey,
    transport::{Outlet, Taken},
};

/// A first sequence number is below this: far from a wrap, so that reordering at the start cannot cross one. Above 65,535
/// it would be undecryptable for the receiver.
const FIRST_SEQ_MAX: u64 = 0x3fff;

/// How much of a track its receiver wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub paused: bool,
    /// The best layer: of simulcast by its rank, of scalable video the spatial one. 0 is the lowest.
    pub layer: u8,
    /// The highest temporal layer.
    pub temporal: u8,
}

impl Default for View {
    /// All of it.
    fn default() -> Self {
        Self { paused: false, layer: u8::MAX, temporal: u8::MAX }
    }
}

/// How much of a track the receiver's network carries; `None`: nothing.
pub type Limit = Option<(u8, u8)>;

const UNLIMITED: Limit = Some((u8::MAX, u8::MAX));

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent, with this RTP marker.
    Forward {
        marker: bool,
    },
    Drop,
    /// It would be sent if a keyframe had begun: one is to be asked for.
    Starve,
}

pub struct Subscription {
    pub subscriber: ParticipantKey,
    pub outlet: Outlet,
    view: View,
    limit: Limit,
    cut: bool,
    /// How its receiver takes what it gets.
    pub taken: Option<Taken>,
    /// The stream that it gets, and whether that can be decoded: video not before a keyframe.
    source: Option<u32>,
    live: bool,
    /// The stream that it should get, as of this version of the track's streams.
    best: Option<u32>,
    best_of: Option<u32>,
    told_unsupported: bool,
    filter: LayerFilter,
    rtp: RtpMunger,
    vp8: Vp8Munger,
    frames: FrameMunger,
}

impl Subscription {
    pub fn new(subscriber: ParticipantKey, outlet: Outlet, kind: MediaKind, view: View) -> Self {
        Self {
            subscriber,
            outlet,
            view,
            limit: UNLIMITED,
            cut: false,
            taken: None,
            source: None,
            live: false,
            best: None,
            best_of: None,
            told_unsupported: false,
            filter: LayerFilter::default(),
            rtp: RtpMunger::new(u64::from(*outlet.ssrc) & FIRST_SEQ_MAX, kind.clock_hz()),
            vp8: Vp8Munger::default(),
            frames: FrameMunger::default(),
        }
    }

    /// The next packet follows what was left out without a gap; video starts with a keyframe.
    pub fn interrupt(&mut self) {
        self.rtp.resume();
        self.live = false;
    }

    /// The stream carries another track from here on.
    pub fn hand_over(&mut self, view: View) {
        (self.view, self.limit) = (view, UNLIMITED);
        (self.source, self.live, self.best_of, self.told_unsupported) = (None, false, None, false);
        self.rtp.switch();
        self.vp8.switch();
        self.frames.switch();
    }

    /// Returns whether it goes on after a pause.
    pub fn set_view(&mut self, view: View) -> bool {
        let was_paused = self.is_paused();
        self.view = view;
        self.changed(was_paused)
    }

    /// The same for what the network carries. `cut`: what is sent now is so much too much that a short freeze is better
    /// than to go on until the keyframe of a lower layer comes.
    pub fn set_limit(&mut self, limit: Limit, cut: bool) -> bool {
        let was_paused = self.is_paused();
        self.limit = limit;
        self.cut = cut;
        self.changed(was_paused)
    }

    fn changed(&mut self, was_paused: bool) -> bool {
        self.best_of = None;
        let is_paused = self.is_paused();
        if was_paused != is_paused {
            self.interrupt();
        }
        was_paused && !is_paused
    }

    /// What the client asked for.
    pub fn view(&self) -> View {
        self.view
    }

    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Nothing is sent: the client does not look, or its network carries nothing.
    pub fn is_paused(&self) -> bool {
        self.view.paused || self.limit.is_none()
    }

    /// What it gets: what was asked for, as far as the network carries it.
    fn target(&self) -> View {
        let (layer, temporal) = self.limit.unwrap_or_default();
        View { paused: self.is_paused(), layer: self.view.layer.min(layer), temporal: self.view.temporal.min(temporal) }
    }

    /// The stream whose keyframe the receiver needs.
    pub fn keyframe_source(&self) -> Option<u32> {
        self.best.or(self.source)
    }

    /// Whether the receiver takes none of the streams that flow, which it has not been told.
    pub fn is_unsupported(&self) -> bool {
        !self.told_unsupported && self.best_of.is_some() && self.best.is_none()
    }

    /// The receiver, where it has to be told so now.
    pub fn take_unsupported(&mut self) -> Option<ParticipantKey> {
        let untold = self.is_unsupported();
        self.told_unsupported |= untold;
        untold.then_some(self.subscriber)
    }

    /// Decides about a packet of one of the track's streams. `takes` says how the receiver takes a format.
    pub fn select(
        &mut self,
        kind: MediaKind,
        encodings: &Encodings,
        packet: &MediaPacket,
        takes: impl Fn(&PayloadParams) -> Option<Taken>,
    ) -> Verdict {
        let target = self.target();
        if self.best_of != Some(encodings.version()) {
            self.best = encodings.best(target.layer, |params| takes(params).is_some());
            self.best_of = Some(encodings.version());
            // The publisher changed the codec of this very stream.
            let source = self.source.and_then(|source| encodings.get(source));
            if self.live && source.is_some_and(|source| takes(&source.origin.params) != self.taken) {
                self.interrupt();
            }
            if std::mem::take(&mut self.cut) && self.best != self.source {
                self.interrupt();
            }
        }
        if self.live && self.source == Some(packet.source) {
            return self.filter.handle(&packet.frame, packet.marker, target);
        }
        if self.best != Some(packet.source) {
            return Verdict::Drop;
        }
        if kind == MediaKind::Video && !packet.frame.keyframe {
            return Verdict::Starve;
        }
        let Some(taken) = encodings.get(packet.source).and_then(|encoding| takes(&encoding.origin.params)) else {
            return Verdict::Drop;
        };
        if self.source.is_some_and(|known| known != packet.source) {
            self.rtp.switch();
            self.vp8.switch();
            self.frames.switch();
        }
        (self.taken, self.source, self.live) = (Some(taken), Some(packet.source), true);
        self.filter.handle(&packet.frame, packet.marker, target)
    }

    /// A packet of the stream that it gets is left out.
    pub fn skip(&mut self, packet: &MediaPacket) {
        if !self.live || self.source != Some(packet.source) {
            return;
        }
        self.rtp.skip(packet.seq);
        if let Some(descriptor) = packet.frame.vp8.filter(|_| packet.frame.starts) {
            self.vp8.skip(&descriptor);
        }
    }

    /// Sequence number and time to send with; `None` for a packet from before the last interruption.
    pub fn munge(&mut self, packet: &MediaPacket) -> Option<(u64, u32)> {
        self.rtp.map(packet.seq, packet.rtp_time as u32, packet.captured)
    }

    /// Makes the frame numbers of a dependency descriptor go on over changes of stream.
    pub fn number_frame(&mut self, extensions: &mut MediaExtensions) {
        if let Some(renumbered) = extensions.dependency.as_ref().and_then(|dependency| self.frames.map(dependency)) {
            extensions.dependency = Some(renumbered);
        }
    }

    /// How to rewrite the VP8 descriptor so that picture ids go on; `None` to leave it.
    pub fn patch(&mut self, descriptor: &Vp8Descriptor) -> Option<Vp8Patch> {
        self.vp8.map(descriptor)
    }
}

/// Which layers within one stream pass: scalable video, and temporal layers of any. Pure.
#[derive(Debug, Default)]
struct LayerFilter {
    spatial: u8,
    temporal: u8,
}

impl LayerFilter {
    /// Down at any picture, up where the stream allows it: spatially with a keyframe, in time where a layer needs
    /// nothing that was left out.
    fn handle(&mut self, frame: &Frame, marker: bool, view: View) -> Verdict {
        if frame.keyframe {
            (self.spatial, self.temporal) = (view.layer, view.temporal);
        }
        if frame.starts {
            self.spatial = self.spatial.min(view.layer);
            self.temporal = self.temporal.min(view.temporal);
            if frame.sync && frame.temporal <= view.temporal && frame.temporal == self.temporal.saturating_add(1) {
                self.temporal = frame.temporal;
            }
        }
        if frame.spatial > self.spatial {
            return if frame.spatial <= view.layer { Verdict::Starve } else { Verdict::Drop };
        }
        if frame.temporal > self.temporal {
            return Verdict::Drop;
        }
        // The picture ends where its last layer is left out.
        Verdict::Forward { marker: marker || frame.ends && frame.spatial == self.spatial && frame.spatial < u8::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(layer: u8, temporal: u8) -> View {
        View { paused: false, layer, temporal }
    }

    fn frame(spatial: u8, temporal: u8) -> Frame {
        Frame { starts: spatial == 0, ends: true, spatial, temporal, ..Frame::default() }
    }

    fn keyframe() -> Frame {
        Frame { keyframe: true, ..frame(0, 0) }
    }

    const PASS: Verdict = Verdict::Forward { marker: false };
    const LAST: Verdict = Verdict::Forward { marker: true };

    #[test]
    fn lower_spatial_layers_pass_at_once_and_higher_ones_from_a_keyframe_on() {
        let mut filter = LayerFilter::default();
        let mut take = |frame: &Frame, marker, view| filter.handle(frame, marker, view);
        assert_eq!(take(&keyframe(), false, view(2, 9)), PASS);
        assert_eq!(take(&frame(1, 0), false, view(2, 9)), PASS);
        assert_eq!(take(&frame(2, 0), true, view(2, 9)), LAST);
        // Down to the second layer: from the next picture on, which ends there.
        assert_eq!(take(&frame(0, 0), false, view(1, 9)), PASS);
        assert_eq!(take(&frame(1, 0), false, view(1, 9)), LAST);
        assert_eq!(take(&frame(2, 0), true, view(1, 9)), Verdict::Drop);
        // Up again: not before a keyframe, which is asked for.
        assert_eq!(take(&frame(0, 0), false, view(2, 9)), PASS);
        assert_eq!(take(&frame(1, 0), false, view(2, 9)), LAST);
        assert_eq!(take(&frame(2, 0), true, view(2, 9)), Verdict::Starve);
        assert_eq!(take(&keyframe(), false, view(2, 9)), PASS);
        assert_eq!(take(&frame(2, 0), true, view(2, 9)), LAST);
    }

    #[test]
    fn temporal_layers_come_back_one_by_one_where_they_need_nothing_that_was_left_out() {
        let mut filter = LayerFilter::default();
        let mut take = |frame: &Frame, view| filter.handle(frame, true, view) == LAST;
        assert!(take(&keyframe(), view(0, 2)));
        assert!(take(&frame(0, 2), view(0, 2)));
        assert!(!take(&frame(0, 1), view(0, 0)), "down at the next picture");
        assert!(!take(&frame(0, 1), view(0, 2)), "it may build on one that was left out");
        let sync = |temporal| Frame { sync: true, ..frame(0, temporal) };
        assert!(!take(&sync(2), view(0, 2)), "the layer below is missing");
        assert!(take(&sync(1), view(0, 2)));
        assert!(!take(&frame(0, 2), view(0, 2)));
        assert!(take(&sync(2), view(0, 2)));
        assert!(take(&frame(0, 2), view(0, 2)));
    }
}
