//! When a failed attempt is made again: pauses that double, with jitter, and an end. Pure; time and chance are arguments.

use std::time::Duration;

/// Pause after the first attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause, also where the receiver asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Part of a pause that chance takes away, so that a receiver that comes back is not met by all rooms at once.
const JITTER: f64 = 0.5;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The receiver has it: any status from 200 to 299.
    Delivered,
    /// It does not want it, and will not want it next time.
    Refused { reason: String },
    /// It may want it later: no answer, a status of 500 and above, or 429. `after`: the pause that it asked for.
    Failed { reason: String, after: Option<Duration> },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Pause(Duration),
    Delivered,
    GivenUp { reason: String },
}

/// The attempts at one event.
pub(super) struct Retry {
    left: u32,
    pause: Duration,
}

impl Retry {
    pub fn new(attempts_max: u32) -> Self {
        Self { left: attempts_max, pause: PAUSE_FIRST }
    }

    /// What follows on an attempt. `chance` lies between 0 and 1.
    pub fn after(&mut self, attempt: Attempt, chance: f64) -> Step {
        self.left = self.left.saturating_sub(1);
        match attempt {
            Attempt::Delivered => Step::Delivered,
            Attempt::Refused { reason } => Step::GivenUp { reason },
            Attempt::Failed { reason, .. } if self.left == 0 => Step::GivenUp { reason },
            Attempt::Failed { after, .. } => {
                let pause = self.pause.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Step::Pause(pause.max(after.unwrap_or_default()).min(PAUSE_MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(after: Option<u64>) -> Attempt {
        Attempt::Failed { reason: "500".into(), after: after.map(Duration::from_secs) }
    }

    fn pauses(attempts_max: u32, chance: f64) -> Vec<u128> {
        let mut retry = Retry::new(attempts_max);
        let mut pauses = Vec::new();
        while let Step::Pause(pause) = retry.after(failed(None), chance) {
            pauses.push(pause.as_millis());
        }
        pauses
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end() {
        assert_eq!(pauses(6, 0.0), [500, 1000, 2000, 4000, 8000]);
        assert_eq!(pauses(6, 1.0), [250, 500, 1000, 2000, 4000]);
        assert_eq!(pauses(9, 0.0).last(), Some(&30_000));
        assert!(pauses(1, 0.0).is_empty());
    }

    #[test]
    fn a_pause_that_the_receiver_asks_for_is_kept_up_to_the_limit() {
        let mut retry = Retry::new(9);
        assert_eq!(retry.after(failed(Some(7)), 0.0), Step::Pause(Duration::from_secs(7)));
        assert_eq!(retry.after(failed(Some(86_400)), 0.0), Step::Pause(PAUSE_MAX));
        assert_eq!(retry.after(failed(Some(0)), 0.0), Step::Pause(Duration::from_secs(2)));
    }

    #[test]
    fn what_is_refused_is_not_tried_again() {
        let refused = Attempt::Refused { reason: "401".into() };
        assert_eq!(Retry::new(6).after(refused, 0.0), Step::GivenUp { reason: "401".into() });
        assert_eq!(Retry::new(1).after(Attempt::Delivered, 0.0), Step::Delivered);
    }
}
