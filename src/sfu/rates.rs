//! What a stream takes: bits per second of each of its layers, measured. Pure.

use std::time::{Duration, Instant};

/// Over this long: short enough to see an encoder step down, long enough to hold keyframes and pauses.
const WINDOW: Duration = Duration::from_millis(500);
/// How much of the last window's figure stays in the next: of eight parts.
const KEPT_OF_8: u64 = 4;
pub const SPATIAL_MAX: usize = 4;
pub const TEMPORAL_MAX: usize = 4;

#[derive(Default)]
pub struct Rates {
    since: Option<Instant>,
    bytes: [[u32; TEMPORAL_MAX]; SPATIAL_MAX],
    bps: [[u64; TEMPORAL_MAX]; SPATIAL_MAX],
}

impl Rates {
    /// A packet of these layers came.
    pub fn add(&mut self, now: Instant, spatial: u8, temporal: u8, bytes: usize) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= WINDOW {
            self.roll(now, elapsed);
        }
        let spatial = usize::from(spatial).min(SPATIAL_MAX - 1);
        let temporal = usize::from(temporal).min(TEMPORAL_MAX - 1);
        let sum = &mut self.bytes[spatial][temporal];
        *sum = sum.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn roll(&mut self, now: Instant, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        // After a silence the old figure says nothing any more.
        let kept = if elapsed > WINDOW * 4 { 0 } else { KEPT_OF_8 };
        for (bytes, bps) in self.bytes.iter_mut().flatten().zip(self.bps.iter_mut().flatten()) {
            let measured = u64::from(std::mem::take(bytes)) * 8_000_000 / micros;
            *bps = if *bps == 0 { measured } else { (*bps * kept + measured * (8 - kept)) / 8 };
        }
        self.since = Some(now);
    }

    /// The highest spatial layer that was seen.
    pub fn spatial_max(&self) -> usize {
        (0..SPATIAL_MAX).rev().find(|at| self.bps[*at].iter().any(|bps| *bps > 0)).unwrap_or(0)
    }

    pub fn temporal_max(&self) -> usize {
        (0..TEMPORAL_MAX).rev().find(|at| self.bps.iter().any(|layer| layer[*at] > 0)).unwrap_or(0)
    }

    /// What the layers up to these take together, bits per second of payload; 0 while nothing is known.
    pub fn up_to(&self, spatial: usize, temporal: usize) -> u64 {
        self.bps.iter().take(spatial + 1).flat_map(|layer| layer.iter().take(temporal + 1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_measured_apart_and_summed() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for n in 0..150u64 {
            let now = start + Duration::from_millis(n * 10);
            rates.add(now, 0, 0, 125);
            rates.add(now, 1, 1, 250);
        }
        let near = |bps: u64, wanted: u64| assert!(bps.abs_diff(wanted) < wanted / 20, "{bps} for {wanted}");
        near(rates.up_to(0, 0), 100_000);
        near(rates.up_to(0, 3), 100_000);
        near(rates.up_to(1, 1), 300_000);
        assert_eq!((rates.spatial_max(), rates.temporal_max()), (1, 1));
        // A layer that stopped is forgotten.
        for n in 0..500u64 {
            rates.add(start + Duration::from_millis(1_500 + n * 10), 0, 0, 125);
        }
        near(rates.up_to(3, 3), 100_000);
    }
}
