//! What flows in a room: packets to their track's receivers, an injected voice, keyframe requests back, taps; and the
//! tracks that they flow on.

use std::time::{Duration, Instant};

use str0m::{
    format::{Codec, CodecSpec, FormatParams, PayloadParams},
    media::Frequency,
    rtp::{RtpPacket, Ssrc},
};

use super::{
    Context, EventKind, MediaKind, TimerKey,
    dependency::DependencyBytes,
    encodings::Origin,
    extensions::MediaExtensions,
    forwarder::{MediaPacket, copy_to_tap, forward},
    frames::Frame,
    injector::{Injector, VOICE_DBOV},
    negotiation::Published,
    participant::{Leg, Participant, ParticipantKey},
    redundancy::{self, Parts},
    room::Room,
    subscription::Subscription,
    track::{Tap, Track, TrackKey},
};
use crate::{
    id::{ParticipantSid, TrackSid},
    media::{OpusFrame, PACKET_DURATION},
};

/// Lengths of Opus packets that a level may count for (RFC 6716 section 2.1.4 allows 2.5 to 120 ms); keeps silence
/// between two packets from counting as sound.
const PACKET_LENGTHS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(120));
/// The largest payload that is forwarded: what a network carries in one datagram.
const PAYLOAD_BYTES_MAX: usize = 1_500;
/// A publisher that changes its codec all the time is announced anew this often at most.
const CODEC_TOLD_EVERY: Duration = Duration::from_secs(5);

