//! `handover upgrade`: a new program for a service, put back if the service does not take it.

mod candidate;
mod from;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{ArgGroup, Args};
use handover::supervise::proc;
use handover::upgrade::{Done, Upgrade, UpgradeStep, Verdict};
use handover::{Error, logging};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::believed;
use crate::commands::reload::{self, Report};
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::safe;
use crate::target::{Target, Where};
pub(crate) use candidate::{Candidate, invalid};

/// Fetches the program of a service, verifies it, installs it beside the running one, and reloads;
/// if the service does not take it, the old program is put back and the new one is not tried again.
///
/// The reload is that of `handover reload`: it is over when the next generation is main. The
/// service never stops.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end(), group = ArgGroup::new("trust").required(true).multiple(true))]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// Where the program comes from: a path, https://…, github:OWNER/REPOSITORY, s3://BUCKET/KEY
    #[arg(long, value_name = "SOURCE", required_unless_present = "back")]
    from: Option<String>,
    #[command(flatten)]
    candidate: Candidate,
    /// The file to be replaced [default: the one that the main process runs]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The SHA-256 that the program must have
    #[arg(long, value_name = "HEX", conflicts_with = "sha256_in")]
    sha256: Option<String>,
    /// How long to wait for the outcome of the reload
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Look again and again, about this often, until interrupted
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    poll: Option<Duration>,
    /// Install, and let the service alone: its next start takes the new program
    #[arg(long)]
    no_reload: bool,
    /// Fetch and verify, and change nothing
    #[arg(long, conflicts_with_all = ["poll", "no_reload"])]
    dry_run: bool,
    /// Go back to the program before this one, which is not taken again
    #[arg(long, group = "trust", conflicts_with_all = ["from", "poll", "dry_run"])]
    back: bool,
    /// The outcome as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Grows when a field of `--json` changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

/// What came of the reload of an upgrade, where there was one.
#[derive(Debug, Clone, Default)]
struct Reloaded(Arc<Mutex<Option<Report>>>);

impl Reloaded {
    fn put(&self, report: Report) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    fn take(&self) -> Option<Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    // In a unit the library's own events are better than lines of text: they have fields.
    let quiet = logging::stderr_is_journal() && logging::init().is_ok();
    let options = Arc::new(options);
    let program = program(&options).await?;
    let reloaded = Reloaded::default();
    let upgrade = upgrade(&options, program, quiet, &reloaded)?;
    // Nothing is installed then. A service that is not found is looked for again to be reloaded.
    if !options.no_reload
        && !options.dry_run
        && let Ok(target) = options.place.find().await
    {
        reload::refuse_old_root(&target).await?;
    }
    // Not at once: what is installed is settled first.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::cannot_run(e.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::cannot_run(e.to_string()))?;
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::select! {
        outcome = go(&options, &upgrade, &reloaded) => outcome,
        () = interrupted => {
            upgrade.settled(options.timeout + SETTLE).await;
            Err(Failure::interrupted())
        }
    }
}

/// More than files need.
const SETTLE: Duration = Duration::from_secs(10);

async fn go(options: &Options, upgrade: &Upgrade, reloaded: &Reloaded) -> Result<Outcome, Failure> {
    if let Some(every) = options.poll {
        let mut last = None;
        let told = |outcome: &Result<Done, Error>| {
            let known = last == outcome.as_ref().ok().cloned() && last.is_some();
            last = outcome.as_ref().ok().cloned();
            // That nothing is new is said once.
            if known {
                return;
            }
            if let Err(failure) = tell(options, upgrade, outcome, reloaded.take()) {
                out::error(&failure);
            }
        };
        return upgrade.poll(every, told).await;
    }
    let outcome = match (options.back, options.dry_run) {
        (true, _) => upgrade.back().await,
        (_, true) => upgrade.look().await,
        _ => upgrade.run().await,
    };
    tell(options, upgrade, &outcome, reloaded.take())
}

