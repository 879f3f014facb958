//! Dynacast: what nobody looks at need not be sent. The publisher of a video is told up to which quality it is looked at:
//! some time after less is wanted, and at once when somebody wants more. Clients without dynacast go on sending.

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::{SubscribedCodec, SubscribedQuality, VideoQuality, signal_response::Message as Response};

use super::{
    Now, codecs,
    participant::{Participant, Track},
    room::Room,
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{MediaKind, View},
};

/// Who turns a page looks again; a camera that stops and starts with it would cost a keyframe each time.
const LOWER_DELAY: Duration = Duration::from_secs(5);
const QUALITIES: [VideoQuality; 3] = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
/// How much larger a picture may be shown than a layer is: hardly anybody sees that.
const STRETCH_PERCENT: u64 = 110;
/// Up to which frame rates one temporal layer, and two, do: cameras send 30 a second, of which each layer is half.
const TEMPORAL_FPS: [u32; 2] = [8, 16];

/// What the publisher of a video knows of its viewers. A level is how many of the qualities are wanted, from the lowest
/// up; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// What is wanted now, and since when that is less than what was told.
    level: usize,
    lower_since: Option<Instant>,
    told: Option<usize>,
}

impl Track {
    fn is_live_video(&self) -> bool {
        self.live && self.kind == MediaKind::Video
    }

    fn demand_deadline(&self) -> Option<Instant> {
        self.demand.lower_since.map(|since| since + LOWER_DELAY)
    }
}

impl Participant {
    /// When its publisher is to be told that less of a video has been wanted for long.
    pub fn demand_deadline(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(Track::demand_deadline).min()
    }

    /// How many qualities it wants of this track.
    fn demands(&self, track: &TrackSid) -> usize {
        let view = self.views.get(track).copied().unwrap_or_default();
        match self.subscribed.contains(track) && !view.paused {
            true => usize::from(view.layer).min(QUALITIES.len() - 1) + 1,
            false => 0,
        }
    }
}

impl Room {
    /// Must follow every input: tells publishers what has changed for them.
    pub fn settle(&mut self, now: Now) {
        self.update_outlets();
        if !std::mem::take(&mut self.demand_changed) {
            return;
        }
        let level = |track: &Track| self.participants.iter().map(|p| p.demands(&track.sid)).max().unwrap_or(0);
        let videos = self.participants.iter().filter(|p| p.link.is_some()).flat_map(|p| {
            let videos = p.tracks.iter().filter(|track| track.is_live_video());
            // Who looks at it in another room is not known here.
            let elsewhere = !p.outlets.is_empty();
            let level = move |track: &Track| if elsewhere { QUALITIES.len() } else { level(track) };
            videos.map(move |track| (p.sid.clone(), track.sid.clone(), level(track)))
        });
        for (sid, track, level) in videos.collect::<Vec<_>>() {
            let Some(found) = self.get_mut(&sid).and_then(|p| p.track_mut(track.as_str())) else { continue };
            let demand = &mut found.demand;
            demand.level = level;
            // A publisher that was told nothing sends all.
            let told = demand.told.unwrap_or(QUALITIES.len());
            if level < told {
                demand.lower_since.get_or_insert(now.at);
                continue;
            }
            demand.lower_since = None;
            if demand.told != Some(level) {
                self.tell_demand(&sid, &track, level);
            }
        }
    }

    /// Less of some videos of this participant's has been wanted for long.
    pub(super) fn demand_ended(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        let is_over = |track: &&mut Track| track.demand_deadline().is_some_and(|at| now.at >= at);
        let over = p.tracks.iter_mut().filter(is_over).map(|track| {
            track.demand.lower_since = None;
            (track.sid.clone(), track.demand.level)
        });
        for (track, level) in over.collect::<Vec<_>>() {
            self.tell_demand(sid, &track, level);
        }
    }

    /// A client that resumed may have missed what it was told.
    pub(super) fn tell_demand_to(&mut self, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let told: Vec<_> = p.tracks.iter().filter_map(|t| Some((t.sid.clone(), t.demand.told?))).collect();
        for (track, level) in told {
            self.tell_demand(sid, &track, level);
        }
    }

