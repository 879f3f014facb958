//! A publisher's own clock, read from its sender reports, as our time.
//!
//! All tracks of a publisher share one mapping, so that the sender reports that we write for its audio and its video
//! agree with each other as its own did (RFC 3550 section 6.4.1). Without reports, arrival stands in.

use std::time::{Duration, Instant, SystemTime};

/// How fast the mapping gives way to a sender whose clock runs slow against ours: 200 µs a second covers 200 ppm,
/// twice what crystals drift.
const LEAK_PER_SECOND: Duration = Duration::from_micros(200);
/// A mapping that is this far off is not drift: the sender set its clock.
const RESET_AFTER: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct SenderClock {
    anchor: Option<Anchor>,
}

#[derive(Clone, Copy)]
struct Anchor {
    sender: SystemTime,
    ours: Instant,
    leaked_at: Instant,
}

impl SenderClock {
    /// Our time of what the sender captured at `sender`, given that it arrived now. Never after `arrived`.
    pub fn map(&mut self, sender: SystemTime, arrived: Instant) -> Instant {
        let fresh = Anchor { sender, ours: arrived, leaked_at: arrived };
        let Some(anchor) = &mut self.anchor else {
            self.anchor = Some(fresh);
            return arrived;
        };
        if let Some(seconds) = arrived.checked_duration_since(anchor.leaked_at).map(|d| d.as_secs()).filter(|s| *s > 0)
        {
            anchor.ours += LEAK_PER_SECOND * u32::try_from(seconds).unwrap_or(u32::MAX).min(1_000);
            anchor.leaked_at = arrived;
        }
        let mapped = match sender.duration_since(anchor.sender) {
            Ok(later) => anchor.ours.checked_add(later),
            Err(earlier) => anchor.ours.checked_sub(earlier.duration()),
        };
        match mapped {
            // The fastest packet yet: it defines the mapping from here on.
            Some(mapped) if mapped > arrived && mapped - arrived < RESET_AFTER => {
                anchor.ours = anchor.ours.checked_sub(mapped - arrived).unwrap_or(anchor.ours);
                arrived
            }
            Some(mapped) if mapped <= arrived && arrived - mapped < RESET_AFTER => mapped,
            _ => {
                self.anchor = Some(fresh);
                arrived
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_and_video_of_one_moment_map_to_one_moment_whatever_the_network_does() {
        let (sender, ours) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000), Instant::now());
        let ms = Duration::from_millis;
        let mut clock = SenderClock::default();
        clock.map(sender, ours + ms(40));
        // A faster packet moves the mapping; afterwards both media agree although video arrives later.
        clock.map(sender + ms(20), ours + ms(30));
        let audio = clock.map(sender + ms(100), ours + ms(120));
        let video = clock.map(sender + ms(100), ours + ms(180));
        assert_eq!(audio, video);
        assert_eq!(audio, ours + ms(110));
    }

    #[test]
    fn a_clock_that_jumps_starts_over() {
        let (sender, ours) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000), Instant::now());
        let mut clock = SenderClock::default();
        clock.map(sender, ours);
        let jumped = clock.map(sender + Duration::from_secs(3_600), ours + Duration::from_millis(20));
        assert_eq!(jumped, ours + Duration::from_millis(20));
    }
}
