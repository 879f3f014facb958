//! Whether a client is to try other paths: nothing comes from its media connection any more while its socket speaks. It
//! is asked to resume, by closing the socket, and restarts ICE with it. By itself a browser takes 15 s to give up a path
//! that worked.

use std::time::{Duration, Instant};

/// A client that says something this long after its last datagram runs, and should have sent more: its checks come every
/// 2.5 s. One whose machine stands still says nothing at all.
const AWAKE_AFTER: Duration = Duration::from_millis(2_500);
/// What was held up with the message that shows this, here or there, is let come in.
const GRACE: Duration = Duration::from_millis(500);
/// The time between one time of asking and the next, by how often it was asked; the last of these for all that follow.
const PAUSES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(60)];
/// After this long without asking it starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Silence {
    outage: Option<Outage>,
    /// When the client said something on its socket last.
    spoke: Option<Instant>,
    /// When it was asked last, and how often.
    asked: Option<(Instant, usize)>,
}

struct Outage {
    since: Instant,
    /// When it was known that the client runs.
    awake: Option<Instant>,
    /// Or resumed by itself.
    asked: bool,
}

impl Silence {
    /// Nothing has come since then.
    pub fn begin(&mut self, now: Instant, since: Instant) {
        let awake = self.spoke.is_some_and(|spoke| spoke >= since + AWAKE_AFTER);
        self.outage = Some(Outage { since, awake: awake.then_some(now), asked: false });
    }

    /// Something came.
    pub fn end(&mut self) {
        self.outage = None;
    }

    /// The client said something on its socket.
    pub fn handle_message(&mut self, now: Instant) {
        self.spoke = Some(now);
        if let Some(outage) = self.outage.as_mut().filter(|outage| now >= outage.since + AWAKE_AFTER) {
            outage.awake.get_or_insert(now);
        }
    }

    /// It resumed, asked or by itself: that need not be asked of it in this outage any more.
    pub fn handle_resume(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.asked = true;
        }
    }

    /// Whether it has been asked in the outage that lasts, or need not be.
    pub fn was_asked(&self) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.asked)
    }

    /// When to ask.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let awake = self.outage.as_ref().filter(|outage| !outage.asked)?.awake?;
        let rested = self.asked.map(|(at, times)| at + PAUSES[times.clamp(1, PAUSES.len()) - 1]);
        Some(rested.map_or(awake + GRACE, |rested| rested.max(awake + GRACE)))
    }

    /// Whether to ask now: once in an outage.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        if let Some(outage) = &mut self.outage {
            outage.asked = true;
        }
        let recent = self.asked.filter(|(at, _)| now < *at + FORGOTTEN_AFTER);
        self.asked = Some((now, recent.map_or(1, |(_, times)| times + 1)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_runs_is_asked_and_how_soon_hangs_on_when_it_speaks() {
        // Its last datagram is at 10 s, and 5 s later it counts as silent. When it speaks, and when it is asked; ms.
        for (spoke, asked) in [
            (vec![], None),
            (vec![9_000], None),
            // It may have stood still right after this.
            (vec![12_400], None),
            (vec![13_000], Some(15_500)),
            (vec![12_400, 17_400], Some(17_900)),
            (vec![17_400, 17_600, 17_800], Some(17_900)),
            (vec![9_000, 14_000, 19_000], Some(15_500)),
        ] {
            let (start, mut silence) = (Instant::now(), Silence::default());
            let at = |ms| start + Duration::from_millis(ms);
            let mut seen = None;
            for ms in (0..40_000).step_by(100) {
                if ms == 15_000 {
                    silence.begin(at(ms), at(10_000));
                }
                if spoke.contains(&ms) {
                    silence.handle_message(at(ms));
                }
                if silence.handle_timeout(at(ms)) {
                    assert_eq!(seen.replace(ms), None, "once");
                }
            }
            assert_eq!(seen, asked, "spoke at {spoke:?}");
        }
    }

    #[test]
    fn a_machine_that_stood_still_is_not_asked_when_it_wakes_up() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let at = |ms| start + Duration::from_millis(ms);
        silence.begin(at(5_000), at(0));
        // Its socket is quicker than its media.
        silence.handle_message(at(9_000));
        assert!(!silence.handle_timeout(at(9_300)));
        silence.end();
        assert_eq!(silence.poll_timeout(), None);
        assert!(!silence.handle_timeout(at(60_000)));
    }

    #[test]
    fn who_falls_silent_again_and_again_is_asked_ever_less_often_and_after_some_time_as_at_first() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut asked = Vec::new();
        for second in 0..1_000u64 {
            let now = start + Duration::from_secs(second);
            silence.handle_message(now);
            // Silences of 8 s, each 10 s after the one before, but for a long time without.
            match second % 10 {
                5 if !(300..700).contains(&second) => silence.begin(now, now - Duration::from_secs(5)),
                8 => silence.end(),
                _ => {}
            }
            if silence.handle_timeout(now) {
                asked.push(second);
            }
        }
        assert_eq!(asked[..4], [6, 26, 86, 146], "{asked:?}");
        let again = asked.iter().position(|second| *second >= 700).unwrap();
        assert_eq!(asked[again..again + 3], [706, 726, 786], "{asked:?}");
    }
}
