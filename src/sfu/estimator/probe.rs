//! Probes: short clusters of packets, sent faster than the estimate. As fast as they arrive, the network carries.

/// Microseconds, all of them. How long a probe takes at its rate, and what it has at least: dispersion of fewer packets is
/// chance.
const LENGTH: u64 = 25_000;
const BYTES_MIN: usize = 4_800;
const PACKETS_MIN: u32 = 3;
/// One that is not sent, or not told of, is given up so much after it should be over, and two round trips.
const PATIENCE: u64 = 500_000;
/// It was carried if it arrives at this share of the rate at which it was sent, percent.
const CARRIED_PERCENT: u64 = 85;
/// Where it was not, this share of the rate of its arrival is believed, percent.
const BELIEVED_PERCENT: u64 = 90;
/// Between probes that tell nothing new; doubled each time.
const WAIT: u64 = 1_200_000;
const WAIT_MAX: u64 = 4_500_000;
/// How far a probe goes: percent of the estimate, and of what is desired.
const STEP_PERCENT: u64 = 200;
const STEP_FIRST_PERCENT: u64 = 300;
const GOAL_PERCENT: u64 = 110;

/// To be sent now, at this rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    pub bps: u64,
    pub bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// So much got through as it was sent.
    Carried(u64),
    /// It came out slower than it was sent.
    Full(u64),
    Nothing,
}

struct Cluster {
    probe: Probe,
    ends: u64,
    /// What was sent, and of it the last packet.
    packets: u32,
    bytes: u64,
    first: u64,
    last: u64,
    bytes_last: u64,
    told: u32,
    arrived_bytes: u64,
    /// When the first and the last packet arrived, and the first one's size.
    ends_arrived: Option<(i64, i64, u64)>,
    stretch: Stretch,
}

/// How much longer a cluster is where it arrives, by all of its packets: at its ends alone, jitter would decide.
#[derive(Default)]
struct Stretch {
    packets: u32,
    /// The first packet's times, and of all since, in milliseconds after it: sums of times of sending, of arrival, of
    /// squares and products.
    first: Option<(u64, i64)>,
    sent: f64,
    arrived: f64,
    squares: f64,
    products: f64,
}

impl Stretch {
    fn add(&mut self, sent: u64, arrived: i64) {
        let (first_sent, first_arrived) = *self.first.get_or_insert((sent, arrived));
        let sent = (sent as f64 - first_sent as f64) / 1e3;
        let arrived = (arrived as f64 - first_arrived as f64) / 1e3;
        self.packets += 1;
        self.sent += sent;
        self.arrived += arrived;
        self.squares += sent * sent;
        self.products += sent * arrived;
    }

    /// By how much packets arrive later if they are sent later by one; none if all are sent at once.
    fn slope(&self) -> Option<f64> {
        let packets = f64::from(self.packets.max(1));
        let spread = self.squares - self.sent * self.sent / packets;
        (spread > 1.0).then(|| (self.products - self.sent * self.arrived / packets) / spread)
    }
}

pub struct Probes {
    due: u64,
    wait: u64,
    /// Nothing but success so far.
    first: bool,
    ready: Option<Probe>,
    active: Option<Cluster>,
    id: u8,
}

impl Probes {
    pub fn new() -> Self {
        Self { due: 0, wait: WAIT, first: true, ready: None, active: None, id: 0 }
    }

    /// Says that there is room for one now. `minimum` is worth a larger step.
    pub fn plan(&mut self, now: u64, bps: u64, (minimum, desired): (u64, u64)) {
        if self.active.is_some() || now < self.due || bps >= desired {
            self.ready = None;
            return;
        }
        let step = if self.first { STEP_FIRST_PERCENT } else { STEP_PERCENT };
        let wanted = (bps * step / 100).max(minimum.min(bps * 4) * GOAL_PERCENT / 100);
        let bps = wanted.min(desired.saturating_mul(GOAL_PERCENT) / 100);
        let bytes = usize::try_from(bps * LENGTH / 8_000_000).unwrap_or(usize::MAX).max(BYTES_MIN);
        self.ready = Some(Probe { bps, bytes });
    }

    pub fn poll(&mut self, now: u64, round_trip: u64) -> Option<Probe> {
        let probe = self.ready.take()?;
        self.id = self.id % u8::MAX + 1;
        let ends = now + length(probe) * 2 + round_trip * 2 + PATIENCE;
        self.active = Some(Cluster {
            probe,
            ends,
            packets: 0,
            bytes: 0,
            first: now,
            last: now,
            bytes_last: 0,
            told: 0,
            arrived_bytes: 0,
            ends_arrived: None,
            stretch: Stretch::default(),
        });
        Some(probe)
    }

    /// A packet leaves that the pacer sends for the probe. Returns the probe that it belongs to.
    pub fn handle_sent(&mut self, at: u64, bytes: usize) -> u8 {
        let Some(cluster) = self.active.as_mut().filter(|it| it.bytes < it.probe.bytes as u64) else { return 0 };
        if cluster.packets == 0 {
            cluster.first = at;
        }
        cluster.last = at;
        cluster.packets += 1;
        cluster.bytes_last = bytes as u64;
        cluster.bytes += bytes as u64;
        self.id
    }

