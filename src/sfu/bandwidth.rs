//! A receiver's bandwidth and what is made of it: how much of each video it gets. Sound comes first and is never held back.

use std::time::{Duration, Instant};

use super::{
    Context, EventKind, MediaKind,
    allocator::{Claim, allocate},
    participant::ParticipantKey,
    room::Room,
    track::TrackKey,
};
use crate::id::ParticipantSid;

/// What is sent is looked at anew at least this often, since encoders change what they send.
const INTERVAL: Duration = Duration::from_secs(1);
/// And at most this often: estimates come with each report of the receiver.
const SPACING: Duration = Duration::from_millis(100);
/// What headers, retransmissions and control take of the estimate, percent.
const OVERHEAD_PERCENT: u64 = 10;
/// Nobody's network carries more; what clients report is believed up to here.
const MOST_BPS: u64 = 10_000_000_000;
/// From this much too much on, percent of what the network carries, what is sent ends at once.
const CUT_AT_PERCENT: u64 = 125;
/// How far above all that there is to send the estimate is driven at most, percent: more would be padding for nothing.
const HEADROOM_PERCENT: u64 = 120;

/// What one receiver's network carries.
#[derive(Default)]
pub struct Bandwidth {
    estimate: Option<u64>,
    cap: Option<u64>,
    /// What was aimed at last.
    desired: u64,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Bandwidth {
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn bps(&self) -> Option<u64> {
        [self.estimate, self.cap].into_iter().flatten().min()
    }

    fn handle_change(&mut self, now: Instant) {
        let at = self.last.map_or(now, |last| now.max(last + SPACING));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// What a receiver gets: sound in bits per second, its videos, and whether there are some of which nothing is known yet.
#[derive(Default)]
struct Received {
    sound: u64,
    videos: Vec<Video>,
    unknown: bool,
}

/// A video that the receiver gets.
struct Video {
    key: TrackKey,
    claim: Claim,
}

impl Room {
    /// The receiver's network was measured.
    pub(super) fn bandwidth_changed(&mut self, now: Instant, key: ParticipantKey, bps: Option<u64>, cx: &mut Context) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.bandwidth.estimate = bps.map(|bps| bps.min(MOST_BPS));
        participant.bandwidth.handle_change(now);
        self.rearm(now, key, cx);
    }

    /// Behaves as if the network carried no more than this.
    pub fn cap_bandwidth(&mut self, now: Instant, sid: &ParticipantSid, bps: Option<u64>, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.bandwidth.cap = bps.map(|bps| bps.min(MOST_BPS));
        participant.bandwidth.handle_change(now);
        self.rearm(now, key, cx);
    }

    pub(super) fn allocate_if_due(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if participant.bandwidth.due.take_if(|due| now >= *due).is_none() {
            return;
        }
        participant.bandwidth.last = Some(now);
        let bps = participant.bandwidth.bps();
        let Received { sound, videos, unknown } = self.received(now, key);
        if bps.is_some()
            && (unknown || !videos.is_empty())
            && let Some(participant) = self.participants.get_mut(key)
        {
            participant.bandwidth.due = Some(now + INTERVAL);
        }
        if videos.is_empty() {
            // Nothing is held back, so nothing is to be filled up.
            if bps.is_some() && !unknown {
                let desired = self.participants.get(key).map_or(sound, |it| it.bandwidth.desired);
                self.aim(now, key, (0, desired), cx);
            }
            return;
        }
        let wanted: u64 = videos.iter().filter_map(|it| it.claim.steps.last()).map(|step| step.bps).sum();
        let claims: Vec<Claim> = videos.iter().map(|video| video.claim.clone()).collect();
        let usable = bps.map(|bps| bps.saturating_sub(bps * OVERHEAD_PERCENT / 100).saturating_sub(sound));
        let sent: u64 = claims.iter().filter_map(|claim| Some(claim.steps[claim.current?].bps)).sum();
        let cut = usable.is_some_and(|usable| sent > usable * CUT_AT_PERCENT / 100);
        let given = match usable {
            Some(usable) => allocate(usable, &claims),
            None => claims.iter().map(|claim| claim.steps.len().checked_sub(1)).collect(),
        };
        for (video, given) in videos.iter().zip(&given) {
            self.limit(now, key, video, *given, (bps.is_some(), cut), cx);
        }
        let desired = (wanted + sound) * HEADROOM_PERCENT / (100 - OVERHEAD_PERCENT);
        if bps.is_some() {
            // Where something is held back, padding lets the estimate grow as far as the cheapest thing more needs.
            let more = |(given, claim): (&Option<usize>, &Claim)| {
                let has = given.map_or(0, |step| claim.steps[step].bps);
                let next = claim.steps.get(given.map_or(0, |step| step + 1))?;
                Some(next.bps.saturating_sub(has))
            };
            let next = given.iter().zip(&claims).filter_map(more).min();
            let sent: u64 =
                given.iter().zip(&claims).filter_map(|(given, claim)| Some(claim.steps[(*given)?].bps)).sum();
            let minimum = next.map_or(0, |next| (sent + sound + next) * HEADROOM_PERCENT / (100 - OVERHEAD_PERCENT));
            self.aim(now, key, (minimum.min(desired), desired), cx);
        }
    }

    /// A receiver gets a video from now on, or another part of one.
    pub(super) fn video_attached(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.bandwidth.handle_change(now);
            self.rearm(now, key, cx);
        }
    }

    fn aim(&mut self, now: Instant, key: ParticipantKey, (minimum, desired): (u64, u64), cx: &mut Context) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.bandwidth.desired = desired;
        let leg = participant.receiving();
        self.drive(now, key, leg, cx, |transport, _| transport.aim(now, minimum, desired));
    }

