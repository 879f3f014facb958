//! What is lost on the way, and whether that is because too much is sent. Radio links lose a share of whatever they get; a
//! queue that is too short to be seen loses what is too much. So what is sent is lowered once: if ever the same share is
//! lost then, the link is of the first kind, and the share belongs to it.

/// Microseconds, all of them. A look at losses takes so long and so many packets, or longer and fewer.
const LOOK: u64 = 300_000;
const LOOK_PACKETS: u32 = 60;
const LOOK_LONG: u64 = 1_000_000;
const LOOK_LONG_PACKETS: u32 = 20;
/// Slower than this there is nothing to be lowered, and two packets of a voice would be a tenth.
const JUDGED_MIN_BPS: u64 = 100_000;
/// Nearly all is lost: the path is gone, and nothing is known of what it carried.
const GONE: f64 = 0.9;
/// So much more than the link's own share says that too much was sent, and beside it so many standard deviations.
const EXCESS: f64 = 0.05;
const DEVIATIONS: f64 = 2.5;
/// More than this is nobody's own share.
const OWN_MAX: f64 = 0.4;
/// Of what was carried, percent, this much is sent after too much was.
const CUT_PERCENT: u64 = 95;
/// A link's own share is looked at again by sending so much of what is sent, percent, after this time, and ever more
/// seldom: the look costs picture.
const RETRY_PERCENT: u64 = 88;
const RETRY_PACKETS: u32 = 200;
const RETRY_AFTER: u64 = 10_000_000;
const RETRY_AFTER_MAX: u64 = 160_000_000;
/// How much is still believed of it when there is a queue: after some looks, it has to be tried anew.
const DOUBTED: f64 = 0.9;
/// Who goes on sending as much as before cannot be tried.
const TRIAL_LOOKS_MAX: u32 = 3;
/// Queues that overflow without being seen get packets one by one for so long.
const SHALLOW_FOR: u64 = 10_000_000;
const HALF_SECOND: u64 = 500_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Nothing,
    /// No more than this is carried.
    Cut(u64),
    /// What was lost was not for want of room: as before.
    Restore(u64),
}

/// Packets of which the receiver told.
#[derive(Clone, Copy, Default)]
struct Look {
    packets: u32,
    lost: u32,
    bytes: u64,
    bytes_lost: u64,
    first: u64,
    last: u64,
}

impl Look {
    fn add(&mut self, at: u64, bytes: u64, lost: bool) {
        if self.packets == 0 {
            (self.first, self.last) = (at, at);
        }
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.packets += 1;
        self.bytes += bytes;
        if lost {
            self.lost += 1;
            self.bytes_lost += bytes;
        }
    }

    fn is_whole(&self, packets: u32) -> bool {
        let span = self.last - self.first;
        (span >= LOOK && self.packets >= packets) || (span >= LOOK_LONG && self.packets >= LOOK_LONG_PACKETS)
    }

    fn share(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets.max(1))
    }

    fn sent_bps(&self) -> u64 {
        self.bytes * 8_000_000 / (self.last - self.first).max(1)
    }

    fn carried_bps(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_lost) * 8_000_000 / (self.last - self.first).max(1)
    }
}

struct Trial {
    /// What is restored if lowering changes nothing.
    before: u64,
    share: f64,
    /// What is lost at least, if the link is as it was believed to be.
    own: f64,
    /// The difference is small, so more packets have to tell of it.
    packets: u32,
    sent_bps: u64,
    looks: u32,
}

pub struct Losses {
    look: Look,
    /// Packets before this one say nothing of what is sent now.
    from: u64,
    /// What the link loses of whatever it gets.
    own: f64,
    /// What is sent usually: pictures vary.
    usual_bps: u64,
    trial: Option<Trial>,
    retry: u64,
    retry_after: u64,
    shallow_until: u64,
    /// Lost and told of, in this half second and the one before.
    second: [(u32, u32); 2],
    second_since: u64,
}

impl Losses {
    pub fn new() -> Self {
        Self {
            look: Look::default(),
            from: 0,
            own: 0.0,
            usual_bps: 0,
            trial: None,
            retry: 0,
            retry_after: RETRY_AFTER,
            shallow_until: 0,
            second: [(0, 0); 2],
            second_since: 0,
        }
    }

