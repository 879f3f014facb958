//! `loadtest table`: the figures that are quoted, each shape several times, as a Markdown table.

use anyhow::{Result, bail, ensure};
use clap::Parser;
use serde::Serialize;

use crate::{
    args::{Cli, Command, SfuArgs, TableArgs},
    cpu::machine_load,
    floor::median,
    report::{SfuReport, print_json},
    sfu,
};

/// Names, and the options of `loadtest sfu` that make them.
const SHAPES: [(&str, &str); 8] = [
    ("20 rooms x 3", "--rooms 20 --mesh 3"),
    ("20 rooms x 3, no congestion control", "--rooms 20 --mesh 3 --no-congestion-control"),
    ("20 rooms x 3, two workers", "--rooms 20 --mesh 3 --workers 2"),
    ("1 -> 100", "--pubs 1 --subs 100"),
    ("1 -> 100, no congestion control", "--pubs 1 --subs 100 --no-congestion-control"),
    ("1 -> 20, bursts of 10 at 2,500/s", "--pubs 1 --subs 20 --video-pps 2450 --burst 10"),
    ("3 -> 40, 240,000/s, 1 in 20 decrypts", "--pubs 3 --subs 40 --video-pps 2000 --audio-pps 0 --decrypt-one-in 20"),
    ("200 joins in 5 s, 20 rooms x 3 running", "--rooms 20 --mesh 3 --joiners 200 --join-rate 40"),
];

const HEAD: &str = "\
| shape | packets/s | µs per packet (min–max) | of floor `sendto` | of floor GSO | CPU % | delay p50 ms | p99 ms | max ms \
| loss % | silent | KiB per subscriber | join p50 ms | p99 ms |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    runs: Vec<SfuReport>,
}

/// Runs everything; some ten minutes. Rows are printed as they are done.
pub async fn run(args: &TableArgs) -> Result<()> {
    let mut rows = Vec::new();
    println!("{HEAD}");
    for (name, options) in SHAPES {
        let sfu_args = parse(args, options)?;
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            match sfu::run(&sfu_args).await {
                Ok(results) => runs.push(results.report),
                // The others may still do.
                Err(error) => eprintln!("loadtest: {name}: {error:#}"),
            }
        }
        match runs.is_empty() {
            true => println!("| {name} | failed |"),
            false => println!("{}", line(name, &runs)),
        }
        rows.push(Row { name, runs });
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = machine_load().map_or(String::new(), |load| format!(", load of the last minute {load:.1}"));
    let floors: Vec<_> = rows.iter().flat_map(|row| &row.runs).map(|run| run.floor).collect();
    println!(
        "\nMedians of {} runs of {} s on {cores} cores, server and bots on the one machine{load}. Floor of 1,150 bytes: \
         `sendto` {:.2} µs, GSO x10 {:.2} µs.",
        args.runs,
        args.secs,
        median(&mut floors.iter().map(|floor| floor.floor_sendto_us).collect::<Vec<_>>()),
        median(&mut floors.iter().map(|floor| floor.floor_gso10_us).collect::<Vec<_>>()),
    );
    print_json(&rows, args.json)?;
    ensure!(rows.iter().all(|row| row.runs.len() == args.runs), "some runs failed");
    Ok(())
}

fn parse(args: &TableArgs, options: &str) -> Result<SfuArgs> {
    let secs = args.secs.to_string();
    let line = ["loadtest", "sfu", "--secs", &secs].into_iter().chain(options.split(' '));
    match Cli::try_parse_from(line)?.command {
        Command::Sfu(args) => Ok(args),
        _ => bail!("shapes are options of `sfu`"),
    }
}

fn line(name: &str, runs: &[SfuReport]) -> String {
    let of = |value: fn(&SfuReport) -> f64| median(&mut runs.iter().map(value).collect::<Vec<_>>());
    let us: Vec<f64> = runs.iter().filter_map(|run| run.us_per_packet).collect();
    let (least, most) = us.iter().fold((f64::MAX, 0.0), |(least, most), us| (us.min(least), us.max(most)));
    format!(
        "| {name} | {:.0} | **{:.2}** ({least:.2}–{most:.2}) | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.1} | {:.3} | {:.0} \
         | {:.0} | {:.0} | {:.0} |",
        of(|run| run.forwarded_per_sec),
        of(|run| run.us_per_packet.unwrap_or_default()),
        of(|run| run.floor_ratio.unwrap_or_default()),
        of(|run| run.floor_gso_ratio.unwrap_or_default()),
        of(|run| run.cpu_percent.unwrap_or_default()),
        of(|run| run.delay_ms.p50),
        of(|run| run.delay_ms.p99),
        of(|run| run.delay_ms.max),
        of(|run| run.loss_pct),
        of(|run| run.silent_flows as f64),
        of(|run| run.rss_kib_per_subscriber.unwrap_or_default()),
        of(|run| run.join_ms.p50),
        of(|run| run.join_ms.p99),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_command_line() {
        let args = TableArgs { runs: 1, secs: 6.0, json: false };
        for (name, options) in SHAPES {
            let parsed = parse(&args, options).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(parsed.secs, 6.0);
        }
    }
}
