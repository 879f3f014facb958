//! Whether anything still comes from a client whose media connection stood. Its checks are the rhythm of that: browsers
//! differ, and each is silent only when two of its own checks are missing, and all else with them.

use std::time::{Duration, Instant};

/// Clients check the path that they use this often or, for Firefox and others that keep to RFC 7675 section 5.1, every
/// 4 to 6 s. Nobody is expected to be quicker; and the slowest is expected of everybody at first.
const QUICKEST: Duration = Duration::from_millis(2_500);
const SLOWEST: Duration = Duration::from_secs(6);
/// A long time between two checks is forgotten over this.
const MEMORY: Duration = Duration::from_secs(10);

pub struct Silence {
    heard: Option<Instant>,
    checked: Option<Instant>,
    /// The longest time between checks of late.
    rhythm: Duration,
    silent: bool,
}

impl Default for Silence {
    fn default() -> Self {
        Self { heard: None, checked: None, rhythm: SLOWEST, silent: false }
    }
}

impl Silence {
    /// A check of the client was answered.
    pub fn handle_check(&mut self, now: Instant) {
        if let Some(last) = self.checked.replace(now) {
            let gap = now.saturating_duration_since(last);
            let kept = (1.0 - gap.as_secs_f64() / MEMORY.as_secs_f64()).max(0.0);
            self.rhythm = gap.max(self.rhythm.mul_f64(kept));
        }
    }

    /// Something came. Returns whether that ends a silence.
    pub fn handle_heard(&mut self, now: Instant) -> bool {
        self.heard = Some(now);
        std::mem::take(&mut self.silent)
    }

    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// When the client counts as silent, if nothing comes until then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = 2 * self.rhythm.max(QUICKEST);
        self.heard.filter(|_| !self.silent).map(|heard| heard + patience)
    }

    /// Since when it is silent, where it was not so before.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.poll_timeout().filter(|at| *at <= now)?;
        self.silent = true;
        self.heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A client that checks this often, for this long, and then is gone. After what time that is noticed.
    fn noticed_after(every: Duration, lasting: Duration) -> Duration {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut now = start;
        // Checks follow each other closely while a connection comes up.
        for _ in 0..10 {
            silence.handle_check(now);
            silence.handle_heard(now);
            now += MS(50);
        }
        while now < start + lasting {
            assert_eq!(silence.handle_timeout(now), None, "it is there, {:?} after the start", now - start);
            silence.handle_check(now);
            assert!(!silence.handle_heard(now));
            now += every;
        }
        silence.poll_timeout().unwrap() - (now - every)
    }

    #[test]
    fn two_checks_must_be_missing_whatever_the_rhythm_of_the_client() {
        for (every_ms, lasting_s, least_ms, most_ms) in [
            // Chromium on a path that works: every 2.5 s.
            (2_500, 60, 5_000, 5_000),
            (2_500, 15, 5_000, 5_000),
            // Early in a call nothing is known of it.
            (2_500, 3, 8_000, 12_000),
            (100, 60, 5_000, 5_000),
            // RFC 7675: up to 6 s.
            (5_000, 60, 10_000, 10_000),
            (6_000, 60, 12_000, 12_000),
        ] {
            let noticed = noticed_after(MS(every_ms), Duration::from_secs(lasting_s));
            assert!((MS(least_ms)..=MS(most_ms)).contains(&noticed), "{every_ms} ms: {noticed:?}");
        }
    }

    #[test]
    fn a_silence_is_told_once_and_ends_with_the_first_datagram() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let at = |ms| start + MS(ms);
        assert_eq!(silence.poll_timeout(), None, "nothing is expected of who has never been heard");
        silence.handle_heard(at(0));
        assert_eq!(silence.handle_timeout(at(11_999)), None);
        assert_eq!(silence.handle_timeout(at(12_000)), Some(at(0)));
        assert!(silence.is_silent());
        assert_eq!((silence.handle_timeout(at(20_000)), silence.poll_timeout()), (None, None));
        assert!(silence.handle_heard(at(21_000)));
        assert!(!silence.handle_heard(at(21_001)));
        assert!(!silence.is_silent());
    }

    #[test]
    fn who_paused_once_is_given_longer_and_after_some_time_no_longer() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut now = start;
        let mut check = |silence: &mut Silence, ms| {
            now += MS(ms);
            silence.handle_check(now);
            silence.handle_heard(now);
            silence.poll_timeout().unwrap() - now
        };
        for _ in 0..20 {
            check(&mut silence, 2_500);
        }
        assert_eq!(check(&mut silence, 8_000), MS(16_000));
        let patience: Vec<_> = (0..5).map(|_| check(&mut silence, 2_500)).collect();
        assert_eq!((patience[0], patience[4]), (MS(12_000), MS(5_000)));
    }
}