    /// The receiver tells for the first time of a packet that was sent at this time.
    pub fn handle(&mut self, number: u64, at: u64, bytes: u64, lost: bool) {
        self.second[0].0 += u32::from(lost);
        self.second[0].1 += 1;
        if number >= self.from {
            self.look.add(at, bytes, lost);
        }
    }

    /// A packet that was told lost has arrived.
    pub fn handle_found(&mut self, bytes: u64) {
        self.second[0].0 = self.second[0].0.saturating_sub(1);
        self.look.lost = self.look.lost.saturating_sub(1);
        self.look.bytes_lost = self.look.bytes_lost.saturating_sub(bytes);
    }

    /// After a report; `next` is the number of the next packet to be sent, `bps` what is sent at most. Where packets are
    /// queued, losses are the queue's, and it is not empty as soon as less is sent: nothing is learned of the link.
    pub fn judge(&mut self, now: u64, next: u64, bps: u64, queued: bool) -> Verdict {
        self.trial = self.trial.take().filter(|_| !queued);
        if now.saturating_sub(self.second_since) >= HALF_SECOND {
            self.second = [(0, 0), self.second[0]];
            self.second_since = now;
        }
        if !self.look.is_whole(self.trial.as_ref().map_or(LOOK_PACKETS, |trial| trial.packets)) {
            return Verdict::Nothing;
        }
        let look = std::mem::take(&mut self.look);
        let share = look.share();
        if share >= GONE || look.sent_bps() < JUDGED_MIN_BPS {
            // Nor will it say anything later.
            self.trial = None;
            return Verdict::Nothing;
        }
        if let Some(trial) = self.trial.take() {
            let same = same_share(&trial, &look);
            if same == Some(true) && share <= OWN_MAX {
                return self.restore(now, next, share, trial.before);
            }
            if same.is_none() && trial.looks + 1 < TRIAL_LOOKS_MAX {
                self.trial = Some(Trial { looks: trial.looks + 1, ..trial });
                return Verdict::Nothing;
            }
            if same == Some(false) {
                self.own = self.own.min(share);
                self.retry_after = RETRY_AFTER;
                self.shallow_until = now + SHALLOW_FOR;
            }
        }
        let noise = (self.own.max(0.02) * (1.0 - self.own) / f64::from(look.packets)).sqrt() * DEVIATIONS;
        if share > self.own + EXCESS + noise {
            let carried = look.carried_bps() * CUT_PERCENT / 100;
            let trial =
                Trial { before: bps, share, own: self.own, packets: LOOK_PACKETS, sent_bps: look.sent_bps(), looks: 0 };
            return self.cut(next, trial, (carried as f64 / (1.0 - self.own)) as u64);
        }
        // Only what was once tried may seem to become more, or what is too much would become the link's own bit by bit.
        if queued {
            self.own *= DOUBTED;
        } else if share < self.own || self.own > EXCESS {
            self.own = (self.own + (share - self.own) * 0.1).min(OWN_MAX);
        }
        let usual = if self.usual_bps == 0 { look.sent_bps() } else { self.usual_bps };
        self.usual_bps = (usual * 3 + look.sent_bps()) / 4;
        if self.own > EXCESS && now >= self.retry {
            let (share, sent_bps) = (self.own, self.usual_bps);
            let trial = Trial { before: bps, share, own: 0.0, packets: RETRY_PACKETS, sent_bps, looks: 0 };
            return self.cut(next, trial, sent_bps * RETRY_PERCENT / 100);
        }
        Verdict::Nothing
    }

    /// Something else lowered what is sent, or says that there is room: what was tried is void.
    pub fn abandon(&mut self) {
        self.trial = None;
    }

    /// What was sent until now is not looked at.
    pub fn skip(&mut self, next: u64) {
        self.look = Look::default();
        self.from = next;
    }

    pub fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// What the link loses of whatever it gets.
    pub fn own(&self) -> f64 {
        self.own
    }

    /// Whether bursts are what the network cannot take.
    pub fn is_shallow(&self, now: u64) -> bool {
        self.trial.is_some() || now < self.shallow_until
    }

    pub fn last_second(&self) -> f32 {
        let (lost, told) = (self.second[0].0 + self.second[1].0, self.second[0].1 + self.second[1].1);
        if told == 0 { 0.0 } else { lost as f32 / told as f32 }
    }

