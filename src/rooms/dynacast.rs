//! Dynacast in its simple form: a video that nobody looks at need not be sent. Its publisher is told so some time after
//! the last one stopped looking, and at once when somebody looks again. Clients without dynacast go on sending.

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::{SubscribedCodec, SubscribedQuality, VideoQuality, signal_response::Message as Response};

use super::{
    Now,
    participant::{Participant, Track},
    room::Room,
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::MediaKind,
};

/// Who turns a page looks again; a camera that stops and starts with it would cost a keyframe each time.
const PAUSE_DELAY: Duration = Duration::from_secs(5);

/// What the publisher of a video knows of its viewers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// Since when nobody looks at it.
    idle_since: Option<Instant>,
    /// What the publisher was told last: whether to send.
    told: Option<bool>,
}

impl Track {
    fn is_live_video(&self) -> bool {
        self.live && self.kind == MediaKind::Video
    }

    fn demand_deadline(&self) -> Option<Instant> {
        self.demand.idle_since.filter(|_| self.demand.told != Some(false)).map(|since| since + PAUSE_DELAY)
    }
}

impl Participant {
    /// When its publisher is to be told of the first video that nobody has looked at for long.
    pub fn demand_deadline(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(Track::demand_deadline).min()
    }

    fn looks_at(&self, track: &TrackSid) -> bool {
        self.subscribed.contains(track) && !self.paused.contains(track)
    }
}

impl Room {
    /// Must follow every input: tells publishers what has changed for them.
    pub fn settle(&mut self, now: Now) {
        self.update_outlets();
        if !std::mem::take(&mut self.demand_changed) {
            return;
        }
        let looked_at = |track: &Track| self.participants.iter().any(|p| p.looks_at(&track.sid));
        let videos = self.participants.iter().filter(|p| p.link.is_some()).flat_map(|p| {
            let videos = p.tracks.iter().filter(|track| track.is_live_video());
            // Who looks at it in another room is not known here.
            let elsewhere = !p.outlets.is_empty();
            videos.map(move |track| (p.sid.clone(), track.sid.clone(), elsewhere || looked_at(track)))
        });
        for (sid, track, wanted) in videos.collect::<Vec<_>>() {
            let Some(found) = self.get_mut(&sid).and_then(|p| p.track_mut(track.as_str())) else { continue };
            if !wanted {
                found.demand.idle_since.get_or_insert(now.at);
                continue;
            }
            found.demand.idle_since = None;
            if found.demand.told != Some(true) {
                self.tell_demand(&sid, &track, true);
            }
        }
    }

    /// Nobody has looked at some videos of this participant's for long.
    pub(super) fn demand_ended(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let is_over = |track: &&Track| track.demand_deadline().is_some_and(|at| now.at >= at);
        let over: Vec<_> = p.tracks.iter().filter(is_over).map(|track| track.sid.clone()).collect();
        for track in over {
            self.tell_demand(sid, &track, false);
        }
    }

    /// A client that resumed may have missed what it was told.
    pub(super) fn tell_demand_to(&mut self, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let told: Vec<_> = p.tracks.iter().filter_map(|t| Some((t.sid.clone(), t.demand.told?))).collect();
        for (track, wanted) in told {
            self.tell_demand(sid, &track, wanted);
        }
    }

    fn tell_demand(&mut self, sid: &ParticipantSid, track: &TrackSid, wanted: bool) {
        let Some(found) = self.get_mut(sid).and_then(|p| p.track_mut(track.as_str())) else { return };
        found.demand.told = Some(wanted);
        let codec = found.info.mime_type.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let every = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
        let qualities: Vec<_> =
            every.iter().map(|quality| SubscribedQuality { quality: *quality as i32, enabled: wanted }).collect();
        #[allow(deprecated)] // older clients read this field
        let update = proto::SubscribedQualityUpdate {
            track_sid: track.as_str().to_owned(),
            subscribed_qualities: qualities.clone(),
            subscribed_codecs: vec![SubscribedCodec { codec, qualities }],
        };
        self.tell(sid, Response::SubscribedQualityUpdate(update));
    }
}