fn upgrade(options: &Arc<Options>, program: PathBuf, quiet: bool, reloaded: &Reloaded) -> Result<Upgrade, Failure> {
    let mut builder = options.candidate.builder(program, options.from.as_deref())?;
    if let Some(digits) = &options.sha256 {
        builder = builder.sha256(digits).map_err(|e| invalid(&e))?;
    }
    if options.json || quiet {
        out::hide_notes();
    }
    builder = builder.on_step(|step| {
        if let Some(line) = line_of(step) {
            out::note(line);
        }
    });
    if options.no_reload {
        return builder.install_only().map_err(|e| invalid(&e));
    }
    let (options, reloaded) = (Arc::clone(options), reloaded.clone());
    let built = builder.reload_with(move || {
        let (options, reloaded) = (Arc::clone(&options), reloaded.clone());
        async move { reload(&options, &reloaded).await }
    });
    built.map_err(|e| invalid(&e))
}

async fn reload(options: &Options, reloaded: &Reloaded) -> Verdict {
    let mut report = Report::default();
    // Found anew: a pid that was said may be another generation's by now.
    let reloading = async { reload::of(&options.place.find().await?, options.timeout, &mut report).await };
    let outcome = reloading.await;
    reloaded.put(report);
    match outcome {
        Ok(_) => Verdict::Taken,
        Err(failure) if failure.is_rolled_back() => Verdict::Refused(failure.to_string()),
        Err(failure) => Verdict::Unknown(failure.to_string()),
    }
}

/// The file that the service's program is.
async fn program(options: &Options) -> Result<PathBuf, Failure> {
    if let Some(program) = &options.program {
        return std::path::absolute(program).map_err(|e| Failure::usage(format!("{}: {e}", program.display())));
    }
    let target = options.place.find().await?;
    let Main { pid, started } = main_process(&target).await?;
    let program = proc::program(pid).map_err(|e| {
        Failure::cannot_run(format!(
            "what pid {pid} runs cannot be seen ({e}): be its user or root, or say --program PATH"
        ))
    })?;
    let own = std::env::current_exe().ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
    if program.file_name().map(ToOwned::to_owned) == own {
        let why = "that is this tool, which runs the service's program: say --program PATH";
        return Err(Failure::usage(format!("{}: its main process runs {}; {why}", target.name(), program.display())));
    }
    let is_program = |word: &String| std::fs::canonicalize(word).is_ok_and(|path| path == program);
    if let Some(started) = started.filter(|words| !words.iter().any(is_program)) {
        // A script runs its interpreter, which serves others, too; and a process may run what it
        // likes.
        let why = "which of them is to be replaced? Say --program PATH";
        let (name, started) = (target.name(), safe::terminal(&started.join(" ")));
        return Err(Failure::usage(format!("{name}: {started} was started, and it runs {}; {why}", program.display())));
    }
    Ok(program)
}

/// The process whose program is to be replaced.
struct Main {
    pid: u32,
    /// The words of the command that has started it, one of which is to be the program; `None`: it
    /// is not known.
    started: Option<Vec<String>>,
}

/// Finds the main process. Of a unit systemd knows it; what the service tells counts only where
/// that cannot be known otherwise, and for a process of the same unit and user.
async fn main_process(target: &Target) -> Result<Main, Failure> {
    let told = reload::status(target).await.ok();
    let told = told.and_then(|status| Some((believed::pid(&status["pid"])?, status)));
    if let Some(unit) = &target.unit {
        let shown = crate::target::show(unit, target.user).await?;
        if shown.main == 0 {
            return Err(Failure::cannot_run(format!(
                "{unit} is not running ({}): start it, or say --program PATH and --no-reload",
                shown.active
            )));
        }
        // `handover run` is the main process itself, and its program is another one.
        let run = told.filter(|(_, status)| believed::pid(&status["supervisor"]["pid"]) == Some(shown.main));
        let pid = run.map_or(shown.main, |(pid, _)| pid);
        return Ok(Main { pid, started: Some(shown.starts) });
    }
    if let Some((pid, status)) = told {
        if target.pid != Some(pid) {
            let server = target.connect().await?.and_then(|client| client.server());
            believed::check_by_socket(&target.expected(), server, pid)?;
        }
        let started = status["supervisor"]["program"].as_str().map(|started| vec![started.to_owned()]);
        return Ok(Main { pid, started });
    }
    match target.pid {
        Some(pid) => Ok(Main { pid, started: None }),
        None => Err(Failure::cannot_run(format!("{}: what it runs is not known: say --program PATH", target.name()))),
    }
}

