//! A network of one bottleneck in virtual time, and a sender and a receiver on it: pictures at 30 a second of what the
//! estimate allows, a voice, a pacer, padding for probes, a report each so many milliseconds.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::Estimator;

/// In bits per second and microseconds.
#[derive(Clone, Copy)]
pub struct Link {
    pub bps: u64,
    pub queue: u64,
    pub way: u64,
    pub loss: f64,
    pub jitter: u64,
    /// Reports do not get through, nothing does.
    pub deaf: bool,
    pub gone: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { bps: 10_000_000, queue: 300_000, way: 25_000, loss: 0.0, jitter: 0, deaf: false, gone: false }
    }
}

/// What was seen in each 10 ms.
#[derive(Clone, Copy)]
pub struct Seen {
    pub at: f64,
    pub estimate: u64,
    pub queued: f64,
}

struct Packet {
    number: u16,
    bytes: usize,
    at: u64,
}

type Report = Vec<(u16, Option<Duration>)>;

pub struct Call {
    pub link: Link,
    pub estimator: Estimator,
    pub desired: u64,
    pub seen: Vec<Seen>,
    /// Packets and bytes that left, packets that were lost, bytes that arrived.
    pub sent: (u64, u64),
    pub lost: u64,
    pub arrived: u64,
    pub padding: u64,
    start: Instant,
    now: u64,
    random: StdRng,
    report_each: u64,
    initial: u64,
    pacer: VecDeque<usize>,
    budget: f64,
    probe: Option<(f64, usize)>,
    queue: VecDeque<Packet>,
    free_at: u64,
    on_way: BTreeMap<(u64, u64), u64>,
    told: u64,
    numbers: u64,
    known: BTreeMap<u64, u64>,
    reports: VecDeque<(u64, Report)>,
}

impl Call {
    pub fn new(link: Link, initial: u64, desired: u64) -> Self {
        let start = Instant::now();
        Self {
            link,
            estimator: Estimator::new(start, initial),
            desired,
            seen: Vec::new(),
            sent: (0, 0),
            lost: 0,
            arrived: 0,
            padding: 0,
            start,
            now: 0,
            random: StdRng::seed_from_u64(7),
            report_each: 100_000,
            initial,
            pacer: VecDeque::new(),
            budget: 0.0,
            probe: None,
            queue: VecDeque::new(),
            free_at: 0,
            on_way: BTreeMap::new(),
            told: 0,
            numbers: 0,
            known: BTreeMap::new(),
            reports: VecDeque::new(),
        }
    }

