//! `handover demo`: the example service under load, reloaded, given bad versions, killed, and its
//! clients asked what they lost.
//!
//! It is a script over the run of `handover prove`, of which the figures are, too. Its own is who
//! supervises the service.

mod manager;
mod options;
mod report;
mod script;
mod supervisor;
mod systemd;
mod unit;
mod versions;

use std::io;

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::prove::Progress;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::terminal::Look;
use manager::Manager;
pub(crate) use options::{Options, SERVICE_COMMAND};
use script::Script;
use supervisor::Supervisor;
use systemd::Systemd;
use versions::Versions;

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let versions = Versions::new()?;
    let interrupts = interrupts()?;
    match options.systemd {
        true => demonstrate(options, &versions, interrupts, &Systemd::start(&versions.program()).await?).await,
        false => demonstrate(options, &versions, interrupts, &Manager::start(&versions)?).await,
    }
}

async fn demonstrate(
    options: Options,
    versions: &Versions,
    mut interrupts: Vec<Signal>,
    supervisor: &impl Supervisor,
) -> Result<Outcome, Failure> {
    let plan = script::plan(&options, supervisor.address());
    let progress = Progress::new(&plan);
    let script = Script::new(&plan, supervisor, versions, &progress);
    let result = tokio::select! {
        result = script.run() => result,
        () = next(&mut interrupts) => Err(Failure::interrupted()),
    };
    progress.finish();
    // The log goes away with the directory, so it is read before anything is ended.
    let log = supervisor.log();
    let killed = result.as_ref().ok().and_then(|report| report.killed());
    let problems = tokio::select! {
        problems = supervisor.end(killed) => problems,
        // Dropped, the supervisor ends everything at once.
        () = next(&mut interrupts) => return Err(Failure::interrupted()),
    };
    let mut report = result.map_err(|failure| failure.with(&log))?;
    report.add(problems);
    out::line(if options.json { report.json() } else { report.text(Look::of_stdout()) });
    if report.is_good() {
        return Ok(Outcome::Success);
    }
    if !options.json {
        out::line(log);
    }
    Ok(Outcome::Bad)
}

/// Ctrl-C and its like. Once asked for, they no longer end this process by themselves, so what was
/// started is cleaned up.
fn interrupts() -> Result<Vec<Signal>, Failure> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let signals: io::Result<_> = kinds.into_iter().map(signal).collect();
    signals.map_err(|e| Failure::cannot_run(format!("signals cannot be handled: {e}")))
}

async fn next(interrupts: &mut [Signal]) {
    select_all(interrupts.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}