fn tell(
    options: &Options,
    upgrade: &Upgrade,
    outcome: &Result<Done, Error>,
    reloaded: Option<Report>,
) -> Result<Outcome, Failure> {
    let program = upgrade.program().display();
    if options.json {
        let mut object = match outcome {
            Ok(done) => serde_json::to_value(done).unwrap_or_default(),
            Err(error) => json!({ "outcome": word(error), "reason": safe::terminal(&error.to_string()) }),
        };
        object["format"] = json!(FORMAT);
        object["program"] = json!(upgrade.program());
        // Before the reload nothing of it is known.
        object["reload"] = serde_json::to_value(reloaded).unwrap_or_default();
        out::line(object);
    }
    let say = |text: String| {
        if !options.json {
            out::line(text)
        }
    };
    match outcome {
        Ok(Done::UpToDate { sha256 }) => say(format!("{program} is up to date ({})", short(sha256))),
        Ok(Done::Available { sha256, current }) => {
            say(format!("{program}: {} would be installed in place of {}", short(sha256), short(current)));
        }
        Ok(Done::Upgraded { sha256, previous }) => {
            say(format!("{program} is {} now, and the service runs it; before: {}", short(sha256), short(previous)));
        }
        Ok(Done::Installed { sha256, previous }) => {
            say(format!("{program} is {} now; before: {}; nobody was told", short(sha256), short(previous)));
        }
        Ok(Done::KnownBad { sha256, reason }) => {
            let text =
                format!("{} is known to be bad: {}; --retry tries it again", short(sha256), safe::terminal(reason));
            return Err(Failure::failed(text));
        }
        Ok(_) => {}
        Err(error) => return Err(failure(error)),
    }
    Ok(Outcome::Success)
}

fn failure(error: &Error) -> Failure {
    let text = safe::terminal(&error.to_string());
    match word(error) {
        "not_taken" | "unknown" | "refused" => Failure::failed(text),
        _ => Failure::cannot_run(text),
    }
}

fn word(error: &Error) -> &'static str {
    match error {
        e if e.is_generation() => "not_taken",
        e if e.is_timeout() => "unknown",
        e if e.is_candidate() => "refused",
        e if e.is_state() => "busy",
        e if e.is_fetch() => "not_fetched",
        _ => "not_possible",
    }
}

/// As much of it as tells one from another.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn line_of(step: &UpgradeStep) -> Option<String> {
    Some(match step {
        UpgradeStep::Resumed { sha256 } => {
            format!("{} was installed and cut short: asking again for a reload", short(sha256))
        }
        UpgradeStep::Fetched { sha256 } => format!("{} is fetched", short(sha256)),
        UpgradeStep::Verified => "it is verified".to_owned(),
        UpgradeStep::Checked => "it passes the check".to_owned(),
        UpgradeStep::Installed => "it is installed".to_owned(),
        UpgradeStep::Restored => "the program of before is back".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: super::Options,
    }

    #[test]
    fn who_is_trusted_must_be_said() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(format!("x web {line}").split(' ')).map(drop);
        for good in ["--from a --key b --key c", "--from a --no-signature", "--back", "--from a --key b --sha256-in"] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in
            ["--from a", "--key b", "--from a --key b --no-signature", "--back --poll 1s", "--from a --key b --keep 0"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
