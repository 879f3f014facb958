//! What a publisher sends, and when the next of it is due. Pure.

use std::time::{Duration, Instant};

use crate::stamp::{STAMP_BYTES, VIDEO_HEAD_BYTES};

/// Packets for a time longer than this are not made up for: the thread stood still, and a burst would measure that.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// One encoding of a video track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub rid: Option<&'static str>,
    pub width: u16,
    /// Its packets are the track's divided by this.
    shrink: usize,
}

const SINGLE: [Layer; 1] = [Layer { rid: None, width: 1280, shrink: 1 }];
const SIMULCAST: [Layer; 3] = [
    Layer { rid: Some("q"), width: 320, shrink: 4 },
    Layer { rid: Some("h"), width: 640, shrink: 2 },
    Layer { rid: Some("f"), width: 1280, shrink: 1 },
];

/// What every publisher sends.
#[derive(Clone, Debug)]
pub struct Media {
    /// Packets a second; 0: no video. With simulcast, of each layer.
    pub video_pps: f64,
    /// Bytes of a payload.
    pub video_bytes: usize,
    /// Packets of a frame, sent at once.
    pub burst: usize,
    pub audio_pps: f64,
    pub audio_bytes: usize,
    pub simulcast: bool,
}

impl Media {
    pub fn layers(&self) -> &'static [Layer] {
        if self.simulcast { &SIMULCAST } else { &SINGLE }
    }

    pub fn bytes_of(&self, layer: &Layer) -> usize {
        (self.video_bytes / layer.shrink).max(STAMP_BYTES + VIDEO_HEAD_BYTES)
    }

    /// Packets that one receiver of this publisher gets a second.
    pub fn received_pps(&self) -> f64 {
        self.video_pps + self.audio_pps
    }

    pub fn tracks(&self) -> usize {
        usize::from(self.video_pps > 0.0) + usize::from(self.audio_pps > 0.0)
    }
}

/// A clock that ticks evenly, whenever it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// `phase`, 0 to 1, keeps publishers from all sending at the same moment.
    pub fn new(now: Instant, per_sec: f64, phase: f64) -> Self {
        let interval = interval(per_sec);
        Self { interval, next: now + interval.mul_f64(phase) }
    }

    pub fn set_rate(&mut self, per_sec: f64) {
        self.interval = interval(per_sec);
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is time; then the next time is set.
    pub fn take(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next += self.interval;
        if self.next + BEHIND_MAX < now {
            self.next = now;
        }
        true
    }
}

fn interval(per_sec: f64) -> Duration {
    Duration::from_secs_f64(1.0 / per_sec.clamp(0.001, 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_whenever_one_looks() {
        let now = Instant::now();
        let mut pace = Pace::new(now, 100.0, 0.5);
        let mut sent = 0;
        for ms in (0..1_000).step_by(7) {
            while pace.take(now + Duration::from_millis(ms)) {
                sent += 1;
            }
        }
        assert_eq!(sent, 99);
    }

    #[test]
    fn what_a_long_stop_left_out_is_not_made_up_for() {
        let now = Instant::now();
        let mut pace = Pace::new(now, 1_000.0, 0.0);
        let later = now + Duration::from_secs(5);
        let sent = std::iter::from_fn(|| pace.take(later).then_some(())).count();
        assert!(sent <= 102, "{sent}");
    }

    #[test]
    fn the_smallest_layer_still_has_room_for_its_stamp() {
        let media =
            Media { video_pps: 30.0, video_bytes: 60, burst: 1, audio_pps: 0.0, audio_bytes: 0, simulcast: true };
        assert!(media.layers().iter().all(|layer| media.bytes_of(layer) >= STAMP_BYTES + VIDEO_HEAD_BYTES));
        assert_eq!(media.tracks(), 1);
    }
}
