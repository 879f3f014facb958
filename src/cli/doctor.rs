//! `viva doctor`: looks at a server as its clients will.

use std::io::{IsTerminal, stdout};

use clap::Args;

use super::{ConfigArgs, Failure};
use crate::doctor::{self, Options};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The server's address as clients have it, as wss://viva.example.org; from any machine. Without it, this machine is
    /// looked at, too, and the address is that of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Token of the server to join with; without it, one is made with the configured key.
    #[arg(long, value_name = "TOKEN", env = "VIVA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: DoctorArgs) -> Result<(), Failure> {
    let (config, _) = args.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Fault(format!("cannot start: {error}")))?;
    let report = runtime.block_on(doctor::examine(&config, &Options { url: args.url, token: args.token }));
    match args.json {
        true => println!("{}", report.to_json()),
        false => print!("{}", report.to_text(stdout().is_terminal())),
    }
    match report.has_failed() {
        true => Err(Failure::Fault("something keeps clients out; see above".into())),
        false => Ok(()),
    }
}
