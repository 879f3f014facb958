//! The queue before the receiver, by how long packets are under way: the least of the last moments above the least of the
//! last seconds. The least, since jitter only adds: a queue that stands delays every packet.

use std::collections::VecDeque;

/// Microseconds, all of them. The shortest way is looked for anew in each of these.
const BASE_SPAN: u64 = 10_000_000;
/// The last moments: at least so long and so many packets, but for the oldest that is kept.
const RECENT_SPAN: u64 = 90_000;
const RECENT_PACKETS: u32 = 6;
const GLANCES: usize = 6;
/// A queue is too long from here on, and where it takes longer than this to send a packet.
const QUEUE_MAX: i64 = 20_000;
const PACKET_BITS: u64 = 9_600;
/// It falls where it is shorter by this than at the report before.
const FALL: i64 = 2_000;
/// A queue that changes by less than a tenth in this time, whatever is sent, is none: the way has become longer.
const STUCK_AFTER: u64 = 1_500_000;
/// Delays further apart are of a clock that was set anew.
const JUMP: u64 = 10_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// There is room.
    Free,
    /// Something stands in the queue, but not too much, or ever less.
    Filled,
    Overfull,
    /// What seemed to be a queue is not: there is room, but it took time to know.
    Moved,
}

struct Glance {
    at: u64,
    least: i64,
    packets: u32,
}

#[derive(Default)]
pub struct Delay {
    /// The least of the present span and of the one before.
    base: [Option<i64>; 2],
    base_since: u64,
    glances: VecDeque<Glance>,
    queue: i64,
    /// Since when a queue that is too long is about as long as this.
    stands: Option<(u64, i64)>,
    /// Of a probe: what it put into the queue, and until when that may be there.
    grace: Option<(u64, i64)>,
}

impl Delay {
    /// How long packets wait, in microseconds.
    pub fn queue(&self) -> i64 {
        self.queue
    }

    /// A probe leaves that takes so long on the way.
    pub fn excuse(&mut self, until: u64, micros: u64) {
        self.grace = Some((until, i64::try_from(micros).unwrap_or(0)));
    }

    /// Of the packets of a report the least delay, by two clocks: only differences mean something.
    pub fn handle(&mut self, now: u64, least: i64, packets: u32, bps: u64) -> Load {
        if self.base().is_some_and(|base| base.abs_diff(least) > JUMP) {
            *self = Self { base_since: now, ..Self::default() };
        }
        if now.saturating_sub(self.base_since) > BASE_SPAN {
            self.base = [None, self.base[0]];
            self.base_since = now;
        }
        self.base[0] = Some(self.base[0].map_or(least, |base| base.min(least)));
        if self.glances.len() == GLANCES {
            self.glances.pop_front();
        }
        self.glances.push_back(Glance { at: now, least, packets });
        let before = self.queue;
        self.queue = self.recent(now) - self.base().unwrap_or(least);
        let grace = self.grace.filter(|(until, _)| now < *until).map_or(0, |(_, micros)| micros);
        let packet = (PACKET_BITS * 1_000_000 / bps.max(1)) as i64;
        let most = QUEUE_MAX + packet + grace;
        if self.queue <= most {
            self.stands = None;
            return if self.queue <= most / 2 { Load::Free } else { Load::Filled };
        }
        if self.is_stuck(now) {
            self.base = [Some(self.recent(now)), None];
            self.base_since = now;
            self.queue = 0;
            self.stands = None;
            return Load::Moved;
        }
        if self.queue + FALL < before { Load::Filled } else { Load::Overfull }
    }

    fn base(&self) -> Option<i64> {
        self.base.into_iter().flatten().min()
    }

    fn recent(&self, now: u64) -> i64 {
        let (mut least, mut packets) = (i64::MAX, 0);
        for glance in self.glances.iter().rev() {
            let old = now.saturating_sub(glance.at) >= RECENT_SPAN;
            if old && packets >= RECENT_PACKETS {
                break;
            }
            least = least.min(glance.least);
            packets += glance.packets;
        }
        least
    }

    fn is_stuck(&mut self, now: u64) -> bool {
        let (since, length) = self.stands.get_or_insert((now, self.queue));
        if self.queue.abs_diff(*length) > length.unsigned_abs() / 10 {
            (*since, *length) = (now, self.queue);
        }
        now.saturating_sub(*since) > STUCK_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports each 50 ms, from a time on, with these least delays in milliseconds.
    fn tell(delay: &mut Delay, from: u64, millis: &[i64]) -> Vec<Load> {
        let report = |(n, least): (usize, &i64)| {
            delay.handle(from + n as u64 * 50_000, 7_000_000 + least * 1_000, 10, 10_000_000)
        };
        millis.iter().enumerate().map(report).collect()
    }

    #[test]
    fn a_queue_that_grows_is_seen_and_one_that_falls_is_left_alone() {
        use Load::{Filled, Free, Overfull};
        let mut delay = Delay::default();
        let loads = tell(&mut delay, 0, &[0, 1, 0, 40, 50, 60, 50, 40, 30, 15, 5]);
        assert_eq!(loads[..5], [Free, Free, Free, Free, Overfull]);
        assert_eq!(loads[5..], [Overfull, Overfull, Filled, Filled, Filled, Free]);
    }

    #[test]
    fn single_late_reports_are_no_queue() {
        let loads = tell(&mut Delay::default(), 0, &[0, 40, 0, 60, 3, 90, 0]);
        assert_eq!(loads, [Load::Free; 7]);
    }

    #[test]
    fn a_way_that_became_longer_for_good_is_the_new_way() {
        let mut delay = Delay::default();
        let loads = tell(&mut delay, 0, &[[0; 10].as_slice(), &[100; 100]].concat());
        assert!((25..40).contains(&loads.iter().filter(|load| **load == Load::Overfull).count()));
        assert_eq!(loads.iter().filter(|load| **load == Load::Moved).count(), 1);
        assert_eq!(loads.last(), Some(&Load::Free));
    }

    #[test]
    fn a_clock_that_is_set_anew_says_nothing_of_the_queue() {
        let mut delay = Delay::default();
        assert_eq!(tell(&mut delay, 0, &[0, 0, 1_000_000_000, 1_000_000_000, -5_000_000, -5_000_000]), [Load::Free; 6]);
    }
}
