//! `loadtest run`: plays a scenario against a server, and holds what was seen against its limits.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    args::RunArgs,
    bot::BotReport,
    call::{Call, Role, room_name},
    cpu::udp_drops,
    floor,
    flow::histogram,
    media::Media,
    progress::Progress,
    report::{Quantiles, RunReport},
    scenario::{Act, Person, Scenario},
    server::Server,
    stamp::STAMP_BYTES,
};

/// Two who are connected and together for so long must have heard each other: longer than a microphone is shut.
const TOGETHER: Duration = Duration::from_secs(4);
const GRACE: Duration = Duration::from_millis(500);

pub struct Results {
    pub report: RunReport,
    delay_us: Histogram<u64>,
}

/// Somebody of the plan, as a bot.
struct Played {
    bot: u32,
    person: Person,
    joined: Duration,
    left: Option<Duration>,
}

pub async fn run(args: &RunArgs) -> Result<Results> {
    let scenario = Scenario::read(&args.scenario)?;
    let plan = scenario.plan();
    let progress = Progress::new(scenario.length().as_secs_f64());
    let floor_before = floor::measure()?;
    progress.say("starting the server");
    let server = Server::get(&args.server)?;
    let mut call = Call::new(&server, args.threads)?;
    call.shared.window.set(0, u64::MAX);
    let (begun, cpu) = (Instant::now(), server.process.map(|process| process.cpu()).transpose()?);
    let played = play(&scenario, &plan, &mut call, begun, &progress).await?;
    let secs = begun.elapsed().as_secs_f64();
    let spent = server.process.map(|process| process.cpu()).transpose()?.zip(cpu).map(|(now, then)| now - then);
    let arrived = call.arrived();
    sleep(GRACE).await;
    let reports = call.reports().await?;
    let bots_dropped = udp_drops(&reports.iter().map(|report| report.port).collect::<HashSet<_>>());
    let joins = call.joined.clone();
    call.end().await;
    drop(server);
    let floor = floor_before.between(floor::measure()?);
    progress.done();

    let seen = Seen::of(&reports);
    let (flows, silent_flows) = silence(&scenario, &played, &joins, &reports);
    let us_per_packet = spent.filter(|_| arrived > 0).map(|spent| spent.as_secs_f64() * 1e6 / arrived as f64);
    let mut join_us = histogram();
    joins.values().for_each(|took| join_us.saturating_record(took.as_micros() as u64));
    let count = |is: fn(&Act) -> bool| plan.iter().filter(|(_, act)| is(act)).count();
    let mut report = RunReport {
        scenario: args.scenario.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        secs,
        joins: count(|act| matches!(act, Act::Join(_))),
        leaves: count(|act| matches!(act, Act::Leave(_))),
        mutes: count(|act| matches!(act, Act::Mute(_, true))),
        forwarded: arrived,
        us_per_packet,
        cpu_percent: spent.map(|spent| spent.as_secs_f64() * 100.0 / secs),
        floor,
        floor_ratio: us_per_packet.map(|us| us / floor.floor_sendto_us),
        delay_ms: Quantiles::of(&seen.delay_us, 1e3),
        loss_pct: seen.loss_pct(),
        bots_dropped,
        join_ms: Quantiles::of(&join_us, 1e3),
        flows,
        silent_flows,
        broken: Vec::new(),
    };
    report.broken = broken(&scenario, &report);
    Ok(Results { report, delay_us: seen.delay_us })
}

async fn play(
    scenario: &Scenario,
    plan: &[(Duration, Act)],
    call: &mut Call,
    begun: Instant,
    progress: &Progress,
) -> Result<HashMap<usize, Played>> {
    let media = Arc::new(Media {
        video_pps: scenario.video.pps,
        video_bytes: scenario.video.bytes,
        burst: scenario.video.burst,
        audio_pps: scenario.audio.pps,
        audio_bytes: 80.max(STAMP_BYTES + 1),
        simulcast: scenario.video.simulcast,
    });
    let expects = scenario.phases.iter().map(|phase| phase.publishers).max().unwrap_or_default();
    let mut played = HashMap::<usize, Played>::new();
    let mut acts = plan.iter().peekable();
    while begun.elapsed() < scenario.length() {
        progress.at(begun.elapsed());
        call.check()?;
        while let Some((_, act)) = acts.next_if(|(at, _)| *at <= begun.elapsed()) {
            match act {
                Act::Join(person) => {
                    let publishes = person.publishes.then(|| media.clone());
                    let role = Role { publishes, receives: true, expects, decrypts: true, other: false };
                    let bot = call.join(room_name(person.room), role);
                    played.insert(person.id, Played { bot, person: *person, joined: begun.elapsed(), left: None });
                }
                Act::Leave(id) => {
                    if let Some(played) = played.get_mut(id) {
                        call.leave(played.bot);
                        played.left = Some(begun.elapsed());
                    }
                }
                Act::Mute(id, muted) => {
                    if let Some(played) = played.get(id) {
                        call.mute(played.bot, *muted);
                    }
                }
            }
        }
        let next = acts.peek().map_or(scenario.length(), |(at, _)| *at);
        // Also to see, meanwhile, whether anybody failed.
        let next = next.min(scenario.length()).min(begun.elapsed() + Duration::from_millis(200));
        sleep_until(begun + next).await;
    }
    Ok(played)
}

