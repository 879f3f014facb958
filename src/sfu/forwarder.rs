//! One packet to all who receive its track, then to the track's tap.
//!
//! The payload is shared, never copied or changed per receiver. Nothing is sent here: packets are queued on the
//! receivers' transports, which the room flushes once per batch.

use std::{sync::Arc, time::Instant};

use str0m::rtp::{ExtensionValues, RtpWrite, Vp8Descriptor};

use super::{
    MediaKind, SfuStats,
    participant::{Participant, ParticipantKey},
    slots::Slots,
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
    pub ext: ExtensionValues,
    /// When it arrived, and when it was captured as far as that is known: the base of sender reports.
    pub arrived: Instant,
    pub captured: Instant,
    pub vp8: Option<Vp8Descriptor>,
}

impl MediaPacket {
    /// Whether a VP8 keyframe begins here.
    pub fn starts_keyframe(&self) -> bool {
        self.vp8.is_some_and(|descriptor| descriptor.starts_keyframe(&self.payload))
    }
}

/// Queues the packet for every subscription that takes it. Returns whether someone waits for a keyframe.
pub fn forward(
    track: &mut Track,
    packet: &MediaPacket,
    participants: &mut Slots<Participant>,
    dirty: &mut Vec<ParticipantKey>,
    stats: &mut SfuStats,
) -> bool {
    let kind = track.kind;
    let keyframe = packet.starts_keyframe();
    let mut starving = false;
    for subscription in &mut track.subscriptions {
        if subscription.paused {
            stats.dropped_paused += 1;
            continue;
        }
        if subscription.needs_keyframe {
            if !keyframe {
                starving = true;
                stats.dropped_layer += 1;
                continue;
            }
            subscription.needs_keyframe = false;
        }
        let Some(subscriber) = participants.get_mut(subscription.subscriber) else { continue };
        let munged = subscription.munge(packet.source, packet.seq, packet.rtp_time as u32, packet.arrived);
        let Some((seq, time)) = munged else { continue };
        let mut write =
            RtpWrite::new(subscription.outlet.pt, seq.into(), time, packet.captured, packet.payload.clone())
                .marker(packet.marker)
                .ext_vals(packet.ext.clone())
                .nackable(kind == MediaKind::Video);
        if let Some(patch) = packet.vp8.and_then(|descriptor| subscription.patch(&descriptor)) {
            write = write.vp8_patch(patch);
        }
        if subscriber.write_rtp(subscription.outlet.ssrc, write) {
            stats.sent(kind, packet.payload.len());
            if !std::mem::replace(&mut subscriber.dirty, true) {
                dirty.push(subscription.subscriber);
            }
        }
    }
    starving
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

/// The header extensions that receivers are to see: those that describe the media, none that describe the sender's
/// own path (transport sequence numbers, send times, section names), which every transport writes itself.
pub fn media_extensions(received: &ExtensionValues) -> ExtensionValues {
    ExtensionValues {
        audio_level: received.audio_level,
        voice_activity: received.voice_activity,
        video_orientation: received.video_orientation,
        play_delay_min: received.play_delay_min,
        play_delay_max: received.play_delay_max,
        ..ExtensionValues::default()
    }
}
