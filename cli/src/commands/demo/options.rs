//! The command line.

use std::time::Duration;

use clap::Args;

/// The subcommand as which this program is the example service.
pub(crate) const SERVICE_COMMAND: &str = "web";

/// Reloads an example service under load, gives it two bad versions, kills it once, and counts what
/// its clients lost.
///
/// Needs no systemd: a built-in receiver plays its part, unless --systemd asks for a real one.
/// Everything happens on 127.0.0.1 and in a temporary directory, and is gone afterwards.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    /// How many reloads; one of them meets a version that exits at start, one a version that hangs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub(super) reloads: u32,
    /// The time over which the reloads are spread
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// Seed of the load's and the script's randomness
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Let a real systemd supervise the service: the system's as root, else the user's own
    #[arg(long)]
    pub(super) systemd: bool,
    /// Print the result as JSON and nothing else to stdout: as `handover prove` does, and what the
    /// demo did
    #[arg(long)]
    pub(super) json: bool,
}
