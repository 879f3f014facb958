//! What one receiver misses, and what is done about it before it asks. Pure.

use std::time::{Duration, Instant};

use super::redundancy::DEPTH_MAX;

/// Losses come and go: what was seen holds for this long. Receivers report each second, or each five where they get sound
/// alone.
const HOLDS: Duration = Duration::from_secs(30);
/// Before the first report nobody knows.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Shares of the packets that are missed.
const SEEN: f32 = 0.02;
const HIGH: f32 = 0.12;
/// Packets of which a share is worth to be told.
const COUNTED_MIN: u32 = 50;

#[derive(Default)]
pub struct Losses {
    /// How many packets before it a packet of sound bears.
    depth: Option<(usize, Instant)>,
    /// Packets since the last look, and those among them that were asked for again.
    sent: u32,
    asked: u32,
}

impl Losses {
    /// The receiver can be reached, and has told nothing yet.
    pub fn handle_connected(&mut self, now: Instant) {
        self.depth = Some((2, now + UNKNOWN_FOR));
    }

    pub fn handle_sent(&mut self, again: bool) {
        self.sent += 1;
        self.asked += u32::from(again);
    }

    /// Time for a look. `reported` is which share the receiver says that it missed; some count only what was not mended.
    pub fn handle_report(&mut self, now: Instant, reported: Option<f32>) {
        let mut share = reported.unwrap_or(0.0);
        if self.sent >= COUNTED_MIN {
            share = share.max(self.asked as f32 / self.sent as f32);
            (self.sent, self.asked) = (0, 0);
        }
        if share < SEEN {
            return;
        }
        let depth = if share < HIGH { 2 } else { DEPTH_MAX };
        if depth >= self.depth(now) {
            self.depth = Some((depth, now + HOLDS));
        }
    }

    /// How many packets before it a packet of sound is to bear: one costs little and mends single losses, which are most;
    /// more where much is lost.
    pub fn depth(&self, now: Instant) -> usize {
        self.depth.filter(|(_, until)| now < *until).map_or(1, |(depth, _)| depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_misses_much_gets_more_for_a_while() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        losses.handle_connected(start);
        assert_eq!([losses.depth(start), losses.depth(at(10))], [2, 1]);
        losses.handle_report(at(10), Some(0.01));
        assert_eq!(losses.depth(at(10)), 1);
        losses.handle_report(at(10), Some(0.25));
        losses.handle_report(at(15), Some(0.05));
        assert_eq!([losses.depth(at(15)), losses.depth(at(39)), losses.depth(at(40))], [3, 3, 1]);
        losses.handle_report(at(50), Some(0.05));
        assert_eq!([losses.depth(at(50)), losses.depth(at(80))], [2, 1]);
    }

    #[test]
    fn what_is_asked_for_again_counts_where_reports_say_nothing() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        (0..100).for_each(|n| losses.handle_sent(n % 10 == 0));
        losses.handle_report(now, None);
        assert_eq!(losses.depth(now), 2);
    }
}
