//! `loadtest ramp`: the same call with ever more video, until delay or loss says that it is too much.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use crate::{
    args::{Bots, RampArgs},
    call::{self, Call, cast, flows, shape_text},
    floor,
    measure::{Plan, Totals, join_all, measure, warm_up},
    media::Media,
    progress::Progress,
    report::{Quantiles, RampReport, Step},
    server::Server,
};

/// Packets a second that the server takes of one participant, with some room: beyond, it drops by intention.
const PARTICIPANT_PPS_MAX: f64 = 2_900.0;
/// Until a new rate shows.
const SETTLE: Duration = Duration::from_millis(500);
/// Publishers that send less of their rate than this are the limit themselves.
const SENT_MIN: f64 = 0.95;

pub async fn run(args: &RampArgs) -> Result<RampReport> {
    let media = call::media(&args.media)?;
    if media.video_pps <= 0.0 {
        bail!("a ramp raises the video: set --video-pps above 0");
    }
    let progress = Progress::new(args.step_secs);
    let floor_before = floor::measure()?;
    progress.say("starting the server");
    let server = Server::get(&args.server)?;
    let mut call = Call::new(&server, args.shape.threads)?;
    join_all(&mut call, cast(&args.shape, &media, Bots::Str0m), args.shape.join_rate, &progress).await?;
    let expected = flows(&args.shape, &media);
    warm_up(&mut call, expected, &progress).await?;
    let (mut steps, mut video_pps) = (Vec::<Step>::new(), media.video_pps);
    let ended = loop {
        call.set_video_pps(video_pps);
        sleep(SETTLE).await;
        let plan = Plan { secs: args.step_secs, ..Plan::default() };
        let measured = measure(&mut call, server.process, plan, &progress).await?;
        let totals = Totals::of(&call.reports().await?, expected);
        let step = Step {
            video_pps,
            forwarded_per_sec: measured.arrived as f64 / measured.secs,
            delay_ms: Quantiles::of(&totals.delay_us, 1e3),
            loss_pct: totals.loss_pct(),
            us_per_packet: measured.us_per_packet(),
            cpu_percent: measured.cpu.map(|cpu| cpu * 100.0 / measured.secs),
            bots_dropped: measured.bots_dropped,
        };
        progress.line(&step.line());
        let sent = totals.sent as f64 / (wanted(args, &media, video_pps) * args.step_secs);
        steps.push(step);
        let last = &steps[steps.len() - 1];
        if let Some(why) = too_much(args, last, sent) {
            break why;
        }
        video_pps *= args.factor;
        if video_pps + media.audio_pps > PARTICIPANT_PPS_MAX {
            break "all steps are carried, and the server takes no more packets of one participant: start with more \
                   publishers or receivers"
                .to_owned();
        }
    };
    call.end().await;
    progress.done();
    let floor = floor_before.between(floor::measure()?);
    let carried = steps.iter().rev().find(|step| too_much(args, step, 1.0).is_none()).cloned();
    let workers = args.server.url.is_none().then_some(args.server.workers);
    Ok(RampReport { shape: shape_text(&args.shape), workers, steps, knee: carried, ended, floor })
}

/// Packets that all publishers should send a second.
fn wanted(args: &RampArgs, media: &Media, video_pps: f64) -> f64 {
    let publishers = args.shape.rooms * args.shape.pubs.unwrap_or_else(|| args.shape.mesh.unwrap_or(3));
    publishers as f64 * (video_pps + media.audio_pps)
}

fn too_much(args: &RampArgs, step: &Step, sent: f64) -> Option<String> {
    if step.delay_ms.p99 > args.p99_ms {
        return Some(format!("the delay's p99 of {} ms is above {} ms", step.delay_ms.p99, args.p99_ms));
    }
    if step.loss_pct > args.loss_pct {
        let own = match step.bots_dropped {
            0 => String::new(),
            dropped => format!("; {dropped} datagrams of it bots were too slow to read"),
        };
        return Some(format!("the loss of {:.2} % is above {} %{own}", step.loss_pct, args.loss_pct));
    }
    (sent < SENT_MIN).then(|| format!("the bots themselves cannot send more: {:.0} % of their rate", sent * 100.0))
}

/// Draws and prints.
pub fn show(report: &RampReport, args: &RampArgs) -> Result<()> {
    if let Some(file) = &args.output.plot {
        let steps: Vec<_> = report.steps.iter().map(|step| (step.forwarded_per_sec, step.delay_ms.p99)).collect();
        crate::plot::ramp(file, &report.shape, &steps, args.p99_ms)
            .with_context(|| format!("{} cannot be drawn", file.display()))?;
    }
    report.print(args.output.json)
}
