//! What one direction of the link does to a packet: a pure machine, with time as an argument and a seed for its chance.

use std::{str::FromStr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// How long packets may wait for a limited rate where nothing else is said.
const QUEUE_DEFAULT: Duration = Duration::from_millis(200);

/// What is wrong with a direction; by default nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    pub delay: Duration,
    /// Each packet is late by as much again as this at random, and none overtakes another for it.
    pub jitter: Duration,
    /// Share of the packets that are lost, each by its own chance, 0 to 1.
    pub loss: f64,
    pub burst: Option<Burst>,
    /// Bits a second; 0: no limit.
    pub rate: u64,
    /// What would wait longer than this for the rate is dropped.
    pub queue: Option<Duration>,
    /// Share of the packets that are not delayed, and so overtake.
    pub reorder: f64,
    pub duplicate: f64,
    pub down: bool,
}

/// Gilbert and Elliott's two states: packets are lost in the bad one. All are shares of packets, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    pub begins: f64,
    pub ends: f64,
    pub loss: f64,
}

impl FromStr for Faults {
    type Err = String;

    /// `delay=20 jitter=5 loss=10 burst=2,25,80 rate=300 queue=200 reorder=1 duplicate=1 down=1`: times in ms, shares in
    /// percent, the rate in kbit/s. What is not named is no fault.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no key=value"))?;
            let number = |text: &str| match text.parse::<f64>() {
                Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
                _ => Err(format!("`{word}`: a number from 0 on is wanted")),
            };
            let share = |text: &str| number(text).map(|percent| (percent / 100.0).min(1.0));
            let ms = |text: &str| number(text).map(|ms| Duration::from_secs_f64(ms.min(60_000.0) / 1_000.0));
            match key {
                "delay" => faults.delay = ms(value)?,
                "jitter" => faults.jitter = ms(value)?,
                "loss" => faults.loss = share(value)?,
                "rate" => faults.rate = (number(value)? * 1_000.0) as u64,
                "queue" => faults.queue = Some(ms(value)?),
                "reorder" => faults.reorder = share(value)?,
                "duplicate" => faults.duplicate = share(value)?,
                "down" => faults.down = number(value)? != 0.0,
                "burst" => {
                    let [begins, ends, loss] = value.split(',').map(share).collect::<Result<Vec<_>, _>>()?[..] else {
                        return Err(format!("`{word}`: three shares are wanted, burst=BEGINS,ENDS,LOSS"));
                    };
                    faults.burst = Some(Burst { begins, ends, loss });
                }
                _ => return Err(format!("`{key}` is no fault")),
            }
        }
        Ok(faults)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub taken: u64,
    pub lost: u64,
    /// Dropped since the queue for the rate was full.
    pub full: u64,
}

pub struct Direction {
    pub faults: Faults,
    pub counts: Counts,
    rng: StdRng,
    in_burst: bool,
    /// Until when the packets before take up the rate.
    busy_until: Duration,
    /// When the last packet in order is delivered.
    last_out: Duration,
}

