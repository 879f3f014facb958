//! The command line: what `viva` can be told, and its exit codes.
//!
//! 0: done. 1: it could not start, or stopped because of a fault. 2: the command line or the configuration is wrong.
//! Errors go to standard error as one sentence that says what to do; what was asked for goes to standard output.

mod doctor;
mod models;
mod token;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, ConfigErrors, Origins, Sources},
    interview::library::{Library, LibraryError},
    server,
    tls::Tls,
};

/// It could not start, or stopped because of a fault.
const EXIT_FAULT: u8 = 1;
/// The command line or the configuration is wrong; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// A media server for live interviews, with an AI interviewer inside.
#[derive(Debug, Parser)]
#[command(name = "viva", version, about, long_about = None, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done, 1 could not start or failed, 2 wrong command line or configuration.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ConfigArgs),
    /// Mint an access token and print it.
    Token(Box<token::TokenArgs>),
    /// List, fetch and check the models for recognition and voice.
    Models(models::ModelsArgs),
    /// Look at a server as its clients will, and say what keeps them out and what to do.
    Doctor(Box<doctor::DoctorArgs>),
    /// Check the configuration, the plans and the personas; print what is in force, secrets hidden.
    CheckConfig(ConfigArgs),
}

/// Where the configuration comes from. Flags win over the environment, the environment over the file.
#[derive(Args, Clone, Debug, Default)]
struct ConfigArgs {
    /// YAML file with the configuration; without it, config/server.yaml is read if it is there.
    #[arg(long, value_name = "FILE", env = "VIVA_CONFIG")]
    config: Option<PathBuf>,
    /// For trying Viva on your own machine: the API key `devkey` with the secret `secret`, and practice interviews for
    /// everybody. Never use it where others can reach the server.
    #[arg(long)]
    dev: bool,
    /// Address and port of HTTP, WebSocket and the page (server.http_listen).
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Address and port for /metrics alone (server.metrics_listen).
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<String>,
    /// First UDP port of media; each worker takes the next (rtc.udp_port_base).
    #[arg(long, value_name = "PORT")]
    udp_port_base: Option<String>,
    /// Address that clients send media to; may be given several times (rtc.advertise_ips).
    #[arg(long, value_name = "IP")]
    advertise_ip: Vec<String>,
    /// Folder with the models (models.dir).
    #[arg(long, value_name = "DIR")]
    models_dir: Option<String>,
    /// What to log, as `info` or `info,viva::rooms=debug` (server.log.filter).
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any other key, as `--set interview.endpointing.min_delay_ms=400`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value, as interview.no_show_secs=60")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl ConfigArgs {
    fn load(&self) -> Result<(Config, Origins), Failure> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, key: &str, value: Option<&String>| {
            flags.extend(value.map(|value| (name.to_owned(), key.to_owned(), value.clone())));
        };
        flag("--listen", "server.http_listen", self.listen.as_ref());
        flag("--metrics-listen", "server.metrics_listen", self.metrics_listen.as_ref());
        flag("--udp-port-base", "rtc.udp_port_base", self.udp_port_base.as_ref());
        let ips = self.advertise_ip.join(",");
        flag("--advertise-ip", "rtc.advertise_ips", Some(&ips).filter(|ips| !ips.is_empty()));
        flag("--models-dir", "models.dir", self.models_dir.as_ref());
        flag("--log", "server.log.filter", self.log.as_ref());
        self.set.iter().for_each(|(key, value)| flag("--set", key, Some(value)));
        let sources =
            Sources { file: self.config.clone(), dev: self.dev, env: environment(std::env::vars_os()), flags };
        Ok(Config::load(&sources)?)
    }
}

/// The variables that are text. Others are not ours, and may be anything.
fn environment(vars: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Why a command ended without doing what it should.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration is wrong.
    Usage(String),
    /// It could not be done.
    Fault(String),
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Usage(errors.to_string())
    }
}

impl From<LibraryError> for Failure {
    fn from(error: LibraryError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs the command of this process's command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(args) => args.load().and_then(|(config, _)| server::run(config, args.dev)),
        Command::Token(args) => token::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Doctor(args) => doctor::run(*args),
        Command::CheckConfig(args) => check_config(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("viva: {}", message.trim_end());
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Fault(message)) => {
            eprintln!("viva: {}", message.trim_end());
            ExitCode::from(EXIT_FAULT)
        }
    }
}

fn check_config(args: &ConfigArgs) -> Result<(), Failure> {
    let (config, _) = args.load()?;
    let library = Library::load(&config.interview.plans_dir, &config.interview.personas_dir)?;
    if config.server.tls.is_on() {
        let tls = Tls::load(&config.server.tls).map_err(|error| Failure::Usage(error.to_string()))?;
        if let Some(warning) = tls.validity().warning(std::time::SystemTime::now()) {
            eprintln!("viva: {warning}");
        }
    }
    print!("{}", config.to_yaml());
    eprintln!(
        "The configuration is valid, and so are {} plans and {} personas.",
        library.plans().len(),
        library.personas().len()
    );
    Ok(())
}
