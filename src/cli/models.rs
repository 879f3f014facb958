//! `viva models`: lists, fetches and checks the models for recognition and voice.

use clap::{Args, Subcommand};

use super::{ConfigArgs, Failure};
use crate::models::{self, Presence, Pulled, Verdict};

/// Bytes of a megabyte, as sizes are shown.
const MEGABYTE: u64 = 1_000_000;

#[derive(Args, Debug)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Show the models that can be fetched, and which are here.
    List(ConfigArgs),
    /// Fetch models into the models folder; goes on where it stopped, and checks what came.
    Pull {
        /// Names as `viva models list` shows them; without any, the usual ones.
        names: Vec<String>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Check every model that is here, by its checksum where that is known.
    Verify(ConfigArgs),
}

pub(super) fn run(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        ModelsCommand::List(config) => list(config),
        ModelsCommand::Pull { names, config } => pull(names, config),
        ModelsCommand::Verify(config) => verify(config),
    }
}

fn list(config: &ConfigArgs) -> Result<(), Failure> {
    let dir = config.load()?.0.models.dir;
    println!("Models in {}:", dir.display());
    for (model, presence) in models::list(&dir) {
        let state = match presence {
            Presence::Missing => "not here",
            Presence::Partial => "begun",
            Presence::WrongSize => "damaged",
            Presence::Present => "here",
        };
        println!("  {:<24}{:>5} MB  {state:<9} {}", model.name, model.bytes().div_ceil(MEGABYTE), model.about);
    }
    Ok(())
}

fn pull(names: &[String], config: &ConfigArgs) -> Result<(), Failure> {
    let config = config.load()?.0.models;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Fault(format!("cannot start: {error}")))?;
    let pulled = runtime.block_on(models::pull(&config.dir, &config.base_url, names));
    let (done, failed) = match pulled {
        Ok(done) => (done, None),
        Err(mut unfinished) => (std::mem::take(&mut unfinished.done), Some(unfinished)),
    };
    for one in done {
        match one {
            Pulled::Present(name) => println!("{name}: is here already"),
            Pulled::Fetched(name) => println!("{name}: fetched and checked"),
        }
    }
    failed.map_or(Ok(()), |unfinished| Err(Failure::Fault(unfinished.to_string())))
}

fn verify(config: &ConfigArgs) -> Result<(), Failure> {
    let dir = config.load()?.0.models.dir;
    let cannot = |error| Failure::Fault(format!("{} cannot be read: {error}", dir.display()));
    let verdicts = models::verify(&dir).map_err(cannot)?;
    if verdicts.is_empty() {
        println!("There are no models in {}; `viva models pull` fetches some.", dir.display());
    }
    for (path, verdict) in &verdicts {
        println!("{}: {verdict}", path.display());
    }
    match verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Bad(_))).count() {
        0 => Ok(()),
        bad => Err(Failure::Fault(format!(
            "{bad} of {} files are bad: remove them and `viva models pull`",
            verdicts.len()
        ))),
    }
}