impl Room {
    pub(super) fn handle_packet(&mut self, now: Instant, key: ParticipantKey, packet: RtpPacket, cx: &mut Context) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Some(place) = participant.route(packet.header.ssrc, packet.header.payload_type) else { return };
        let captured = captured_at(participant, &packet);
        let Some(track) = self.tracks.get_mut(place.track) else { return };
        let kind = track.kind;
        cx.stats.received(kind, packet.payload.len());
        if !participant.budget.take_media(now) {
            cx.stats.dropped_flood += 1;
            return;
        }
        // What receivers get is this and our headers; str0m takes for granted that it fits.
        if packet.payload.len() > PAYLOAD_BYTES_MAX {
            cx.stats.dropped_malformed += 1;
            return;
        }
        if track.muted {
            cx.stats.dropped_paused += 1;
            return;
        }
        let codec = place.origin.params.spec().codec;
        let encoding = track.encodings.see(now, *packet.header.ssrc, &place.origin);
        let frame = match kind {
            MediaKind::Audio => Frame::default(),
            MediaKind::Video => {
                let dependency = packet.header.ext_vals.user_values.get::<DependencyBytes>();
                let dependency = dependency.and_then(|dependency| encoding.structure.read(dependency.as_received()));
                Frame::read(codec, &packet.payload, packet.header.marker, dependency)
            }
        };
        let params = &place.origin.params;
        let parts = match params.red() == Some(packet.header.payload_type) {
            true => redundancy::split(&packet.payload, params.pt()),
            false => Some(Parts { primary: packet.payload, earlier: Vec::new() }),
        };
        let Some(Parts { primary, earlier }) = parts else {
            cx.stats.dropped_malformed += 1;
            return;
        };
        let packet = MediaPacket {
            source: *packet.header.ssrc,
            seq: *packet.seq_no,
            rtp_time: packet.time.numer(),
            marker: packet.header.marker,
            frame,
            extensions: MediaExtensions::read(&packet.header.ext_vals, codec),
            arrived: packet.timestamp,
            captured,
            payload: primary,
        };
        if kind == MediaKind::Audio {
            let rebuilt = track.rebuilder.handle(packet.source, packet.seq, packet.rtp_time, earlier);
            // It was rebuilt before it came.
            let Some(rebuilt) = rebuilt else { return };
            for lost in rebuilt {
                cx.stats.rebuilt += 1;
                self.pass(now, place.track, place.origin, &packet.earlier(lost), cx);
            }
        }
        self.pass(now, place.track, place.origin, &packet, cx);
    }

    /// A packet that was published, or came by a lane: to the lanes, then to those here who take its stream.
    pub(super) fn pass(&mut self, now: Instant, key: TrackKey, origin: Origin, packet: &MediaPacket, cx: &mut Context) {
        self.carry(key, &origin, packet, cx);
        let Some(track) = self.tracks.get_mut(key) else { return };
        track.encodings.measure(now, packet.source, &packet.frame, packet.payload.len());
        if track.kind == MediaKind::Video {
            let codec = origin.params.spec().codec;
            if packet.frame.keyframe {
                track.keyframe_arrived(packet.source);
            }
            let told = track.codec.is_some_and(|(told, at)| told == codec || now < at + CODEC_TOLD_EVERY);
            if packet.frame.keyframe && !origin.backup && !told {
                track.codec = Some((codec, now));
                let (owner, track) = (track.owner, track.sid.clone());
                self.emit(owner, EventKind::TrackCodec { track, mime_type: mime_type(codec) }, cx);
            }
        }
        self.forward(now, key, packet, cx);
    }

    fn forward(&mut self, now: Instant, key: TrackKey, packet: &MediaPacket, cx: &mut Context) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.kind == MediaKind::Audio {
            let length = track.last_audio_time.map(|last| packet.rtp_time.saturating_sub(last));
            track.last_audio_time = Some(packet.rtp_time);
            let length = length.map_or(PACKET_DURATION, |samples| Duration::from_micros(samples * 1_000 / 48));
            let length = length.clamp(PACKET_LENGTHS.0, PACKET_LENGTHS.1);
            if let Some(level) = packet.extensions.loudness() {
                self.speakers.handle_level(now, track.owner, level, length);
            }
        }
        let outcome = forward(track, packet, &mut self.participants, &mut self.dirty, &mut cx.stats);
        if let Some(id) = copy_to_tap(track, packet, &mut cx.stats) {
            let (owner, track) = (track.owner, track.sid.clone());
            self.emit(owner, EventKind::TapClosed { track, id }, cx);
        }
        if outcome.starving {
            self.need_keyframe(now, key, packet.source, cx);
        }
        if outcome.unsupported {
            self.tell_unsupported(key, cx);
        }
        if let (Some(room), Some(at)) = (self.key, self.speakers.poll_timeout()) {
            cx.timers.arm(&mut self.armed, at, TimerKey::Room(room));
        }
    }

    /// Speaks a frame as the injected track. Reported once it is queued; it leaves within this tick.
    pub fn inject(&mut self, now: Instant, sid: &TrackSid, frame: OpusFrame, cx: &mut Context) {
        let Some(key) = self.tracks_by_sid.get(sid).copied() else { return };
        let Some(track) = self.tracks.get_mut(key) else { return };
        let (owner, muted) = (track.owner, track.muted);
        let Some(injector) = &mut track.injector else { return };
        let report = frame.report;
        let injected = injector.handle_frame(now, frame);
        cx.stats.injected += 1;
        if muted {
            cx.stats.dropped_paused += 1;
        } else {
            let packet = MediaPacket {
                source: 0,
                seq: injected.seq,
                rtp_time: injected.rtp_time,
                marker: injected.marker,
                payload: injected.payload,
                extensions: MediaExtensions::voice(VOICE_DBOV),
                arrived: now,
                captured: now,
                frame: Frame::default(),
            };
            let origin = Origin { rank: 0, backup: false, params: opus(), red: true };
            track.encodings.see(now, packet.source, &origin);
            self.pass(now, key, origin, &packet, cx);
        }
        if let Some(report) = report {
            self.emit(owner, EventKind::Injected { track: sid.clone(), report, at: now }, cx);
        }
    }

    /// Tells receivers once that they take none of the track's streams.
    fn tell_unsupported(&mut self, key: TrackKey, cx: &mut Context) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let untold = track.subscriptions.iter_mut().filter_map(Subscription::take_unsupported).collect::<Vec<_>>();
        let sid = track.sid.clone();
        for subscriber in untold {
            self.emit(subscriber, EventKind::TrackUnsupported { track: sid.clone() }, cx);
        }
    }

    /// A receiver of this track needs a keyframe: of the stream that it gets, or is to get.
    pub(super) fn subscriber_needs_keyframe(
        &mut self,
        now: Instant,
        key: TrackKey,
        subscriber: ParticipantKey,
        cx: &mut Context,
    ) {
        let subscription = self.tracks.get_mut(key).and_then(|track| track.subscription_mut(subscriber));
        // Where no stream is known yet, the first packet of one asks.
        if let Some(ssrc) = subscription.and_then(|it| it.keyframe_source()) {
            self.need_keyframe(now, key, ssrc, cx);
        }
    }

    pub(super) fn need_keyframe(&mut self, now: Instant, key: TrackKey, ssrc: u32, cx: &mut Context) {
        let Some(track) = self.tracks.get_mut(key).filter(|it| it.kind == MediaKind::Video) else { return };
        if track.need_keyframe(now, ssrc) {
            self.request_keyframe(now, key, ssrc, cx);
        } else if let (Some(room), Some(at)) = (self.key, track.keyframe_deadline()) {
            cx.timers.arm(&mut self.armed, at, TimerKey::Room(room));
        }
    }

    pub(super) fn request_keyframe(&mut self, now: Instant, track: TrackKey, ssrc: u32, cx: &mut Context) {
        if self.ask_up_the_lane(track, ssrc, cx) {
            return;
        }
        let Some(owner) = self.tracks.get(track).map(|track| track.owner) else { return };
        self.drive(now, owner, Leg::Main, cx, |transport, sink| {
            transport.request_keyframe(Ssrc::from(ssrc), sink);
        });
        self.mark_dirty(owner, Leg::Main);
    }

    /// An announced track found its section: it is live.
    pub(super) fn go_live(&mut self, now: Instant, owner: ParticipantKey, published: Published, cx: &mut Context) {
        let Published { mid, pending, muted } = published;
        if let Some(key) = self.track_of(owner, &pending.track).filter(|_| pending.backup) {
            if let Some(participant) = self.participants.get_mut(owner) {
                participant.negotiation.bind(&mid, key, true);
                participant.forget_routes();
            }
            return;
        }
        let mut track = Track::new(pending.track.clone(), owner, pending.kind);
        track.muted = muted;
        track.screen = pending.screen;
        let key = self.add_track(now, track, cx);
        if let Some(participant) = self.participants.get_mut(owner) {
            participant.negotiation.bind(&mid, key, false);
            participant.forget_routes();
        }
        self.emit(owner, EventKind::TrackLive { track: pending.track, mid }, cx);
    }

    pub fn publish_injected(&mut self, now: Instant, owner: &ParticipantSid, sid: TrackSid, cx: &mut Context) {
        let Some(owner) = self.by_sid.get(owner).copied() else { return };
        let mut track = Track::new(sid, owner, MediaKind::Audio);
        track.injector = Some(Injector::default());
        self.add_track(now, track, cx);
    }

    pub(super) fn add_track(&mut self, now: Instant, track: Track, cx: &mut Context) -> TrackKey {
        let sid = track.sid.clone();
        if let Some(replaced) = self.tracks_by_sid.get(&sid).copied() {
            self.remove_track(now, replaced, cx);
        }
        let key = self.tracks.insert(track);
        self.tracks_by_sid.insert(sid, key);
        key
    }

    pub(super) fn remove_track(&mut self, now: Instant, key: TrackKey, cx: &mut Context) {
        drop(self.take_track(now, key, cx));
    }

    /// Takes a track out: nobody receives it any more, and nobody hears it.
    pub(super) fn take_track(&mut self, now: Instant, key: TrackKey, cx: &mut Context) -> Option<Track> {
        let mut track = self.tracks.remove(key)?;
        self.tracks_by_sid.remove(&track.sid);
        cx.lanes.forget(&mut track.lanes);
        cx.stats.taps_open -= u64::from(track.tap.take().is_some());
        for subscription in track.subscriptions.drain(..) {
            if let Some(participant) = self.participants.get_mut(subscription.subscriber) {
                participant.retire(subscription);
            }
        }
        for other in self.participants.keys() {
            if let Some(participant) = self.participants.get_mut(other) {
                participant.forget_routes();
                participant.negotiation.retire(key);
                participant.unwish(now, key);
            }
            self.fill(now, other, cx);
            self.rearm(now, other, cx);
        }
        Some(track)
    }

    /// Opens a tap; where that cannot be it is said, since whoever asked believes that it is open.
    pub fn open_tap(&mut self, owner: &ParticipantSid, sid: &TrackSid, tap: Tap, cx: &mut Context) {
        let key = self.by_sid.get(owner).and_then(|owner| self.track_of(*owner, sid));
        let track = key.and_then(|key| self.tracks.get_mut(key));
        match track.filter(|it| it.kind == MediaKind::Audio) {
            Some(track) => {
                let replaced = track.tap.replace(tap);
                cx.stats.taps_open += u64::from(replaced.is_none());
            }
            None => cx.emit(&self.sid, owner, EventKind::TapClosed { track: sid.clone(), id: tap.id }),
        }
    }

    pub fn close_tap(&mut self, sid: &TrackSid, cx: &mut Context) {
        if let Some(track) = self.tracks_by_sid.get(sid).and_then(|key| self.tracks.get_mut(*key)) {
            cx.stats.taps_open -= u64::from(track.tap.take().is_some());
        }
    }
}

fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "video/H264",
        Codec::Vp9 => "video/VP9",
        Codec::Av1 => "video/AV1",
        _ => "video/VP8",
    }
}

/// The format of injected voices.
fn opus() -> PayloadParams {
    let spec = CodecSpec {
        codec: Codec::Opus,
        clock_rate: Frequency::FORTY_EIGHT_KHZ,
        channels: Some(2),
        format: FormatParams::default(),
    };
    PayloadParams::new(111.into(), None, spec)
}

/// When the packet was captured, by our clock: from the publisher's sender reports where there are any.
fn captured_at(participant: &mut Participant, packet: &RtpPacket) -> Instant {
    let arrived = packet.timestamp;
    // A sender that reports before its first packet has no RTP time to report: str0m writes 0.
    let Some(report) = packet.last_sender_info.filter(|report| report.sender_packet_count > 0) else { return arrived };
    let hz = packet.time.frequency().get();
    let reported = report.rtp_time.numer() as u32;
    let since = (packet.time.numer() as u32).wrapping_sub(reported) as i32;
    let offset = Duration::from_secs_f64(f64::from(since.unsigned_abs()) / f64::from(hz));
    let sender = if since >= 0 { report.ntp_time.checked_add(offset) } else { report.ntp_time.checked_sub(offset) };
    sender.map_or(arrived, |sender| participant.clock.map(sender, arrived))
}
