//! `loadtest sfu`: one load, measured at its receivers for some seconds.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use crate::{
    args::{Bots, OutputArgs, SfuArgs},
    call::{self, Call, Role, cast, flows, shape_text},
    cpu::machine_load,
    floor,
    flow::histogram,
    measure::{Plan, Totals, join_all, measure, warm_up},
    progress::Progress,
    report::{Quantiles, SfuReport},
    server::Server,
};

/// People who join while it is measured, in each of their rooms.
const JOINERS_PER_ROOM: usize = 10;

pub struct Results {
    pub report: SfuReport,
    /// All delays, for drawing.
    pub delay_us: Histogram<u64>,
}

pub async fn run(args: &SfuArgs) -> Result<Results> {
    let media = call::media(&args.media)?;
    check_bots(args)?;
    let progress = Progress::new(args.secs);
    progress.say("measuring the floor");
    let floor_before = floor::measure()?;
    progress.say("starting the server");
    let mut server = Server::get(&args.server)?;
    let rss_before = server.process.map(|process| process.rss_kib()).transpose()?;
    let mut call = Call::new(&server, args.shape.threads)?;
    let cast = cast(&args.shape, &media, args.bots);
    let receivers = cast.iter().filter(|(_, role)| role.receives).count();
    join_all(&mut call, cast, args.shape.join_rate, &progress).await?;
    call.shared.loss_ppm.store((args.loss * 10_000.0) as u64, Ordering::Relaxed);
    let expected = flows(&args.shape, &media);
    warm_up(&mut call, expected, &progress).await?;

    let steady = call.joined.len() as u32;
    let plan =
        Plan { secs: args.secs, lossy: args.loss > 0.0, joiners: joiners(args), join_rate: args.shape.join_rate };
    let measured = measure(&mut call, server.process, plan, &progress).await;
    let measured = match measured {
        Err(error) if !server.is_alive() => Err(error.context("the server ended during the test")),
        other => other,
    }?;
    let rss_after = server.process.map(|process| process.rss_kib()).transpose()?;
    let reports = call.reports().await?;
    let joins = quantiles_ms(call.joined.iter().filter(|(bot, _)| args.joiners == 0 || **bot >= steady));
    call.end().await;
    drop(server);
    progress.say("measuring the floor");
    let floor = floor_before.between(floor::measure()?);
    progress.done();

    let steady: Vec<_> = reports.into_iter().filter(|report| report.spec.id < steady).collect();
    let totals = Totals::of(&steady, expected);
    let us_per_packet = measured.us_per_packet();
    let grown = rss_after.zip(rss_before).map(|(after, before)| after.saturating_sub(before) as f64);
    let report = SfuReport {
        shape: shape_text(&args.shape),
        secs: measured.secs,
        bots: if args.bots == Bots::Str0m { "str0m" } else { "webrtc" },
        burst: media.burst,
        workers: args.server.url.is_none().then_some(args.server.workers),
        sent: totals.sent,
        forwarded: measured.arrived,
        forwarded_per_sec: measured.arrived as f64 / measured.secs,
        offered_per_sec: expected as f64 / media.tracks() as f64 * media.received_pps(),
        us_per_packet,
        cpu_percent: measured.cpu.map(|cpu| cpu * 100.0 / measured.secs),
        floor,
        floor_ratio: us_per_packet.map(|us| us / floor.floor_sendto_us),
        floor_gso_ratio: us_per_packet.map(|us| us / floor.floor_gso10_us),
        delay_ms: Quantiles::of(&totals.delay_us, 1e3),
        loss_pct: totals.loss_pct(),
        bots_dropped: measured.bots_dropped,
        rss_kib_per_subscriber: grown.map(|kib| kib / (receivers + args.joiners).max(1) as f64),
        join_ms: joins,
        flows: expected,
        silent_flows: totals.silent,
        machine_load: machine_load(),
    };
    Ok(Results { report, delay_us: totals.delay_us })
}

/// What receivers of the crate webrtc cannot do.
fn check_bots(args: &SfuArgs) -> Result<()> {
    if args.bots == Bots::Str0m {
        return Ok(());
    }
    ensure!(
        cfg!(feature = "webrtc"),
        "this build has no bots of the crate webrtc: cargo build --release --locked -p loadtest --features webrtc"
    );
    ensure!(args.shape.subs.is_some(), "--bots webrtc is for receivers: give --pubs and --subs");
    let plain = args.loss == 0.0 && args.shape.decrypt_one_in == 1;
    ensure!(plain, "--bots webrtc goes with neither --loss nor --decrypt-one-in");
    Ok(())
}

/// Rooms of their own: in the others each would bring as much media as the whole call has.
fn joiners(args: &SfuArgs) -> Vec<(String, Role)> {
    let role = Role { publishes: None, receives: true, expects: 1, decrypts: true, other: args.bots == Bots::Webrtc };
    (0..args.joiners).map(|n| (format!("joining-{}", n / JOINERS_PER_ROOM), role.clone())).collect()
}

fn quantiles_ms<'a>(joined: impl Iterator<Item = (&'a u32, &'a Duration)>) -> Quantiles {
    let mut histogram = histogram();
    joined.for_each(|(_, took)| histogram.saturating_record(took.as_micros() as u64));
    Quantiles::of(&histogram, 1e3)
}

/// Draws and prints.
pub fn show(results: &Results, output: &OutputArgs) -> Result<()> {
    if let Some(file) = &output.plot {
        crate::plot::delays(file, &results.report.shape, &results.delay_us)
            .with_context(|| format!("{} cannot be drawn", file.display()))?;
    }
    results.report.print(output.json)
}
