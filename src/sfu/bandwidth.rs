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
/// From this loss on, the network is taken to be full: radio links lose up to a tenth without being so.
const LOSS_HEAVY: f32 = 0.15;
const LOSS_LIGHT: f32 = 0.05;
/// What of that which arrives is used then, and how much more is tried with each second that loses little.
const CARRIED_PERCENT: u64 = 90;
const RELIEF_PERCENT: u64 = 130;
const LEAST_BPS: u64 = 50_000;
/// While some is lost, this much more: a radio link that always loses a little must not be held down for ever.
const SLOW_RELIEF_PERCENT: u64 = 105;
/// Fewer bytes in a second than this say nothing: two packets of a voice may be a fifth of it.
const SAMPLE_BYTES: u64 = 25_000;
/// Where nearly all is lost the path is gone, and nothing is known of what it carried.
const LOSS_OF_PATH: f32 = 0.9;
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
    losses: Losses,
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
        [self.estimate, self.cap, self.losses.bps].into_iter().flatten().min()
    }

    fn handle_change(&mut self, now: Instant) {
        let at = self.last.map_or(now, |last| now.max(last + SPACING));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// What losses say about the network. An estimator that listens to delays is slow where a short queue overflows: its delays
/// stay the same while half of all is lost. What arrives is then what the network carries.
#[derive(Default)]
struct Losses {
    counted: Option<(Instant, u64)>,
    bps: Option<u64>,
}

impl Losses {
    /// Returns whether it says something else than before.
    fn handle(&mut self, now: Instant, bytes: u64, loss: f32, estimate: Option<u64>) -> bool {
        let Some((before, counted)) = self.counted.replace((now, bytes)) else { return false };
        let was = self.bps;
        // Without an estimate nobody would lift what is held down here.
        let Some(estimate) = estimate else {
            self.bps = None;
            return was.is_some();
        };
        let micros = now.saturating_duration_since(before).as_micros().max(1) as u64;
        let bytes = bytes.saturating_sub(counted);
        let sent = bytes.saturating_mul(8_000_000) / micros;
        if loss >= LOSS_HEAVY {
            if bytes >= SAMPLE_BYTES && loss < LOSS_OF_PATH {
                let carried = (sent as f32 * (1.0 - loss)) as u64 * CARRIED_PERCENT / 100;
                self.bps = Some(was.map_or(carried, |was| was.min(carried)).max(LEAST_BPS));
            }
        } else {
            let percent = if loss < LOSS_LIGHT { RELIEF_PERCENT } else { SLOW_RELIEF_PERCENT };
            let more = was.map(|was| was.saturating_mul(percent) / 100);
            self.bps = more.filter(|more| *more < estimate);
        }
        self.bps != was
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

    /// What was sent, and how much of it was lost.
    pub(super) fn losses_counted(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        bytes: u64,
        loss: f32,
        cx: &mut Context,
    ) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let bandwidth = &mut participant.bandwidth;
        if bandwidth.losses.handle(now, bytes, loss, bandwidth.estimate) {
            bandwidth.handle_change(now);
            self.rearm(now, key, cx);
        }
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
        self.drive(now, key, leg, cx, |transport, sink| transport.aim(minimum, desired, sink));
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

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATE: Option<u64> = Some(2_000_000);

    /// Seconds in which so many bytes are sent and so much of them is lost.
    fn tell(losses: &mut Losses, seconds: &[(u64, f32)], estimate: Option<u64>) -> Option<u64> {
        let mut at = Instant::now();
        let mut total = 0;
        losses.handle(at, total, 0.0, estimate);
        for (bytes, loss) in seconds {
            at += Duration::from_secs(1);
            total += bytes;
            losses.handle(at, total, *loss, estimate);
        }
        losses.bps
    }

    #[test]
    fn heavy_losses_say_what_the_network_carries_and_quiet_seconds_lift_it() {
        let mut losses = Losses::default();
        assert_eq!(tell(&mut losses, &[(200_000, 0.5)], ESTIMATE), Some(720_000));
        assert!(tell(&mut losses, &[(80_000, 0.1); 3], ESTIMATE).unwrap() > 800_000, "some loss is no reason to stay");
        assert_eq!(tell(&mut losses, &[(80_000, 0.0); 6], ESTIMATE), None);
    }

    #[test]
    fn two_packets_of_a_voice_and_a_path_that_is_gone_say_nothing() {
        assert_eq!(tell(&mut Losses::default(), &[(6_000, 0.3); 5], ESTIMATE), None);
        assert_eq!(tell(&mut Losses::default(), &[(200_000, 1.0); 3], ESTIMATE), None);
    }

    #[test]
    fn without_an_estimate_losses_hold_nothing_down() {
        let mut losses = Losses::default();
        assert_eq!(tell(&mut losses, &[(200_000, 0.5)], None), None);
        tell(&mut losses, &[(200_000, 0.5)], ESTIMATE);
        assert_eq!(tell(&mut losses, &[(200_000, 0.0); 500], None), None);
    }
}