    pub fn reported_each(mut self, millis: u64) -> Self {
        self.report_each = millis * 1_000;
        self
    }

    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = StdRng::seed_from_u64(seed);
        self
    }

    /// Goes on for so many seconds; returns what was seen meanwhile.
    pub fn run(&mut self, secs: f64) -> Vec<Seen> {
        let (from, ends) = (self.seen.len(), self.now + (secs * 1e6) as u64);
        self.estimator.aim(self.time(), self.desired, self.desired);
        while self.now < ends {
            self.now += 1_000;
            self.tick();
        }
        self.seen[from..].to_vec()
    }

    pub fn time(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn tick(&mut self) {
        let now = self.time();
        self.make_media();
        self.pace(now);
        self.carry();
        self.tell(now);
        if self.estimator.poll_timeout().is_some_and(|due| now >= due) {
            self.estimator.handle_timeout(now);
            assert!(self.estimator.poll_timeout().is_none_or(|due| due > now), "it has to sleep");
        }
        if let Some(probe) = self.estimator.poll_probe(now) {
            assert!(probe.bps <= self.desired * 12 / 10 && probe.bytes < 100_000, "{probe:?}");
            self.probe = Some((probe.bps as f64, probe.bytes));
        }
        if self.now.is_multiple_of(10_000) {
            let queued = self.queue.front().map_or(0, |packet| self.now - packet.at) as f64 / 1e3;
            let estimate = self.estimator.estimate().unwrap_or(0);
            self.seen.push(Seen { at: self.now as f64 / 1e6, estimate, queued });
        }
    }

    fn make_media(&mut self) {
        const VOICE_BPS: u64 = 40_000;
        if self.now.is_multiple_of(20_000) {
            self.pacer.push_front(VOICE_BPS as usize / 8 / 50);
        }
        if matches!(self.now / 1_000 % 100, 0 | 33 | 66) {
            let target = self.estimator.estimate().unwrap_or(self.initial).min(self.desired).saturating_sub(VOICE_BPS);
            let mut bytes = (target as f64 / 8.0 / 30.0 * self.random.random_range(0.8..1.2)) as usize;
            while bytes > 0 {
                let packet = bytes.min(1_200);
                self.pacer.push_back(packet);
                bytes -= packet;
            }
        }
    }

    fn pace(&mut self, now: Instant) {
        let rate = self.probe.map_or(0.0, |(bps, _)| bps).max(self.estimator.rate_bps(now) as f64);
        let rate = self.probe.map_or(rate, |(bps, _)| bps);
        self.budget = (self.budget + rate / 8_000.0).min(rate / 8_000.0);
        while self.budget > 0.0 {
            let packet = self.pacer.pop_front();
            let Some(bytes) = packet.or_else(|| self.probe.map(|_| 1_200)) else { break };
            if packet.is_none() {
                self.padding += bytes as u64;
            }
            self.budget -= bytes as f64;
            self.send(now, bytes);
        }
    }

    fn send(&mut self, now: Instant, bytes: usize) {
        let number = self.estimator.handle_sent(now, bytes, self.probe.is_some());
        self.probe = self.probe.and_then(|(bps, left)| Some((bps, left.checked_sub(bytes).filter(|left| *left > 0)?)));
        self.numbers += 1;
        assert_eq!(number, self.numbers as u16);
        self.sent = (self.sent.0 + 1, self.sent.1 + bytes as u64);
        let waiting: usize = self.queue.iter().map(|packet| packet.bytes).sum();
        let full = waiting as u64 * 8_000_000 / self.link.bps > self.link.queue;
        if full || self.link.gone || self.random.random_bool(self.link.loss) {
            self.lost += 1;
            return;
        }
        self.queue.push_back(Packet { number, bytes, at: self.now });
    }

    fn carry(&mut self) {
        while let Some(packet) = self.queue.front() {
            let done = self.free_at.max(packet.at) + packet.bytes as u64 * 8_000_000 / self.link.bps;
            if done > self.now {
                break;
            }
            self.free_at = done;
            let number = self.numbers - u64::from((self.numbers as u16).wrapping_sub(packet.number));
            let jitter = if self.link.jitter > 0 { self.random.random_range(0..self.link.jitter) } else { 0 };
            self.on_way.insert((done + self.link.way + jitter, number), packet.bytes as u64);
            self.queue.pop_front();
        }
    }

    /// The receiver's side, and what of it comes back.
    fn tell(&mut self, now: Instant) {
        while let Some(entry) = self.on_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let ((at, number), bytes) = entry.remove_entry();
            self.arrived += bytes;
            self.known.insert(number, at);
        }
        if self.now.is_multiple_of(self.report_each)
            && let Some((last, _)) = self.known.last_key_value()
        {
            let first = self.known.first_key_value().map_or(0, |(first, _)| *first).min(self.told + 1);
            // The receiver's clock is another one.
            let clock = |at: &u64| Duration::from_micros(at + 5_000_000_000);
            let report = (first..=*last).map(|number| (number as u16, self.known.get(&number).map(clock)));
            let report = report.collect();
            self.told = self.told.max(*last);
            self.known.clear();
            if !self.link.deaf && !self.link.gone {
                self.reports.push_back((self.now + self.link.way, report));
            }
        }
        while let Some((_, report)) = self.reports.pop_front_if(|(at, _)| *at <= self.now) {
            self.estimator.handle_feedback(now, report.into_iter());
        }
    }
}