    /// The receiver tells of a packet of a probe that was sent at this time.
    pub fn handle(&mut self, id: u8, sent: u64, arrived: Option<i64>, bytes: u64) {
        let Some(cluster) = self.active.as_mut().filter(|_| id == self.id) else { return };
        cluster.told += 1;
        if let Some(arrived) = arrived {
            cluster.arrived_bytes += bytes;
            cluster.stretch.add(sent, arrived);
            cluster.ends_arrived = Some(match cluster.ends_arrived {
                Some((first, last, size)) if arrived >= first => (first, last.max(arrived), size),
                Some((_, last, _)) => (arrived, last, bytes),
                None => (arrived, arrived, bytes),
            });
        }
    }

    /// The outcome, once all is told or the time is over. `own` is what the link loses of whatever it gets.
    pub fn conclude(&mut self, now: u64, own: f64) -> Option<Outcome> {
        let cluster = self.active.as_ref()?;
        let whole = cluster.bytes >= cluster.probe.bytes as u64 && cluster.told >= cluster.packets;
        if !whole && now < cluster.ends {
            return None;
        }
        let outcome = cluster.outcome(own);
        self.active = None;
        match outcome {
            Outcome::Carried(_) => (self.wait, self.due) = (WAIT, now),
            Outcome::Full(_) | Outcome::Nothing => self.back_off(now),
        }
        Some(outcome)
    }

    /// It told nothing new, or something is wrong with the network.
    pub fn back_off(&mut self, now: u64) {
        self.due = now + self.wait;
        self.wait = (self.wait * 3 / 2).min(WAIT_MAX);
        self.first = false;
        self.ready = None;
    }

    /// What is known is out of date.
    pub fn hurry(&mut self, now: u64) {
        (self.due, self.wait) = (now, WAIT);
    }

    /// There is no room now after all.
    pub fn cancel(&mut self) {
        self.ready = None;
    }

    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// When there may be another.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// When the one that is under way is given up.
    pub fn ends(&self) -> Option<u64> {
        self.active.as_ref().map(|cluster| cluster.ends)
    }
}

impl Cluster {
    fn outcome(&self, own: f64) -> Outcome {
        if self.stretch.packets < PACKETS_MIN || self.told < self.packets / 2 {
            return Outcome::Nothing;
        }
        // The last packet has no gap after it. Who sends all of it at once is believed to have done what was asked.
        let span = self.last - self.first;
        let spaced = (span >= 1_000).then(|| self.bytes.saturating_sub(self.bytes_last) * 8_000_000 / span);
        let sent = spaced.unwrap_or(self.probe.bps).min(self.probe.bps.saturating_mul(2));
        // What the link loses of itself is no sign; what else is lost was not carried.
        let kept = (self.arrived_bytes as f64 / self.bytes.max(1) as f64 / (1.0 - own)).min(1.0);
        let arrived = (sent as f64 * kept / self.stretch.slope().unwrap_or(1.0).max(1.0)) as u64;
        // The ends say best how fast a queue empties, above all one that overflows; but jitter moves them apart.
        let by_ends = (self.ends_bps().unwrap_or(sent) as f64 / (1.0 - own)) as u64;
        let least = sent * CARRIED_PERCENT / 100;
        if arrived >= least && (kept >= 1.0 || by_ends >= least) {
            return Outcome::Carried(arrived);
        }
        Outcome::Full(arrived.min(by_ends) * BELIEVED_PERCENT / 100)
    }

    fn ends_bps(&self) -> Option<u64> {
        let (first, last, size) = self.ends_arrived?;
        let span = u64::try_from(last - first).ok().filter(|span| *span >= 1_000)?;
        Some(self.arrived_bytes.saturating_sub(size) * 8_000_000 / span)
    }
}

/// How long it takes to send.
fn length(probe: Probe) -> u64 {
    probe.bytes as u64 * 8_000_000 / probe.bps.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe to 1.2 Mbit/s, whose packets leave 8 ms apart and arrive so many microseconds apart.
    fn probe(apart: i64, lost: &[u64]) -> Outcome {
        let mut probes = Probes::new();
        probes.plan(0, 400_000, (0, 2_000_000));
        assert_eq!(probes.poll(0, 50_000), Some(Probe { bps: 1_200_000, bytes: BYTES_MIN }));
        for n in 0..5 {
            assert_eq!(probes.handle_sent(n * 8_000, 1_200), if n < 4 { 1 } else { 0 });
        }
        assert_eq!(probes.conclude(100_000, 0.0), None, "nothing is told");
        (0..4).for_each(|n| probes.handle(1, n * 8_000, (!lost.contains(&n)).then_some(n as i64 * apart), 1_200));
        probes.conclude(100_000, 0.0).unwrap()
    }

    #[test]
    fn what_arrives_as_it_was_sent_is_carried() {
        assert_eq!(probe(8_000, &[]), Outcome::Carried(1_200_000));
        assert_eq!(probe(0, &[]), Outcome::Carried(1_200_000), "no faster than it was sent");
    }

    #[test]
    fn what_arrives_slower_is_as_much_as_the_network_has() {
        assert_eq!(probe(16_000, &[]), Outcome::Full(540_000));
        assert_eq!(probe(8_000, &[0, 2]), Outcome::Nothing, "two packets say nothing");
    }

    #[test]
    fn probes_that_find_nothing_become_seldom() {
        let (mut probes, mut at) = (Probes::new(), Vec::new());
        for now in (0..30_000_000).step_by(100_000) {
            probes.plan(now, 400_000, (0, 2_000_000));
            at.extend(probes.poll(now, 0).map(|_| now));
            probes.conclude(now, 0.0);
        }
        assert!((6..9).contains(&at.len()), "{at:?}");
        probes.plan(30_000_000, 2_000_000, (0, 2_000_000));
        assert_eq!(probes.poll(30_000_000, 0), None, "there is enough");
    }
}
