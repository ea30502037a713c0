//! `handover demo`: the example service under load, reloaded, given bad versions, killed, and its clients asked what they lost.

mod load;
mod manager;
mod notify_receiver;
mod processes;
mod progress;
mod report;
mod script;
mod supervisor;
mod systemd;
mod unit;
mod versions;

use std::ffi::OsString;
use std::fs::File;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};
use crate::out;
use manager::{Config, Manager};
use progress::Progress;
use supervisor::Supervisor;
use systemd::Systemd;
use versions::Versions;

/// The subcommand as which this program is the example service.
pub(crate) const SERVICE_COMMAND: &str = "web";
/// Within the demo's own directory.
const LOG: &str = "web.log";
/// The service's settings: short where a wait is shown, else the defaults.
const SERVICE_SETTINGS: [&str; 6] = ["--ready-timeout", "2s", "--drain-timeout", "10s", "--linger", "5s"];

/// Reloads an example service under load, gives it two bad versions, kills it once, and counts what its clients lost.
///
/// Needs no systemd: a built-in receiver plays its part, unless --systemd asks for a real one. Everything happens on 127.0.0.1
/// and in a temporary directory, and is gone afterwards.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// How many reloads; one of them meets a version that exits at start, one a version that hangs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    reloads: u32,
    /// The time over which the reloads are spread
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Seed of the load's and the script's randomness
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Let a real systemd supervise the service: the system's as root, else the user's own
    #[arg(long)]
    systemd: bool,
    /// Print the result as JSON and nothing else to stdout
    #[arg(long)]
    json: bool,
}

// Lines of at most 80 columns: what is longer is broken anew, and the columns with it.
const AFTER_HELP: &str = "\
Examples:
  handover demo                                half a minute, no systemd needed
  handover demo --systemd                      supervised by the real one
  handover demo --reloads 200 --duration 4m    a soak
  handover demo --json | jq .lost

Exit codes:
  0    nothing was lost but what was in flight in the process that was killed
  1    a request was lost, or a reload did not do what it should
  2    the command line is wrong
  3    it cannot be done here: no systemd, no memory; the message says more
  130  interrupted; everything that was started has been ended";

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let versions = Versions::new()?;
    let mut interrupts = Interrupts::new()?;
    let mut supervisor = start(&options, &versions).await?;
    let progress = Progress::new(&options);
    let (result, killed) = {
        let mut script = script::Script::new(&options, &supervisor, &versions, &progress);
        let result = tokio::select! {
            result = script.run() => result,
            () = interrupts.next() => Err(Failure::interrupted()),
        };
        (result.map(|()| script.report), script.killed)
    };
    progress.finish();
    // The log goes away with the directory, so it is read before anything is ended.
    let log = supervisor.log(&versions);
    let problems = tokio::select! {
        problems = supervisor.end(killed) => problems,
        // Dropped, the supervisor ends everything at once.
        () = interrupts.next() => return Err(Failure::interrupted()),
    };
    let mut report = result.map_err(|failure| failure.with(&log))?;
    report.problems.extend(problems);
    if options.json {
        out::line(report.json());
    } else {
        out::line(report.text());
    }
    if report.problems.is_empty() {
        return Ok(Outcome::Success);
    }
    if !options.json {
        out::line(log);
    }
    Ok(Outcome::Bad)
}

async fn start(options: &Options, versions: &Versions) -> Result<Supervisor, Failure> {
    let arguments: Vec<OsString> =
        std::iter::once(SERVICE_COMMAND).chain(SERVICE_SETTINGS).map(OsString::from).collect();
    if options.systemd {
        return Ok(Supervisor::Systemd(Box::new(Systemd::start(&versions.program(), &arguments).await?)));
    }
    let directory = versions.directory().to_owned();
    let manager = File::options().create(true).append(true).open(directory.join(LOG)).and_then(|log| {
        Manager::start(Config { program: versions.program(), arguments, directory: directory.clone(), log })
    });
    let manager = manager
        .map_err(|e| Failure::cannot_run(format!("the service cannot be started in {}: {e}", directory.display())))?;
    Ok(Supervisor::BuiltIn(Box::new(manager)))
}

/// Ctrl-C and its like. Once asked for, they no longer end this process by themselves, so what was started is cleaned up.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let handle = |kind| signal(kind).map_err(|e| Failure::cannot_run(format!("signals cannot be handled: {e}")));
        Ok(Self {
            interrupt: handle(SignalKind::interrupt())?,
            terminate: handle(SignalKind::terminate())?,
            hang_up: handle(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
