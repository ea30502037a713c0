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
#[command(after_help = AFTER_HELP)]
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

// Lines of at most 80 columns: what is longer is broken anew, and the columns with it.
const AFTER_HELP: &str = "\
Examples:
  handover demo                                half a minute, no systemd needed
  handover demo --systemd                      supervised by the real one
  handover demo --reloads 200 --duration 4m    a soak
  handover demo --json | jq .total.lost

Exit codes:
  0    nothing was lost but what was in flight in the process that was killed
  1    a request was lost, or a reload did not do what it should
  2    the command line is wrong
  3    it cannot be done here: no systemd, no memory; the message says more
  130  interrupted; everything that was started has been ended";
