//! Loads a Viva server with bots that join as clients do, and measures what arrives at them.

mod args;
mod bot;
mod call;
mod cpu;
mod driver;
mod floor;
mod flow;
mod measure;
mod media;
#[cfg(feature = "webrtc")]
mod other;
mod plot;
mod progress;
mod ramp;
mod report;
mod run;
mod scenario;
mod server;
mod sfu;
mod signal;
mod stamp;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use args::{Cli, Command, FloorArgs};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    // Signalling is a few messages of each bot; media is on threads of its own, but for that of the crate webrtc.
    let threads = if cfg!(feature = "webrtc") { 2 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match &cli.command {
        Command::Sfu(args) => sfu::show(&runtime.block_on(sfu::run(args))?, &args.output)?,
        Command::Floor(args) => print_floor(args)?,
        Command::Ramp(args) => ramp::show(&runtime.block_on(ramp::run(args))?, args)?,
        Command::Table(args) => runtime.block_on(table::run(args))?,
        Command::Run(args) => {
            let report = runtime.block_on(run::run(args))?;
            run::show(&report, args)?;
            if !report.report.broken.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_floor(args: &FloorArgs) -> Result<()> {
    let floor = floor::measure()?;
    println!("sendto         {:.2} us per packet of 1,150 bytes: copy, AES-GCM, sendto", floor.floor_sendto_us);
    println!("GSO x10        {:.2} us per packet: the same, 10 per call", floor.floor_gso10_us);
    report::print_json(&floor, args.json)
}
