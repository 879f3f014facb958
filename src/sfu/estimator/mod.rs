//! How much the network carries to one receiver, by what the receiver tells of the packets that it got. In the spirit of
//! Google congestion control: queues and losses lower the estimate, what arrives bounds it, probes lift it. It paces and
//! sends nothing itself.
//!
//! [`Estimator::handle_sent`] is called for every packet and does next to nothing; all else happens once per report. After
//! any `handle_*` but that one, and after [`Estimator::aim`], a probe may be due: [`Estimator::poll_probe`].

mod arrivals;
mod delay;
mod loss;
mod probe;
mod sent;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use probe::Probe;

use self::{
    arrivals::Arrivals,
    delay::{Delay, Load},
    loss::{Losses, Verdict},
    probe::{Outcome, Probes},
    sent::{Fate, SentPackets},
};

/// No estimate is below or above, whatever is told.
pub const LEAST_BPS: u64 = 50_000;
pub const MOST_BPS: u64 = 10_000_000_000;
/// Microseconds, these four. Over so long it is measured what arrives: to lower the estimate, and to bound its growth.
const SPAN_SHORT: i64 = 200_000;
const SPAN_LONG: i64 = 400_000;
/// Packets leave and nothing is told: so long that is the report's fault, and then the estimate falls, time and again.
const SILENCE: u64 = 500_000;
/// No probes so soon after a queue was too long.
const CALM: u64 = 1_000_000;
/// What a probe put into the queue may be there for so long.
const EXCUSED: u64 = 500_000;
/// Fewer packets than this are no silence.
const SILENCE_PACKETS: u64 = 10;
const SILENCE_PERCENT: u64 = 80;
/// What of that which arrives is sent while the queue is too long: enough less for it to become empty.
const DRAIN_PERCENT: u64 = 85;
/// And where it is very long, from so many microseconds on.
const QUEUE_LONG: i64 = 200_000;
const DRAIN_LONG_PERCENT: u64 = 70;
/// Growth in a second, percent; where the network was full lately, a packet in each round trip and report, and no more
/// than the other.
const GROWTH_PERCENT: u64 = 8;
const GROWTH_FULL_PERCENT: u64 = 4;
const PACKET_BITS: u64 = 9_600;
/// So far around what was carried when the network was full, it is taken to be as full again.
const CEILING_PERCENT: std::ops::Range<u64> = 80..120;
/// No growth further above what is shown to arrive, percent.
const SHOWN_PERCENT: u64 = 150;
const SHOWN_BPS: u64 = 10_000;
/// Packets leave faster than the estimate, so that pictures are not late, but where bursts are lost or wait.
const PACE_PERCENT: u64 = 250;
const PACE_SMOOTH_PERCENT: u64 = 120;
const PACE_LEAST_BPS: u64 = 300_000;
/// What a receiver tells without reports holds for so long.
const REMB_FOR: Duration = Duration::from_secs(5);
/// Receivers' clocks that are further than this are none: 35 years of microseconds.
const ARRIVAL_MAX: i64 = 1 << 50;

#[derive(Clone, Copy)]
enum Source {
    Unknown,
    /// Of each packet.
    Reports,
    /// Of the whole, until then.
    Remb(u64, Instant),
}

/// Nothing is told: the estimate before, how often it fell since, and the next packet's number when it did last.
struct Silence {
    before: u64,
    cuts: u64,
    next: u64,
}

/// What a report brings of packets that nobody had told of.
#[derive(Default)]
struct News {
    /// The first and last number.
    numbers: Option<(u64, u64)>,
    arrived: u32,
    bytes: u64,
    newest: Option<i64>,
    delay_least: i64,
    /// When the last of them that arrived was sent.
    sent_last: Option<u64>,
}

pub struct Estimator {
    start: Instant,
    bps: u64,
    source: Source,
    sent: SentPackets,
    arrivals: Arrivals,
    delay: Delay,
    losses: Losses,
    probes: Probes,
    aim: (u64, u64),
    round_trip: Option<u64>,
    /// What was carried when the network was full.
    ceiling: Option<u64>,
    /// The queue is being emptied: less is sent than could be.
    draining: bool,
    full_at: u64,
    grown_at: u64,
    /// The last packet of which something was told, and when the first after that was sent.
    told: u64,
    waiting_since: Option<u64>,
    silence: Option<Silence>,
    reported_loss: f32,
}

