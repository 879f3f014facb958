//! One packet to all who receive its track, then to the track's tap.
//!
//! The payload is shared, never copied or changed per receiver; that of sound with redundancy is made once for all who take
//! it alike. Nothing is sent here: packets are queued on the
//! receivers' transports, which the room flushes once per batch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    MediaKind, SfuStats,
    egress::Outgoing,
    extensions::MediaExtensions,
    frames::Frame,
    participant::{Participant, ParticipantKey},
    redundancy::{Rebuilt, Wrapper},
    slots::Slots,
    subscription::Verdict,
    track::Track,
};
use crate::media::{AudioPacket, TapWrite};

/// A packet of a track, wherever it came from.
#[derive(Clone)]
pub struct MediaPacket {
    /// Which stream numbered it.
    pub source: u32,
    /// Extended sequence number and RTP time: neither wraps.
    pub seq: u64,
    pub rtp_time: u64,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    pub extensions: MediaExtensions,
    /// When it arrived, and when it was captured as far as that is known: the base of sender reports.
    pub arrived: Instant,
    pub captured: Instant,
    /// Of video.
    pub frame: Frame,
}

impl MediaPacket {
    /// A packet of sound from before this one, which had been lost.
    pub fn earlier(&self, lost: Rebuilt) -> Self {
        let since = Duration::from_micros((self.rtp_time - lost.rtp_time).saturating_mul(1_000) / 48);
        Self {
            seq: lost.seq,
            rtp_time: lost.rtp_time,
            marker: false,
            payload: lost.payload,
            // Its own are not known.
            extensions: MediaExtensions::default(),
            captured: self.captured.checked_sub(since).unwrap_or(self.captured),
            ..self.clone()
        }
    }
}

/// What a packet brought up beside being forwarded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Somebody waits for a keyframe of this stream.
    pub starving: bool,
    /// Somebody takes none of the track's streams.
    pub unsupported: bool,
}

/// Queues the packet for every subscription that takes it.
pub fn forward(
    track: &mut Track,
    packet: &MediaPacket,
    participants: &mut Slots<Participant>,
    dirty: &mut Vec<ParticipantKey>,
    stats: &mut SfuStats,
) -> Outcome {
    let Track { kind, subscriptions, encodings, history, .. } = track;
    let kind = *kind;
    let redundant = encodings.get(packet.source).is_some_and(|encoding| encoding.origin.red);
    let mut wrapper = Wrapper::new(history, packet.source, packet.rtp_time, &packet.payload);
    let mut outcome = Outcome::default();
    for subscription in subscriptions {
        if subscription.is_paused() {
            stats.dropped_paused += 1;
            continue;
        }
        let Some(subscriber) = participants.get_mut(subscription.subscriber) else { continue };
        // Once it can be reached it starts with a keyframe, and sees no gap.
        if !subscriber.can_receive() {
            subscription.interrupt();
            stats.dropped_no_consent += 1;
            continue;
        }
        let mid = subscription.outlet.mid;
        let verdict = subscription.select(kind, encodings, packet, |params| subscriber.takes(mid, params));
        let Verdict::Forward { marker } = verdict else {
            outcome.starving |= verdict == Verdict::Starve;
            outcome.unsupported |= subscription.is_unsupported();
            subscription.skip(packet);
            stats.dropped_layer += 1;
            continue;
        };
        let Some((seq, time)) = subscription.munge(packet) else { continue };
        let mut extensions = packet.extensions.clone();
        subscription.number_frame(&mut extensions);
        let Some(taken) = subscription.taken else { continue };
        let (pt, payload) = match taken.red.filter(|_| redundant) {
            Some(red) => (red, wrapper.get(taken.pt, subscriber.redundancy())),
            None => (taken.pt, packet.payload.clone()),
        };
        let bytes = payload.len();
        let video = kind == MediaKind::Video;
        let outgoing = Outgoing {
            stream: subscription.outlet.stream,
            pt: *pt,
            rtx: taken.rtx.filter(|_| video).map(|pt| *pt),
            marker,
            seq,
            time,
            captured: packet.captured,
            payload,
            patch: packet.frame.vp8.and_then(|descriptor| subscription.patch(&descriptor)),
            extensions,
        };
        if subscriber.write_rtp(outgoing, video, stats) {
            stats.sent(kind, bytes);
            if !std::mem::replace(&mut subscriber.dirty, true) {
                dirty.push(subscription.subscriber);
            }
        }
    }
    if redundant {
        history.handle(packet.source, packet.rtp_time, &packet.payload);
    }
    outcome
}

/// Copies the packet into the track's tap, if it has one. A tap that nobody reads any more is closed: its id is
/// returned.
pub fn copy_to_tap(track: &mut Track, packet: &MediaPacket, stats: &mut SfuStats) -> Option<u64> {
    let tap = track.tap.as_ref()?;
    let copy = AudioPacket {
        source: packet.source,
        seq: packet.seq,
        rtp_time: packet.rtp_time,
        arrived: packet.arrived,
        payload: packet.payload.as_ref().into(),
    };
    match tap.writer.write(copy) {
        TapWrite::Taken => stats.tapped += 1,
        TapWrite::Full => stats.tap_dropped += 1,
        TapWrite::Closed => {
            stats.taps_open -= 1;
            return track.tap.take().map(|tap| tap.id);
        }
    }
    None
}
