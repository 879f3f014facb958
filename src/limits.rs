//! How much of something may come in a time: token buckets. Pure: time is an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Keys that are told apart at a time, some 6 MB; see [`Keyed`].
const KEYS_MAX: usize = 65_536;
/// How often buckets that are full again are looked for, while there are too many keys.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// So much at once, and so much a second after that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once, after a rest.
    pub burst: f64,
    /// A second, for good. 0: without limit.
    pub per_sec: f64,
}

impl Rate {
    pub const fn new(burst: f64, per_sec: f64) -> Self {
        Self { burst, per_sec }
    }

    /// As a configuration says it.
    pub fn of(burst: u32, per_sec: u32) -> Self {
        Self::new(f64::from(burst), f64::from(per_sec))
    }

    pub fn is_limited(&self) -> bool {
        self.per_sec > 0.0
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Below zero is what is owed.
    left: f64,
    filled: Instant,
}

impl Bucket {
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, filled: now }
    }

    fn fill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate.per_sec;
        self.left = (self.left + earned).min(self.rate.burst);
        self.filled = self.filled.max(now);
    }

    /// Takes this much if it is there.
    pub fn take(&mut self, now: Instant, cost: f64) -> bool {
        if !self.rate.is_limited() {
            return true;
        }
        self.fill(now);
        let affordable = self.left >= cost;
        if affordable {
            self.left -= cost;
        }
        affordable
    }

    /// Takes this much whether or not it is there; what the taker has to wait before it takes again.
    pub fn owe(&mut self, now: Instant, cost: f64) -> Duration {
        if !self.rate.is_limited() {
            return Duration::ZERO;
        }
        self.fill(now);
        self.left -= cost;
        self.until(0.0)
    }

    /// When this much will be there, seen from the last time that something was taken.
    fn until(&self, level: f64) -> Duration {
        Duration::try_from_secs_f64((level - self.left).max(0.0) / self.rate.per_sec).unwrap_or(Duration::MAX)
    }

    /// How much of the burst is there, 0 to 1.
    pub fn level(&self) -> f64 {
        (self.left / self.rate.burst).clamp(0.0, 1.0)
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left >= self.rate.burst
    }
}

/// A bucket for each key. A key whose bucket is full is forgotten when there are too many; where all of them are in use,
/// new keys share one bucket.
#[derive(Debug)]
pub struct Keyed<K> {
    rate: Rate,
    buckets: HashMap<K, Bucket>,
    others: Option<Bucket>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Keyed<K> {
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new(), others: None, swept: None }
    }

    /// Takes one for this key; the error says when to come again.
    pub fn take(&mut self, now: Instant, key: K) -> Result<(), Duration> {
        if !self.rate.is_limited() {
            return Ok(());
        }
        if self.buckets.len() >= KEYS_MAX && !self.buckets.contains_key(&key) {
            self.sweep(now);
        }
        let fresh = || Bucket::new(self.rate, now);
        let bucket = if self.buckets.len() < KEYS_MAX || self.buckets.contains_key(&key) {
            self.buckets.entry(key).or_insert_with(fresh)
        } else {
            self.others.get_or_insert_with(fresh)
        };
        if bucket.take(now, 1.0) { Ok(()) } else { Err(bucket.until(1.0)) }
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_then_so_much_a_second() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::new(10.0, 5.0), now);
        assert_eq!((0..20).filter(|_| bucket.take(now, 1.0)).count(), 10);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| bucket.take(later, 1.0)).count(), 5);
        assert_eq!(bucket.owe(later, 10.0), Duration::from_secs(2));
        assert!(!bucket.take(later + Duration::from_secs(1), 1.0));
        assert!(Bucket::new(Rate::new(0.0, 0.0), now).take(now, 1e9), "0 is without limit");
    }

    #[test]
    fn one_key_does_not_use_up_anothers() {
        let now = Instant::now();
        let mut limits = Keyed::new(Rate::new(2.0, 0.5));
        assert_eq!([1, 1, 1].map(|key| limits.take(now, key)), [Ok(()), Ok(()), Err(Duration::from_secs(2))]);
        assert_eq!(limits.take(now, 2), Ok(()));
        assert_eq!(limits.take(now + Duration::from_secs(2), 1), Ok(()), "as it was told");
    }

    #[test]
    fn keys_without_end_take_no_memory_without_end() {
        let now = Instant::now();
        let mut limits = Keyed::new(Rate::new(2.0, 1.0));
        let passed = (0..KEYS_MAX + 1_000).filter(|key| limits.take(now, *key).is_ok()).count();
        assert_eq!((limits.buckets.len(), passed), (KEYS_MAX, KEYS_MAX + 2), "late ones share a bucket");
        let later = now + Duration::from_secs(60);
        assert_eq!(limits.take(later, usize::MAX), Ok(()));
        assert_eq!(limits.buckets.len(), 1, "who has rested is forgotten");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(steps in prop::collection::vec((0u64..2_000, 0.0f64..5.0), 1..100)) {
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0.0);
            let mut bucket = Bucket::new(Rate::new(10.0, 4.0), now);
            for (ms, cost) in steps {
                now += Duration::from_millis(ms);
                if bucket.take(now, cost) {
                    taken += cost;
                }
                prop_assert!(taken <= 10.0 + 4.0 * (now - start).as_secs_f64() + 1e-6);
                prop_assert!((0.0..=1.0).contains(&bucket.level()));
            }
        }
    }
}