impl Estimator {
    pub fn new(now: Instant, initial_bps: u64) -> Self {
        Self {
            start: now,
            bps: initial_bps.clamp(LEAST_BPS, MOST_BPS),
            source: Source::Unknown,
            sent: SentPackets::new(),
            arrivals: Arrivals::default(),
            delay: Delay::default(),
            losses: Losses::new(),
            probes: Probes::new(),
            aim: (0, 0),
            round_trip: None,
            ceiling: None,
            draining: false,
            full_at: 0,
            grown_at: 0,
            told: 0,
            waiting_since: None,
            silence: None,
            reported_loss: 0.0,
        }
    }

    /// A packet leaves; `probe` says that the pacer sends it for the probe that it was given. Returns its number.
    pub fn handle_sent(&mut self, now: Instant, bytes: usize, probe: bool) -> u16 {
        let at = self.micros(now);
        let probe = if probe { self.probes.handle_sent(at, bytes) } else { 0 };
        self.waiting_since.get_or_insert(at);
        self.sent.push(at, bytes, probe) as u16
    }

    /// The receiver tells of packets: when each arrived by its own clock, or that it did not.
    pub fn handle_feedback(&mut self, now: Instant, packets: impl Iterator<Item = (u16, Option<Duration>)>) {
        let at = self.micros(now);
        let mut news = News::default();
        for (number, arrival) in packets {
            let arrival = arrival.map(|arrival| i64::try_from(arrival.as_micros()).unwrap_or(i64::MAX));
            if arrival.is_none_or(|arrival| arrival < ARRIVAL_MAX) {
                self.hear(number, arrival, &mut news);
            }
        }
        let Some((first, last)) = news.numbers else { return };
        if news.arrived > 0 {
            self.source = Source::Reports;
        }
        self.end_silence(at, first);
        if first > self.told + 1 {
            self.arrivals.forget();
        }
        self.told = self.told.max(last);
        self.waiting_since = (self.told + 1 < self.sent.next()).then_some(at);
        if let Some(sent) = news.sent_last {
            let sample = at.saturating_sub(sent);
            self.round_trip = Some(self.round_trip.map_or(sample, |before| (before * 7 + sample) / 8));
        }
        let load = news.newest.map(|newest| {
            self.arrivals.add(newest, news.bytes);
            self.delay.handle(at, news.delay_least, news.arrived, self.bps)
        });
        self.weigh_losses(at, load.is_some_and(|load| load != Load::Free));
        self.weigh_probe(at);
        if let Some(load) = load {
            self.weigh_queue(at, load);
        }
        self.plan(at);
    }