impl Direction {
    pub fn new(seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            counts: Counts::default(),
            rng: StdRng::seed_from_u64(seed),
            in_burst: false,
            busy_until: Duration::ZERO,
            last_out: Duration::ZERO,
        }
    }

    /// When a packet of this many bytes comes out; never where it is lost, twice where it is repeated.
    pub fn handle_packet(&mut self, now: Duration, bytes: usize) -> impl Iterator<Item = Duration> + use<> {
        self.counts.taken += 1;
        let out = self.deliver(now, bytes);
        let repeated = out.filter(|_| self.chance(self.faults.duplicate));
        out.into_iter().chain(repeated)
    }

    fn deliver(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        if self.faults.down || self.loses() {
            self.counts.lost += 1;
            return None;
        }
        let mut out = now;
        if let Some(per_bit) = 1_000_000_000u64.checked_div(self.faults.rate) {
            let begins = self.busy_until.max(now);
            if begins - now > self.faults.queue.unwrap_or(QUEUE_DEFAULT) {
                self.counts.full += 1;
                return None;
            }
            out = begins + Duration::from_nanos(per_bit * bytes as u64 * 8);
            self.busy_until = out;
        }
        if self.chance(self.faults.reorder) {
            return Some(out);
        }
        out += self.faults.delay + self.faults.jitter.mul_f64(self.rng.random::<f64>());
        self.last_out = self.last_out.max(out);
        Some(self.last_out)
    }

    fn loses(&mut self) -> bool {
        let Some(burst) = self.faults.burst else { return self.chance(self.faults.loss) };
        let turns = self.chance(if self.in_burst { burst.ends } else { burst.begins });
        self.in_burst ^= turns;
        let bursts = self.in_burst && self.chance(burst.loss);
        bursts | self.chance(self.faults.loss)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random::<f64>() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends this many packets of 1,250 bytes, one each `every`; when each came out.
    fn send(faults: &str, count: u32, every: Duration) -> (Direction, Vec<Vec<Duration>>) {
        let mut direction = Direction::new(7);
        direction.faults = faults.parse().unwrap();
        let out = (0..count).map(|n| direction.handle_packet(every * n, 1_250).collect()).collect();
        (direction, out)
    }

    #[test]
    fn a_link_without_faults_passes_everything_at_once() {
        let (direction, out) = send("", 100, ms(1));
        assert!(out.iter().zip(0..).all(|(out, n)| *out == [ms(n)]));
        assert_eq!(direction.counts, Counts { taken: 100, lost: 0, full: 0 });
    }

    #[test]
    fn about_as_many_are_lost_as_was_said_and_they_are_counted() {
        for percent in [10, 20, 30] {
            let (direction, out) = send(&format!("loss={percent}"), 10_000, ms(1));
            let lost = out.iter().filter(|out| out.is_empty()).count() as u64;
            assert!(lost.abs_diff(percent * 100) < 150, "{lost}");
            assert_eq!(direction.counts.lost, lost);
        }
    }

    #[test]
    fn bursts_lose_several_in_a_row() {
        let (_, out) = send("burst=2,25,80", 20_000, ms(1));
        let lost = out.iter().filter(|out| out.is_empty()).count();
        let pairs = out.windows(2).filter(|pair| pair.iter().all(Vec::is_empty)).count();
        // By chance alone a lost one would follow another in as many of a hundred as are lost.
        assert!((800..1_700).contains(&lost), "{lost}");
        assert!(pairs * 3 > lost, "{pairs} of {lost}");
    }

    #[test]
    fn the_rate_delays_and_what_the_queue_cannot_hold_is_dropped() {
        // 1,250 bytes take 10 ms at 1 Mbit/s.
        let (_, out) = send("rate=1000 delay=20", 3, ms(0));
        assert_eq!(out, [[ms(30)], [ms(40)], [ms(50)]]);
        let (direction, out) = send("rate=1000 queue=50", 10, ms(0));
        assert_eq!(out.iter().flatten().count(), 6);
        assert_eq!(direction.counts.full, 4);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let in_order = |out: Vec<Vec<Duration>>| out.concat().windows(2).all(|pair| pair[0] <= pair[1]);
        assert!(in_order(send("delay=20 jitter=30", 500, ms(5)).1));
        assert!(!in_order(send("delay=20 reorder=10", 500, ms(5)).1));
    }

    #[test]
    fn repeated_packets_come_twice_and_a_link_that_is_down_gives_none() {
        assert!(send("duplicate=100", 3, ms(1)).1.iter().all(|out| out.len() == 2));
        assert!(send("down=1", 3, ms(1)).1.iter().all(Vec::is_empty));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for wrong in ["loss", "loss=much", "delay=-1", "burst=1,2", "lose=3", "rate=inf"] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
        }
    }
}
