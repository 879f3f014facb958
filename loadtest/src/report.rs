//! Results as people and machines read them.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::floor::Floor;

/// Three places of a distribution.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// `unit`: what the histogram's values are divided by.
    pub fn of(histogram: &Histogram<u64>, unit: f64) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / unit);
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// Three decimals are more than is measured.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Results of `loadtest sfu`. What needs a process to look at is absent without one.
#[derive(Clone, Debug, Serialize)]
pub struct SfuReport {
    pub shape: String,
    /// What received.
    pub bots: &'static str,
    pub secs: f64,
    pub burst: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Packets that publishers sent.
    pub sent: u64,
    /// Packets that arrived at receivers while the CPU was measured.
    pub forwarded: u64,
    pub forwarded_per_sec: f64,
    /// What the shape adds up to.
    pub offered_per_sec: f64,
    pub us_per_packet: Option<f64>,
    pub cpu_percent: Option<f64>,
    #[serde(flatten)]
    pub floor: Floor,
    pub floor_ratio: Option<f64>,
    pub floor_gso_ratio: Option<f64>,
    pub delay_ms: Quantiles,
    pub loss_pct: f64,
    /// Datagrams that came, and that bots were too slow to read: loss that is not the server's.
    pub bots_dropped: u64,
    pub rss_kib_per_subscriber: Option<f64>,
    pub join_ms: Quantiles,
    /// Tracks at receivers that there should be, and those that brought nothing.
    pub flows: usize,
    pub silent_flows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_load: Option<f64>,
}

impl SfuReport {
    pub fn print(&self, json: bool) -> Result<()> {
        let or_none = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        println!("{}, bursts of {}, {:.1} s, receivers of {}", self.shape, self.burst, self.secs, self.bots);
        println!("  packets/s      {:.0} of {:.0} offered", self.forwarded_per_sec, self.offered_per_sec);
        println!("  us per packet  {}, {} % of a core", or_none(self.us_per_packet, 2), or_none(self.cpu_percent, 0));
        println!(
            "  floor          {:.2} us (sendto), {:.2} us (GSO x10); ratios {} and {}",
            self.floor.floor_sendto_us,
            self.floor.floor_gso10_us,
            or_none(self.floor_ratio, 2),
            or_none(self.floor_gso_ratio, 2)
        );
        println!("  delay ms       p50 {}, p99 {}, max {}", self.delay_ms.p50, self.delay_ms.p99, self.delay_ms.max);
        println!("  loss           {:.3} %, {} of {} tracks silent", self.loss_pct, self.silent_flows, self.flows);
        if self.bots_dropped > 0 {
            println!(
                "                 bots were too slow for {} datagrams; that is not the server's",
                self.bots_dropped
            );
        }
        println!("  join ms        p50 {}, p99 {}", self.join_ms.p50, self.join_ms.p99);
        println!("  memory         {} KiB per subscriber", or_none(self.rss_kib_per_subscriber, 0));
        print_json(self, json)
    }
}

/// One load of a ramp.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Video packets a second of each publisher.
    pub video_pps: f64,
    pub forwarded_per_sec: f64,
    pub delay_ms: Quantiles,
    pub loss_pct: f64,
    pub us_per_packet: Option<f64>,
    pub cpu_percent: Option<f64>,
    pub bots_dropped: u64,
}

/// Results of `loadtest ramp`.
#[derive(Clone, Debug, Serialize)]
pub struct RampReport {
    pub shape: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    pub steps: Vec<Step>,
    /// The last load that was carried; absent if the first was too much.
    pub knee: Option<Step>,
    /// Why it ended there.
    pub ended: String,
    #[serde(flatten)]
    pub floor: Floor,
}

impl RampReport {
    pub fn print(&self, json: bool) -> Result<()> {
        println!("{}: {}", self.shape, self.ended);
        match &self.knee {
            Some(knee) => println!("knee: {:.0} packets/s at receivers", knee.forwarded_per_sec),
            None => println!("knee: below the first step"),
        }
        print_json(self, json)
    }
}

impl Step {
    pub fn line(&self) -> String {
        let cpu = self.us_per_packet.zip(self.cpu_percent);
        let cpu = cpu.map_or(String::new(), |(us, percent)| format!(", {us:.2} us a packet, {percent:.0} % of a core"));
        let Self { forwarded_per_sec: pps, delay_ms, loss_pct, .. } = self;
        format!(
            "{pps:>9.0} packets/s: delay p50 {} ms, p99 {} ms, loss {loss_pct:.3} %{cpu}",
            delay_ms.p50, delay_ms.p99
        )
    }
}

/// Results of `loadtest run`.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    pub scenario: String,
    pub secs: f64,
    pub joins: usize,
    pub leaves: usize,
    pub mutes: usize,
    pub forwarded: u64,
    pub us_per_packet: Option<f64>,
    pub cpu_percent: Option<f64>,
    #[serde(flatten)]
    pub floor: Floor,
    pub floor_ratio: Option<f64>,
    pub delay_ms: Quantiles,
    pub loss_pct: f64,
    pub bots_dropped: u64,
    pub join_ms: Quantiles,
    /// Tracks at receivers that were there together for some seconds, and those that brought nothing.
    pub flows: usize,
    pub silent_flows: usize,
    /// Limits of the scenario that were passed.
    pub broken: Vec<String>,
}

impl RunReport {
    pub fn print(&self, json: bool) -> Result<()> {
        let or_none = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        println!(
            "{}, {:.0} s: {} joins, {} leaves, {} mutes",
            self.scenario, self.secs, self.joins, self.leaves, self.mutes
        );
        println!("  us per packet  {}, {} % of a core", or_none(self.us_per_packet), or_none(self.cpu_percent));
        println!("  delay ms       p50 {}, p99 {}, max {}", self.delay_ms.p50, self.delay_ms.p99, self.delay_ms.max);
        println!("  loss           {:.3} %, {} of {} tracks silent", self.loss_pct, self.silent_flows, self.flows);
        println!("  join ms        p50 {}, p99 {}", self.join_ms.p50, self.join_ms.p99);
        self.broken.iter().for_each(|limit| eprintln!("loadtest: {limit}"));
        print_json(self, json)
    }
}

/// The object as the last line of standard output.
pub fn print_json(report: &impl Serialize, wanted: bool) -> Result<()> {
    if wanted {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::histogram;

    #[test]
    fn quantiles_are_in_the_asked_unit() {
        let mut delays = histogram();
        (1..=100u64).for_each(|ms| delays.saturating_record(ms * 1_000));
        let quantiles = Quantiles::of(&delays, 1e3);
        assert!((quantiles.p50 - 50.0).abs() < 0.1 && (quantiles.max - 100.0).abs() < 0.1, "{quantiles:?}");
        assert_eq!(Quantiles::of(&histogram(), 1e3).max, 0.0);
    }
}