    /// Tells the publisher again what is wanted of this video.
    pub(super) fn tell_demand_of(&mut self, sid: &ParticipantSid, track: &TrackSid) {
        let found = self.get(sid).and_then(|p| p.track(track.as_str()));
        if let Some(level) = found.map(|found| found.demand.told.unwrap_or(QUALITIES.len())) {
            self.tell_demand(sid, track, level);
        }
    }

    fn tell_demand(&mut self, sid: &ParticipantSid, track: &TrackSid, level: usize) {
        let Some(found) = self.get_mut(sid).and_then(|p| p.track_mut(track.as_str())) else { return };
        found.demand.told = Some(level);
        let wanted_codecs = if found.backup_wanted { usize::MAX } else { 1 };
        let codecs = found.info.codecs.iter().take(wanted_codecs);
        let codecs: Vec<_> = codecs.map(|codec| codecs::name(&codec.mime_type).to_ascii_lowercase()).collect();
        let wanted = QUALITIES.iter().enumerate();
        let qualities: Vec<_> =
            wanted.map(|(at, quality)| SubscribedQuality { quality: *quality as i32, enabled: at < level }).collect();
        #[allow(deprecated)] // older clients read this field
        let update = proto::SubscribedQualityUpdate {
            track_sid: track.as_str().to_owned(),
            subscribed_qualities: qualities.clone(),
            subscribed_codecs: codecs
                .into_iter()
                .map(|codec| SubscribedCodec { codec, qualities: qualities.clone() })
                .collect(),
        };
        self.tell(sid, Response::SubscribedQualityUpdate(update));
    }
}

/// What a client's settings of a track come to: by the size at which it shows the picture, else by the quality it names.
pub(super) fn view(settings: &proto::UpdateTrackSettings, layers: &[proto::VideoLayer]) -> View {
    let layer = match (settings.width, settings.height) {
        (0, 0) => u8::try_from(settings.quality).unwrap_or_default(),
        (width, height) => smallest_for(width.max(height), layers),
    };
    let temporal = match settings.fps {
        0 => u8::MAX,
        fps => TEMPORAL_FPS.iter().position(|most| fps <= *most).map_or(u8::MAX, |at| at as u8),
    };
    View { paused: settings.disabled, layer, temporal }
}

/// The smallest layer that fills this many pixels on the longer side; the best where none does.
fn smallest_for(pixels: u32, layers: &[proto::VideoLayer]) -> u8 {
    let side = |layer: &proto::VideoLayer| u64::from(layer.width.max(layer.height));
    let fills = layers.iter().filter(|layer| side(layer) * STRETCH_PERCENT / 100 >= u64::from(pixels));
    let smallest = fills.min_by_key(|layer| side(layer));
    smallest.and_then(|layer| u8::try_from(layer.quality).ok()).unwrap_or(VideoQuality::High as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_layer_that_fills_the_picture_is_wanted() {
        let layer = |quality: VideoQuality, width, height| proto::VideoLayer {
            quality: quality as i32,
            width,
            height,
            ..Default::default()
        };
        let layers = [
            layer(VideoQuality::Low, 320, 180),
            layer(VideoQuality::Medium, 640, 360),
            layer(VideoQuality::High, 1280, 720),
        ];
        let of = |width, height, fps| {
            view(&proto::UpdateTrackSettings { width, height, fps, ..Default::default() }, &layers)
        };
        assert_eq!(of(160, 90, 0).layer, 0);
        assert_eq!(of(350, 200, 0).layer, 0, "a little larger");
        assert_eq!(of(400, 225, 0).layer, 1);
        assert_eq!(of(180, 320, 0).layer, 0, "a phone held upright");
        assert_eq!(of(4_000, 2_000, 0).layer, 2);
        assert_eq!([5, 15, 30, 0].map(|fps| of(1, 1, fps).temporal), [0, 1, u8::MAX, u8::MAX]);
        let named = proto::UpdateTrackSettings { quality: 1, disabled: true, ..Default::default() };
        assert_eq!(view(&named, &layers), View { paused: true, layer: 1, temporal: u8::MAX });
    }
}
