//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::TypedValueParser};

/// Loads a Viva server with bots, and measures what arrives at them.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, long_about = None)]
#[command(
    after_help = "Exit codes: 0 done, 1 it could not be done or a scenario's limit was passed, 2 wrong command line."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// One load, measured for some seconds.
    Sfu(SfuArgs),
    /// What one packet costs this machine at least: copy, seal, send.
    Floor(FloorArgs),
    /// Raise the load until delay or loss breaks, and tell the knee.
    Ramp(RampArgs),
    /// The figures that are quoted: several shapes, several times, as a Markdown table.
    Table(TableArgs),
    /// Play a scenario: people join, leave and mute over time.
    Run(RunArgs),
}

/// Where the server is. Without --url one is started: VIVA_BIN, or `viva` beside this program.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// A server that runs already, as ws://127.0.0.1:7880.
    #[arg(long)]
    pub url: Option<String>,
    /// Its process on this machine, for CPU and memory.
    #[arg(long, value_name = "PID", requires = "url")]
    pub server_pid: Option<u32>,
    /// The API key for --url.
    #[arg(long, default_value = "devkey", env = "LOADTEST_API_KEY")]
    pub api_key: String,
    /// The secret of that key.
    #[arg(long, default_value = "secret", env = "LOADTEST_API_SECRET", hide_env_values = true)]
    pub api_secret: String,
    /// Media workers of the server that is started.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64).map(usize::from))]
    pub workers: usize,
    /// Has the server that is started send everybody everything, whatever their network carries
    #[arg(long)]
    pub no_congestion_control: bool,
}

/// How results are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// Print the results as one JSON object, the last line of standard output.
    #[arg(long)]
    pub json: bool,
    /// Draw the results.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// What publishers send.
#[derive(Args, Clone, Debug)]
pub struct MediaArgs {
    /// Video packets a second of each publisher; 0: none. The server takes 3,000 packets a second of one participant.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub video_pps: f64,
    /// Bytes of a video packet's payload.
    #[arg(long, default_value_t = 1_100, value_parser = clap::value_parser!(u16).range(64..=1_160).map(usize::from))]
    pub video_bytes: usize,
    /// Audio packets a second of each publisher; 0: none.
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub audio_pps: f64,
    /// Video packets that are sent at once, as frames are.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100).map(usize::from))]
    pub burst: usize,
    /// Video in three layers (q, h, f).
    #[arg(long)]
    pub simulcast: bool,
}

/// Who is in which room.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Rooms.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000).map(usize::from))]
    pub rooms: usize,
    /// People of each room who all publish and receive all others. Without --pubs, 3.
    #[arg(long, conflicts_with_all = ["pubs", "subs"], value_parser = clap::value_parser!(u16).range(2..=1_000).map(usize::from))]
    pub mesh: Option<usize>,
    /// People of each room who publish and receive nothing.
    #[arg(long, requires = "subs", value_parser = clap::value_parser!(u16).range(1..=1_000).map(usize::from))]
    pub pubs: Option<usize>,
    /// People of each room who receive every publisher and publish nothing.
    #[arg(long, requires = "pubs", value_parser = clap::value_parser!(u16).range(1..=10_000).map(usize::from))]
    pub subs: Option<usize>,
    /// Joins a second.
    #[arg(long, default_value_t = 50.0, value_parser = positive_rate)]
    pub join_rate: f64,
    /// One in so many receivers decrypts and measures delay; the others count packets.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1_000).map(usize::from))]
    pub decrypt_one_in: usize,
    /// Threads that drive bots; 0: one per core, four at most.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64).map(usize::from))]
    pub threads: usize,
}

/// Which WebRTC implementation receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Bots {
    /// str0m, as in the server.
    #[default]
    Str0m,
    /// The crate webrtc, another implementation; publishers stay with str0m. For builds with `--features webrtc`.
    Webrtc,
}

#[derive(Args, Clone, Debug)]
pub struct SfuArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub shape: ShapeArgs,
    #[command(flatten)]
    pub media: MediaArgs,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 8.0, value_parser = positive_rate)]
    pub secs: f64,
    /// Part of the media that receivers throw away, percent: the server then repairs video.
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    pub loss: f64,
    /// People who join while it is measured, at --join-rate, into rooms of ten of their own, where nobody publishes. The joins
    /// that are told are then theirs.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=10_000).map(usize::from))]
    pub joiners: usize,
    /// What receivers are made of; `webrtc` needs --pubs and --subs.
    #[arg(long, value_enum, default_value_t)]
    pub bots: Bots,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Clone, Debug)]
pub struct FloorArgs {
    /// Print the results as one JSON object, the last line of standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct RampArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub shape: ShapeArgs,
    #[command(flatten)]
    pub media: MediaArgs,
    /// Seconds of each step.
    #[arg(long, default_value_t = 3.0, value_parser = positive_rate)]
    pub step_secs: f64,
    /// What each step multiplies the video by.
    #[arg(long, default_value_t = 1.3, value_parser = factor)]
    pub factor: f64,
    /// The 99th percentile of delay that is too long, ms.
    #[arg(long, default_value_t = 50.0, value_parser = positive_rate)]
    pub p99_ms: f64,
    /// Loss that is too much, percent.
    #[arg(long, default_value_t = 0.5, value_parser = percent)]
    pub loss_pct: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Clone, Debug)]
pub struct TableArgs {
    /// Runs of each shape; the table has their medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99).map(usize::from))]
    pub runs: usize,
    /// Seconds of each run that are measured.
    #[arg(long, default_value_t = 6.0, value_parser = positive_rate)]
    pub secs: f64,
    /// Print all runs as one JSON array, the last line of standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The scenario, YAML; loadtest/scenarios holds examples.
    pub scenario: PathBuf,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Threads that drive bots; 0: one per core, four at most.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64).map(usize::from))]
    pub threads: usize,
    #[command(flatten)]
    pub output: OutputArgs,
}

fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| format!("`{text}` is no number"))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text).and_then(|n| (0.0..=100_000.0).contains(&n).then_some(n).ok_or_else(|| "0 to 100000".into()))
}

fn positive_rate(text: &str) -> Result<f64, String> {
    number(text).and_then(|n| (0.1..=100_000.0).contains(&n).then_some(n).ok_or_else(|| "0.1 to 100000".into()))
}

fn percent(text: &str) -> Result<f64, String> {
    number(text).and_then(|n| (0.0..100.0).contains(&n).then_some(n).ok_or_else(|| "percent, 0 to 99".into()))
}

fn factor(text: &str) -> Result<f64, String> {
    number(text).and_then(|n| (1.05..=10.0).contains(&n).then_some(n).ok_or_else(|| "1.05 to 10".into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shapes_do_not_mix() {
        let refused = |line: &str| Cli::try_parse_from(line.split(' ')).is_err();
        assert!(refused("loadtest sfu --mesh 3 --pubs 1 --subs 2"));
        assert!(refused("loadtest sfu --pubs 1"));
        assert!(refused("loadtest sfu --loss 100"));
        assert!(refused("loadtest sfu --server-pid 1"));
        assert!(!refused("loadtest sfu --rooms 20 --mesh 3 --json"));
        assert!(!refused("loadtest sfu --pubs 1 --subs 100 --burst 10"));
    }
}
