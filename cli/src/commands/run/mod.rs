//! `handover run`: any program, reloaded as a service of the library is.

mod metrics;
mod parse;
mod watch;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use handover::supervise::{OnCrash, Passing, Ready, Senders, StopSignals, Supervisor, asked_to_go_on};
use handover::{Error, Settings};

use crate::failure::{Failure, Outcome};
use crate::out;
use metrics::Metrics;
use parse::SocketSpec;

/// Runs a program with sockets that outlive it, and swaps it for its next version on SIGHUP or
/// `handover reload`.
///
/// The sockets come from systemd (a .socket unit), or are bound here, and are held for as long as
/// this runs; its pid never changes. On a reload the program is started anew, from the file that is
/// at its path then. When that one is ready, the old one is told to go and finishes what it has
/// accepted; if it never gets ready, the old one serves on and the reload has failed. A program
/// that dies is started again, while connections wait.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    /// A socket: by the name that a .socket unit gives it, else bound at the address [default: all
    /// that systemd passes]
    #[arg(long, value_name = "NAME[=ADDRESS]", value_parser = parse::socket)]
    socket: Vec<SocketSpec>,
    /// How the program is told of its sockets: listen (LISTEN_FDS, as systemd), starter
    /// (SERVER_STARTER_PORT), einhorn (EINHORN_FDS), nginx
    #[arg(long, value_name = "WAY", value_delimiter = ',', default_value = "listen", value_parser = parse::passing)]
    pass: Vec<Passing>,
    /// The number of the first socket's fd; the others follow. {fd} and {fd:NAME} in the arguments
    /// stand for the numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    fd: u16,
    /// When it is ready: notify (READY=1), accept[:SOCKET], http[:SOCKET]:/PATH, exec:COMMAND,
    /// delay:TIME
    #[arg(long, value_name = "HOW", default_value = "notify", value_parser = parse::ready)]
    ready: Ready,
    /// How long it may take until it is ready [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ready_timeout: Option<Duration>,
    /// Whose sd_notify messages count
    #[arg(long, value_enum, default_value_t = Access::Main)]
    notify_access: Access,
    /// The group that may reach the socket for these messages, too, for a program that changes its
    /// user before it says READY=1 [default: its own user and root]
    #[arg(long, value_name = "GROUP", value_parser = parse::group)]
    notify_group: Option<u32>,
    /// How it is told to go: signals, with times between them; what is left after the drain timeout
    /// is killed
    #[arg(long, value_name = "TERM,10s,QUIT", default_value = "TERM", value_parser = parse::stop_signals)]
    stop_signal: StopSignals,
    /// How long the old one serves on beside the new one before it is told to go; a part of the
    /// drain timeout
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    drain_delay: Duration,
    /// How long it may take to finish what it has accepted [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    drain_timeout: Option<Duration>,
    /// How long both versions serve before the old one is told to go; if the new one dies
    /// meanwhile, it stays [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    probation: Option<Duration>,
    /// How many old versions may drain at once [default: 8]
    #[arg(long, value_name = "NUMBER")]
    max_draining: Option<usize>,
    /// When it ends by itself: restart it, with pauses that grow, or exit, so that Restart= of the
    /// unit rules
    #[arg(long, value_enum, default_value_t = Crash::Restart)]
    on_crash: Crash,
    /// How long a version must serve to be gone back to after a loop of crashes
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    good_after: Duration,
    /// So many processes of it on the same sockets
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    workers: NonZeroUsize,
    /// How many of the workers a reload replaces at once
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    at_a_time: NonZeroUsize,
    /// Where it works; looked up at each start, so that a symbolic link means what it points to
    /// then
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// The socket of the control interface [default: $RUNTIME_DIRECTORY/handover.sock]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Serves http://ADDRESS/metrics for Prometheus: the numbers of `handover status --prometheus`
    #[arg(long, value_name = "ADDRESS", value_parser = parse::address)]
    metrics: Option<SocketAddr>,
    #[command(flatten, next_help_heading = "New versions by themselves")]
    watch: watch::Watching,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Access {
    /// Those of the process that was started
    Main,
    /// Those of its children, too
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Crash {
    Restart,
    Exit,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    if let Some(answer) = asked_to_go_on() {
        out::line(answer);
        return Ok(Outcome::Success);
    }
    if let Err(error) = handover::logging::init() {
        return Err(Failure::cannot_run(error.to_string()));
    }
    // Before the program is started: what cannot be bound is a mistake of the command line.
    let metrics = match (options.metrics, options.program.first()) {
        (Some(address), Some(program)) => Some(Metrics::bind(address, Path::new(program)).await?),
        _ => None,
    };
    let (supervisor, options, program) = supervisor(options)?;
    let supervised = supervisor.start().map_err(failure)?;
    if let Some(metrics) = metrics {
        tokio::spawn(metrics.serve(supervised.handle()));
    }
    let ended = match options.start(program, &supervised)? {
        Some(watch) => watch.while_it(supervised.run()).await,
        None => supervised.run().await,
    };
    ended.map_err(failure)?;
    Ok(Outcome::Success)
}

/// The supervisor, and of which file new versions are looked for.
fn supervisor(options: Options) -> Result<(Supervisor, watch::Watching, Option<PathBuf>), Failure> {
    let mut settings = Settings::from_env().map_err(failure)?;
    settings.ready_timeout = options.ready_timeout.or(settings.ready_timeout);
    settings.drain_timeout = options.drain_timeout.or(settings.drain_timeout);
    settings.probation = options.probation.or(settings.probation);
    settings.max_draining = options.max_draining.or(settings.max_draining);
    let mut program = options.program.into_iter();
    let Some(path) = program.next() else { return Err(Failure::usage("say which program")) };
    let watched = options.watch.check(Path::new(&path), options.directory.as_deref())?;
    let mut supervisor = Supervisor::new(path)
        .args(program)
        .passing(options.pass)
        .first_fd(options.fd)
        .ready(options.ready)
        .senders(match options.notify_access {
            Access::Main => Senders::Main,
            Access::All => Senders::All,
        })
        .stop_signals(options.stop_signal)
        .drain_delay(options.drain_delay)
        .on_crash(match options.on_crash {
            Crash::Restart => OnCrash::Restart,
            Crash::Exit => OnCrash::Exit,
        })
        .good_after(options.good_after)
        .workers(options.workers, options.at_a_time)
        .settings(settings);
    for socket in options.socket {
        supervisor = socket.give(supervisor);
    }
    if let Some(group) = options.notify_group {
        supervisor = supervisor.notify_group(group);
    }
    if let Some(directory) = options.directory {
        supervisor = supervisor.directory(directory);
    }
    let supervisor = match options.control {
        Some(path) => supervisor.control_at(path),
        None => supervisor.control(),
    };
    Ok((supervisor, options.watch, watched))
}

fn failure(error: Error) -> Failure {
    match error {
        error if error.is_generation() => Failure::failed(error.to_string()),
        error if error.is_invalid() => Failure::usage(error.to_string()),
        error => Failure::cannot_run(error.to_string()),
    }
}
