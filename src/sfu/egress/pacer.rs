//! How much may leave now: a bucket that fills at the pacing rate. Pure.

use std::time::{Duration, Instant};

/// As much as this much time brings may leave at once: the grain of our timers, and a network of any kind takes it.
const BURST: Duration = Duration::from_millis(5);
const BURST_BITS_MIN: f64 = 2.0 * 8.0 * 1_300.0;
/// What waits becomes less at least at this pace, whatever the rate says: late it is of no use to a conversation.
const DRAIN: Duration = Duration::from_millis(250);
/// How soon more may leave, at the earliest: packets leave in groups, one wake-up for each.
const GRAIN: Duration = Duration::from_millis(2);

pub struct Pacer {
    /// Bits per second.
    rate: f64,
    bits: f64,
    at: Instant,
}

impl Pacer {
    pub fn new(now: Instant) -> Self {
        Self { rate: 0.0, bits: BURST_BITS_MIN, at: now }
    }

    /// Time passes; `waiting` bytes want to leave.
    pub fn handle_time(&mut self, now: Instant, rate_bps: u64, waiting: usize) {
        self.rate = (rate_bps as f64).max(waiting as f64 * 8.0 / DRAIN.as_secs_f64());
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let most = (self.rate * BURST.as_secs_f64()).max(BURST_BITS_MIN);
        self.bits = (self.bits + self.rate * passed).min(most);
        self.at = self.at.max(now);
    }

    /// Whether something that may wait may leave.
    pub fn is_open(&self) -> bool {
        self.bits > 0.0
    }

    /// Something left, whether it might have waited or not.
    pub fn handle_sent(&mut self, bytes: usize) {
        // Sound is never held up, but video pays for it, up to a point.
        self.bits = (self.bits - bytes as f64 * 8.0).max(-self.rate.max(100_000.0));
    }

    /// When it opens.
    pub fn opens_at(&self) -> Instant {
        let wait = if self.rate > 0.0 { (-self.bits).max(0.0) / self.rate } else { 0.0 };
        self.at + Duration::from_secs_f64(wait.min(1.0)).max(GRAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_keeps_to_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(1) {
            pacer.handle_time(now, 1_000_000, 10_000);
            while pacer.is_open() {
                pacer.handle_sent(1_000);
                sent += 1_000;
            }
            now = pacer.opens_at();
        }
        assert!((120_000..135_000).contains(&sent), "{sent} bytes of 125,000");
    }

    #[test]
    fn what_waits_too_long_leaves_faster() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let (mut now, mut waiting) = (start, 200_000);
        while waiting > 0 && now < start + Duration::from_secs(5) {
            pacer.handle_time(now, 100_000, waiting);
            while pacer.is_open() && waiting > 0 {
                pacer.handle_sent(1_000);
                waiting -= 1_000;
            }
            now = pacer.opens_at();
        }
        let took = now - start;
        assert!(took < Duration::from_millis(1_500), "{took:?} for what the rate takes 16 s");
    }
}