    fn cut(&mut self, next: u64, trial: Trial, to: u64) -> Verdict {
        self.trial = Some(trial);
        self.skip(next);
        Verdict::Cut(to)
    }

    fn restore(&mut self, now: u64, next: u64, share: f64, bps: u64) -> Verdict {
        self.own = share;
        self.retry = now + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
        self.skip(next);
        Verdict::Restore(bps)
    }
}

/// Whether the same share is lost of less; unknown if it was not less.
fn same_share(trial: &Trial, look: &Look) -> Option<bool> {
    if look.sent_bps() > trial.sent_bps / 100 * 95 {
        return None;
    }
    // If the network was full it carries as much as before, of less.
    let carried = (1.0 - trial.share) * trial.sent_bps as f64;
    let expected = (1.0 - carried / look.sent_bps().max(1) as f64).max(trial.own);
    Some(look.share() > f64::midpoint(trial.share, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Link {
        losses: Losses,
        at: u64,
        next: u64,
    }

    impl Link {
        fn new() -> Self {
            Self { losses: Losses::new(), at: 0, next: 1 }
        }

        /// Half a second at this rate, of which one packet in so many is lost; 0 is none.
        fn send(&mut self, bps: u64, one_in: u64) -> Verdict {
            for n in 0..200 {
                self.at += 2_500;
                let lost = one_in > 0 && n % one_in == 0;
                self.losses.handle(self.next, self.at, bps / 8 / 400, lost);
                self.next += 1;
            }
            self.losses.judge(self.at, self.next, bps, false)
        }
    }

    #[test]
    fn losses_that_go_with_the_rate_keep_it_down() {
        let mut link = Link::new();
        assert_eq!(link.send(2_000_000, 0), Verdict::Nothing);
        let Verdict::Cut(bps) = link.send(2_000_000, 4) else { panic!("a quarter was lost") };
        assert!((1_400_000..1_500_000).contains(&bps), "{bps}");
        assert_eq!(link.send(bps, 0), Verdict::Nothing);
        assert!(link.losses.is_shallow(link.at) && link.losses.own() == 0.0);
    }

    #[test]
    fn losses_that_stay_whatever_is_sent_belong_to_the_link() {
        let mut link = Link::new();
        let Verdict::Cut(bps) = link.send(2_000_000, 5) else { panic!("a fifth was lost") };
        assert_eq!(link.send(bps, 5), Verdict::Restore(2_000_000));
        assert_eq!([link.send(2_000_000, 5), link.send(2_500_000, 5)], [Verdict::Nothing; 2]);
        // What the link is believed to lose is tried again after a while, by less.
        let cuts = (0..40).filter(|_| match link.send(2_000_000, 5) {
            Verdict::Cut(bps) => link.send(bps, 5) == Verdict::Restore(2_000_000),
            _ => false,
        });
        assert_eq!(cuts.count(), 1);
    }

    #[test]
    fn a_share_that_was_learned_wrongly_is_found_out() {
        let mut link = Link::new();
        let Verdict::Cut(bps) = link.send(2_000_000, 4) else { panic!("a quarter was lost") };
        assert_eq!(link.send(bps, 4), Verdict::Restore(2_000_000), "the link became worse at the wrong time");
        let retried = (0..40).find_map(|_| match link.send(2_000_000, 4) {
            Verdict::Cut(bps) => Some(bps),
            _ => None,
        });
        // Of so much less, less is lost.
        link.send(retried.unwrap(), 12);
        assert!(link.losses.own() < 0.1, "{}", link.losses.own());
    }

    #[test]
    fn a_path_that_is_gone_and_a_voice_alone_say_nothing() {
        let mut link = Link::new();
        assert_eq!([link.send(2_000_000, 1), link.send(60_000, 5)], [Verdict::Nothing; 2]);
    }

    #[test]
    fn a_trial_ends_where_nothing_can_be_told() {
        for (bps, one_in) in [(60_000, 0), (2_000_000, 1)] {
            let mut link = Link::new();
            assert!(matches!(link.send(2_000_000, 4), Verdict::Cut(_)) && link.losses.is_trying());
            assert_eq!(link.send(bps, one_in), Verdict::Nothing);
            assert!(!link.losses.is_trying());
        }
    }
}
