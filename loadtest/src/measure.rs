//! A call is filled, warmed up and measured; the same for every command.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    bot::BotReport,
    call::{Call, Role},
    cpu::{Process, udp_drops},
    flow::{Sent, histogram},
    progress::Progress,
    stamp::now_ns,
};

/// The longest until every track has come to each of its receivers.
const WARM_UP_MAX: Duration = Duration::from_secs(15);
/// After that the call runs on for so long, unmeasured.
const WARM: Duration = Duration::from_millis(500);
/// What was sent in the window may still come until then; retransmissions take longer.
const GRACE: Duration = Duration::from_millis(500);
const GRACE_LOSSY: Duration = Duration::from_secs(2);

/// Joins at the given rate, and waits until all are in.
pub async fn join_all(call: &mut Call, cast: Vec<(String, Role)>, rate: f64, progress: &Progress) -> Result<()> {
    let (all, begun) = (cast.len(), Instant::now());
    for (n, (room, role)) in cast.into_iter().enumerate() {
        sleep_until(begun + Duration::from_secs_f64(n as f64 / rate)).await;
        call.join(room, role);
        call.check()?;
        progress.say(&format!("joining: {} of {all}", call.joined.len()));
    }
    call.settle(|joined| progress.say(&format!("joining: {joined} of {all}"))).await
}

/// Runs until every track has come through.
pub async fn warm_up(call: &mut Call, expected: usize, progress: &Progress) -> Result<()> {
    progress.say("waiting for every track");
    call.shared.window.set(0, u64::MAX);
    let begun = Instant::now();
    loop {
        sleep(Duration::from_millis(200)).await;
        call.check()?;
        let heard: usize = call.reports().await?.iter().map(heard).sum();
        // Who stays silent is told in the report.
        if heard >= expected || begun.elapsed() > WARM_UP_MAX {
            break;
        }
    }
    sleep(WARM).await;
    Ok(())
}

fn heard(report: &BotReport) -> usize {
    report.tally.flows.len() + report.tally.raw.len()
}

/// What is measured.
#[derive(Default)]
pub struct Plan {
    pub secs: f64,
    /// Receivers throw packets away: those that are sent again take longer.
    pub lossy: bool,
    /// Who joins meanwhile, and how many a second.
    pub joiners: Vec<(String, Role)>,
    pub join_rate: f64,
}

/// What was seen from outside.
pub struct Measured {
    pub secs: f64,
    /// Packets that came to receivers.
    pub arrived: u64,
    /// Seconds of the server's CPU.
    pub cpu: Option<f64>,
    /// Datagrams that came, and that bots were too slow to read.
    pub bots_dropped: u64,
}

impl Measured {
    /// Microseconds of the server's CPU for each packet.
    pub fn us_per_packet(&self) -> Option<f64> {
        self.cpu.filter(|_| self.arrived > 0).map(|cpu| cpu * 1e6 / self.arrived as f64)
    }
}

/// Measures for some seconds, and returns when everything that was sent meanwhile has had time to come.
pub async fn measure(call: &mut Call, process: Option<Process>, plan: Plan, progress: &Progress) -> Result<Measured> {
    // What is under way between two windows must count in neither.
    call.shared.window.close();
    call.reset();
    let ports = call.reports().await?.iter().map(|report| report.port).collect();
    let drops = udp_drops(&ports);
    let span = Duration::from_secs_f64(plan.secs);
    let from = now_ns() + 50_000_000;
    call.shared.window.set(from, from + span.as_nanos() as u64);
    sleep(Duration::from_millis(50)).await;
    let (begun, arrived) = (Instant::now(), call.arrived());
    let cpu = process.map(|process| process.cpu()).transpose()?;
    let end = begun + span;
    for (n, (room, role)) in plan.joiners.into_iter().enumerate() {
        sleep_until((begun + Duration::from_secs_f64(n as f64 / plan.join_rate)).min(end)).await;
        call.join(room, role);
        call.check()?;
        progress.at(begun.elapsed());
    }
    while Instant::now() < end {
        progress.at(begun.elapsed());
        sleep_until((Instant::now() + Duration::from_millis(100)).min(end)).await;
        call.check()?;
    }
    let spent = process.map(|process| process.cpu()).transpose()?.zip(cpu).map(|(now, then)| now - then);
    let (secs, arrived) = (begun.elapsed().as_secs_f64(), call.arrived() - arrived);
    sleep(if plan.lossy { GRACE_LOSSY } else { GRACE }).await;
    call.settle(|_| {}).await?;
    ensure!(arrived > 0, "no media arrived at anybody: is UDP open between here and the server?");
    let bots_dropped = udp_drops(&ports) - drops;
    Ok(Measured { secs, arrived, cpu: spent.map(|spent| spent.as_secs_f64()), bots_dropped })
}

/// What all receivers saw together.
pub struct Totals {
    pub sent: u64,
    pub silent: usize,
    pub delay_us: Histogram<u64>,
    expected: u64,
    missing: u64,
}

impl Totals {
    /// Of bots that were there before the window began: each is to get everything that the others of its room sent.
    pub fn of(reports: &[BotReport], flows: usize) -> Self {
        let mut totals = Self { sent: 0, silent: 0, delay_us: histogram(), expected: 0, missing: 0 };
        let mut rooms: HashMap<&str, Vec<(u32, Sent)>> = HashMap::new();
        for report in reports {
            totals.sent += report.sent.values().map(|sent| sent.count()).sum::<u64>();
            rooms.entry(&report.spec.room).or_default().extend(report.sent.iter().map(|(track, sent)| (*track, *sent)));
        }
        let mut heard = 0;
        for report in reports.iter().filter(|report| report.spec.receives) {
            // Bounds are the same everywhere.
            let _ = totals.delay_us.add(&report.tally.delay_us);
            heard += self::heard(report);
            for flow in report.tally.raw.values() {
                totals.expected += flow.span();
                totals.missing += flow.span().saturating_sub(flow.received);
            }
            let tracks = rooms.get(report.spec.room.as_str()).into_iter().flatten();
            for (track, sent) in tracks.filter(|(track, _)| report.spec.decrypts && track / 2 != report.spec.id) {
                let received = report.tally.flows.get(track).map_or(0, |flow| flow.received);
                totals.expected += sent.count();
                totals.missing += sent.count().saturating_sub(received);
            }
        }
        totals.silent = flows.saturating_sub(heard);
        totals
    }

    pub fn loss_pct(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { self.missing as f64 * 100.0 / self.expected as f64 }
    }
}
