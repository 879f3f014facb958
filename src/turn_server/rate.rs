//! A bound on bytes per second, with a burst of a quarter of a second.

use std::time::Instant;

/// Bursts of key frames and pacing are shorter than this, seconds.
const BURST_SECS: f64 = 0.25;

#[derive(Debug)]
pub struct Rate {
    per_sec: f64,
    left: f64,
    filled: Instant,
}

impl Rate {
    pub fn new(now: Instant, bytes_per_sec: u64) -> Self {
        let per_sec = bytes_per_sec as f64;
        Self { per_sec, left: per_sec * BURST_SECS, filled: now }
    }

    /// Whether so many bytes more may pass now.
    pub fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let earned = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_sec;
        self.left = (self.left + earned).min(self.per_sec * BURST_SECS);
        self.filled = self.filled.max(now);
        let enough = self.left >= bytes as f64;
        if enough {
            self.left -= bytes as f64;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_holds_what_it_may_and_no_more() {
        let start = Instant::now();
        let mut rate = Rate::new(start, 100_000);
        let passed = (0..2000).filter(|ms| rate.take(start + Duration::from_millis(*ms), 200)).count() * 200;
        assert!((200_000..=225_400).contains(&passed), "{passed} bytes in two seconds");
        assert!(!rate.take(start + Duration::from_secs(60), 30_000), "time does not pile up beyond the burst");
        assert!(rate.take(start + Duration::from_secs(60), 24_000));
    }
}