    fn received(&mut self, now: Instant, key: ParticipantKey) -> Received {
        let mut received = Received::default();
        let Received { sound, videos, unknown } = &mut received;
        let Some(participant) = self.participants.get(key) else { return received };
        for (track_key, track) in self.tracks.iter() {
            let Some(subscription) = track.subscriptions.iter().find(|it| it.subscriber == key) else { continue };
            let view = subscription.view();
            if view.paused || track.muted {
                continue;
            }
            if track.kind == MediaKind::Audio {
                *sound += track.encodings.bps(now);
                continue;
            }
            let steps =
                track.encodings.steps(now, view, |params| participant.takes(subscription.outlet.mid, params).is_some());
            // Nothing is known of it yet: let it come.
            if steps.is_empty() {
                *unknown = true;
                continue;
            }
            let priority = match (track.screen, self.speakers.is_active(track.owner)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            let current = subscription.limit().map(|(layer, temporal)| {
                steps.iter().rposition(|step| step.layer <= layer && (step.temporal <= temporal)).unwrap_or(0)
            });
            videos.push(Video { key: track_key, claim: Claim { priority, steps, current } });
        }
        received
    }

    fn limit(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        video: &Video,
        given: Option<usize>,
        (limited, cut): (bool, bool),
        cx: &mut Context,
    ) {
        let Some(track) = self.tracks.get_mut(video.key) else { return };
        let sid = track.sid.clone();
        let Some(subscription) = track.subscription_mut(key) else { return };
        let steps = &video.claim.steps;
        let limit = match given {
            Some(step) if limited && step + 1 < steps.len() => Some((steps[step].layer, steps[step].temporal)),
            Some(_) => Some((u8::MAX, u8::MAX)),
            None => None,
        };
        let before = subscription.limit();
        if before == limit {
            return;
        }
        let goes_on = subscription.set_limit(limit, cut);
        if before.is_none() != limit.is_none() {
            self.emit(key, EventKind::StreamState { track: sid, paused: limit.is_none() }, cx);
        }
        if goes_on {
            self.subscriber_needs_keyframe(now, video.key, key, cx);
        }
    }
}