/// What came, without who should have got it: from the first packet of each track at each receiver to the last.
struct Seen {
    delay_us: Histogram<u64>,
    expected: u64,
    received: u64,
}

impl Seen {
    fn of(reports: &[BotReport]) -> Self {
        let mut seen = Self { delay_us: histogram(), expected: 0, received: 0 };
        for report in reports {
            // Bounds are the same everywhere.
            let _ = seen.delay_us.add(&report.tally.delay_us);
            seen.expected += report.tally.flows.values().map(|flow| flow.span()).sum::<u64>();
            seen.received += report.tally.flows.values().map(|flow| flow.received).sum::<u64>();
        }
        seen
    }

    fn loss_pct(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { (self.expected - self.received) as f64 * 100.0 / self.expected as f64 }
    }
}

/// Tracks at receivers that should have brought something, and those that did not.
fn silence(
    scenario: &Scenario,
    played: &HashMap<usize, Played>,
    joins: &HashMap<u32, Duration>,
    reports: &[BotReport],
) -> (usize, usize) {
    let heard: HashSet<(u32, u32)> =
        reports.iter().flat_map(|report| report.tally.flows.keys().map(|track| (report.spec.id, *track))).collect();
    let connected = |it: &Played| joins.get(&it.bot).map(|took| it.joined + *took);
    let end = |it: &Played| it.left.unwrap_or(scenario.length());
    let kinds = [(0, scenario.audio.pps), (1, scenario.video.pps)];
    let (mut flows, mut silent) = (0, 0);
    for receiver in played.values() {
        let others = played.values().filter(|other| {
            other.person.room == receiver.person.room && other.bot != receiver.bot && other.person.publishes
        });
        for publisher in others {
            let Some(from) = connected(receiver).max(connected(publisher)) else { continue };
            if connected(receiver).is_none() || connected(publisher).is_none() {
                continue;
            }
            if end(receiver).min(end(publisher)).saturating_sub(from) < TOGETHER {
                continue;
            }
            for (kind, _) in kinds.iter().filter(|(_, pps)| *pps > 0.0) {
                flows += 1;
                silent += usize::from(!heard.contains(&(receiver.bot, publisher.bot * 2 + kind)));
            }
        }
    }
    (flows, silent)
}

fn broken(scenario: &Scenario, report: &RunReport) -> Vec<String> {
    let expect = &scenario.expect;
    let mut broken = Vec::new();
    if report.loss_pct > expect.loss_pct {
        broken.push(format!("the loss of {:.2} % is above the scenario's {} %", report.loss_pct, expect.loss_pct));
    }
    if report.delay_ms.p99 > expect.delay_p99_ms {
        let p99 = report.delay_ms.p99;
        broken.push(format!("the delay's p99 of {p99} ms is above the scenario's {} ms", expect.delay_p99_ms));
    }
    if report.silent_flows > expect.silent_flows {
        let silent = report.silent_flows;
        broken.push(format!("{silent} tracks were silent; the scenario allows {}", expect.silent_flows));
    }
    if report.forwarded == 0 {
        broken.push("no media arrived at anybody".to_owned());
    }
    broken
}

/// Draws and prints.
pub fn show(results: &Results, args: &RunArgs) -> Result<()> {
    if let Some(file) = &args.output.plot {
        crate::plot::delays(file, &results.report.scenario, &results.delay_us)
            .with_context(|| format!("{} cannot be drawn", file.display()))?;
    }
    results.report.print(args.output.json)
}