    /// Receivers that do not tell of packets may tell of the whole.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        if !matches!(self.source, Source::Reports) {
            self.source = Source::Remb(bps.clamp(LEAST_BPS, MOST_BPS), now + REMB_FOR);
        }
    }

    /// Which share was lost, by a receiver report. What is told of packets is better known.
    pub fn handle_reported_loss(&mut self, share: f32) {
        self.reported_loss = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    }

    /// The time to the receiver and back, by a receiver report.
    pub fn handle_round_trip(&mut self, round_trip: Duration) {
        if !matches!(self.source, Source::Reports) {
            self.round_trip = Some(u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).min(60_000_000));
        }
    }

    /// What is worth to be reached next, and what the receiver would get if its network carried it; 0 is no probes.
    pub fn aim(&mut self, now: Instant, minimum_bps: u64, desired_bps: u64) {
        let (minimum, desired) = (minimum_bps.min(MOST_BPS), desired_bps.min(MOST_BPS));
        self.aim = (minimum.min(desired), desired);
        self.plan(self.micros(now));
    }

    /// What the network carries; none until the receiver has told anything.
    pub fn estimate(&self) -> Option<u64> {
        match self.source {
            Source::Unknown => None,
            Source::Reports => Some(self.bps),
            Source::Remb(bps, _) => Some(bps),
        }
    }

    /// The share that was lost in the last second or so.
    pub fn loss(&self) -> f32 {
        match self.source {
            Source::Reports => self.losses.last_second(),
            Source::Unknown | Source::Remb(..) => self.reported_loss,
        }
    }

    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(Duration::from_micros)
    }

    /// The rate at which packets may leave.
    pub fn rate_bps(&self, now: Instant) -> u64 {
        let bps = match self.estimate() {
            Some(bps) => bps,
            None => self.bps.max(self.aim.1),
        };
        let smooth = self.draining || self.losses.is_shallow(self.micros(now));
        let percent = if smooth { PACE_SMOOTH_PERCENT } else { PACE_PERCENT };
        (bps * percent / 100).max(PACE_LEAST_BPS)
    }

    /// A probe that is to be sent now.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        let at = self.micros(now);
        let probe = self.probes.poll(at, self.round_trip.unwrap_or(0))?;
        let micros = probe.bytes as u64 * 8_000_000 / self.bps;
        self.delay.excuse(at + self.round_trip.unwrap_or(0) + EXCUSED, micros.min(EXCUSED));
        Some(probe)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.source {
            Source::Unknown => None,
            Source::Remb(_, until) => Some(until),
            Source::Reports => {
                let wants = self.aim.1 > self.bps && self.may_probe() && !self.probes.is_ready();
                let due = wants.then(|| self.probes.due().max(self.calm_at()));
                let silence = self.silence_at().filter(|_| self.is_waited_for());
                let next = [self.probes.ends().or(due), silence].into_iter().flatten().min()?;
                Some(self.start + Duration::from_micros(next))
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.micros(now);
        if let Source::Remb(_, until) = self.source
            && now >= until
        {
            self.source = Source::Unknown;
        }
        if matches!(self.source, Source::Reports) {
            self.weigh_silence(at);
            self.weigh_probe(at);
            self.plan(at);
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_micros() as u64
    }

    fn hear(&mut self, number: u16, arrival: Option<i64>, news: &mut News) {
        let Some((number, packet)) = self.sent.find(number) else { return };
        let (at, bytes, probe, before) = (packet.at, u64::from(packet.bytes), packet.probe, packet.fate);
        match (before, arrival) {
            (Fate::Arrived, _) | (Fate::Lost, None) => return,
            (Fate::Unknown, None) => packet.fate = Fate::Lost,
            (_, Some(_)) => packet.fate = Fate::Arrived,
        }
        if before == Fate::Unknown {
            self.losses.handle(number, at, bytes, arrival.is_none());
        } else {
            self.losses.handle_found(bytes);
        }
        if probe > 0 {
            self.probes.handle(probe, at, arrival, bytes);
        }
        let (first, last) = news.numbers.unwrap_or((number, number));
        news.numbers = Some((first.min(number), last.max(number)));
        let Some(arrival) = arrival else { return };
        let delay = arrival - at as i64;
        news.delay_least = if news.arrived == 0 { delay } else { delay.min(news.delay_least) };
        news.arrived += 1;
        news.bytes += bytes;
        news.newest = Some(news.newest.map_or(arrival, |newest| newest.max(arrival)));
        news.sent_last = Some(news.sent_last.map_or(at, |last| last.max(at)));
    }

    fn set(&mut self, bps: u64) {
        self.bps = bps.clamp(LEAST_BPS, MOST_BPS);
    }

    /// What arrives, and what the link loses of whatever it gets.
    fn carried(&self, span: i64) -> Option<u64> {
        self.arrivals.bps(span).map(|bps| (bps as f64 / (1.0 - self.losses.own())) as u64)
    }

    fn weigh_losses(&mut self, at: u64, queued: bool) {
        match self.losses.judge(at, self.sent.next(), self.bps, queued) {
            Verdict::Nothing => {}
            Verdict::Cut(carried) => {
                if carried < self.bps {
                    self.ceiling = Some(carried);
                    self.set(carried);
                }
            }
            Verdict::Restore(bps) => {
                self.ceiling = None;
                self.set(bps.max(self.bps));
            }
        }
    }

    fn weigh_probe(&mut self, at: u64) {
        let before = self.bps;
        match self.probes.conclude(at, self.losses.own()) {
            // It was not alone in lifting what is sent.
            Some(Outcome::Carried(_) | Outcome::Full(_)) if !self.may_probe() => self.probes.back_off(at),
            Some(Outcome::Carried(bps)) => {
                self.set(bps.max(before));
                if self.ceiling.is_some_and(|ceiling| bps > ceiling) {
                    self.ceiling = None;
                }
                if bps <= before + before / 50 {
                    self.probes.back_off(at);
                }
            }
            Some(Outcome::Full(bps)) => self.set(bps.max(before)),
            Some(Outcome::Nothing) | None => {}
        }
    }

    fn weigh_queue(&mut self, at: u64, load: Load) {
        match load {
            Load::Overfull => self.lower(at),
            Load::Filled => self.grown_at = at,
            Load::Moved => {
                (self.full_at, self.grown_at, self.draining, self.ceiling) = (0, at, false, None);
                self.probes.hurry(at);
            }
            Load::Free => {
                if std::mem::take(&mut self.draining) {
                    // What was kept back to empty the queue.
                    self.set(self.bps.max(self.ceiling.unwrap_or(0) * DRAIN_PERCENT / 100));
                }
                self.grow(at);
            }
        }
    }

    /// The queue is too long. What arrives is what the network carries; so this may be done again with each report.
    fn lower(&mut self, at: u64) {
        self.full_at = at;
        self.grown_at = at;
        let Some(carried) = self.carried(SPAN_SHORT) else { return };
        let long = self.delay.queue() > QUEUE_LONG;
        let to = carried * if long { DRAIN_LONG_PERCENT } else { DRAIN_PERCENT } / 100;
        if to < self.bps {
            self.ceiling = Some(match self.ceiling {
                Some(before) if (75..125).contains(&(before * 100 / carried.max(1))) => (before + carried) / 2,
                _ => carried,
            });
            self.draining = true;
            self.set(to);
        }
    }

    fn grow(&mut self, at: u64) {
        let passed = at.saturating_sub(self.grown_at).min(500_000);
        self.grown_at = at;
        if self.losses.is_trying() || self.silence.is_some() {
            return;
        }
        let Some(shown) = self.carried(SPAN_LONG) else { return };
        let most = shown.saturating_mul(SHOWN_PERCENT) / 100 + SHOWN_BPS;
        let ceiling = self.ceiling.filter(|ceiling| CEILING_PERCENT.contains(&(self.bps * 100 / ceiling.max(&1))));
        let a_second = match ceiling {
            Some(_) => (PACKET_BITS * 1_000_000 / (self.round_trip.unwrap_or(0) + 100_000))
                .min(self.bps * GROWTH_FULL_PERCENT / 100),
            None => self.bps * GROWTH_PERCENT / 100,
        };
        if self.bps < most {
            self.set((self.bps + a_second * passed / 1_000_000).min(most));
        }
        if self.ceiling.is_some_and(|ceiling| self.bps > ceiling * CEILING_PERCENT.end / 100) {
            self.ceiling = None;
        }
    }

    fn calm_at(&self) -> u64 {
        if self.full_at == 0 { 0 } else { self.full_at + CALM }
    }

    fn plan(&mut self, at: u64) {
        if at >= self.calm_at() && self.may_probe() && matches!(self.source, Source::Reports) {
            self.probes.plan(at, self.bps, self.aim);
        } else {
            self.probes.cancel();
        }
    }

    fn may_probe(&self) -> bool {
        !self.draining && self.silence.is_none() && !self.losses.is_trying()
    }

    fn is_waited_for(&self) -> bool {
        let known = self.silence.as_ref().map_or(0, |silence| silence.next).max(self.told + 1);
        self.sent.next().saturating_sub(known) > SILENCE_PACKETS
    }

    /// When the estimate falls, if nothing is told until then.
    fn silence_at(&self) -> Option<u64> {
        let cuts = self.silence.as_ref().map_or(0, |silence| silence.cuts);
        Some(self.waiting_since? + self.round_trip.unwrap_or(0) * 2 + SILENCE * (cuts + 1))
    }

    fn weigh_silence(&mut self, at: u64) {
        if self.is_waited_for() && self.silence_at().is_some_and(|due| at >= due) {
            let before = self.bps;
            let silence = self.silence.get_or_insert(Silence { before, cuts: 0, next: 0 });
            silence.cuts += 1;
            silence.next = self.sent.next();
            self.losses.abandon();
            self.set(before * SILENCE_PERCENT / 100);
        }
    }

    /// Something is told again, from this packet on.
    fn end_silence(&mut self, at: u64, first: u64) {
        let Some(silence) = self.silence.take() else { return };
        // Of most of the packets it was told, but what was told was lost: these were not.
        let missed = first.saturating_sub(self.told + 1);
        if missed * 2 > self.sent.next() - self.told {
            self.set(silence.before.max(self.bps));
        }
        self.losses.skip(self.sent.next());
        self.probes.hurry(at);
        self.grown_at = at;
    }
}
