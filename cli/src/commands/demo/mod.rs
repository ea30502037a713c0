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
    let interrupts = Interrupts::new()?;
    match options.systemd {
        true => demonstrate(options, &versions, interrupts, &Systemd::start(&versions.program()).await?).await,
        false => demonstrate(options, &versions, interrupts, &Manager::start(&versions)?).await,
    }
}

async fn demonstrate(
    options: Options,
    versions: &Versions,
    mut interrupts: Interrupts,
    supervisor: &impl Supervisor,
) -> Result<Outcome, Failure> {
    let plan = script::plan(&options, supervisor.address());
    let progress = Progress::new(&plan);
    let script = Script::new(&plan, options.duration, supervisor, versions, &progress);
    let result = tokio::select! {
        result = script.run() => result,
        () = interrupts.next() => Err(Failure::interrupted()),
    };
    progress.finish();
    // The log goes away with the directory, so it is read before anything is ended.
    let log = supervisor.log();
    let killed = result.as_ref().ok().and_then(|report| report.killed());
    let problems = tokio::select! {
        problems = supervisor.end(killed) => problems,
        // Dropped, the supervisor ends everything at once.
        () = interrupts.next() => return Err(Failure::interrupted()),
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
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let handle = |kind| signal(kind).map_err(|e| Failure::cannot_run(format!("signals cannot be handled: {e}")));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hang_up] = kinds.map(handle);
        Ok(Self([interrupt?, terminate?, hang_up?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}
