//! `handover reload`: asks a service for a reload, and waits for the outcome.

mod renew;
mod report;
mod status;
mod watch;

use std::time::Duration;

use clap::Args;
use handover::control::{Answer, Client};
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::out;
use crate::roots::OldRoot;
use crate::safe;
use crate::target::{Target, Where, is_within};
use report::Generation;
pub(crate) use report::Report;
pub(crate) use status::{POLL, status, status_if_told};

/// Reloads a service and waits until the next generation is main, or has failed.
///
/// Made for a unit: ExecReload=/usr/bin/handover reload $MAINPID makes `systemctl reload` fail when
/// the reload did, with the reason in the journal. By hand it needs no privileges but those of the
/// service's own user.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// How long to wait for the outcome; the reload itself goes on. Keep it below TimeoutStartSec=
    /// of the unit
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Of a program under `handover run`: reload the supervisor itself, in place, to the version of
    /// handover that is installed
    #[arg(long = "self")]
    supervisor: bool,
    /// The outcome as JSON, one object: who served before and after, why it failed, and its phases
    #[arg(long, conflicts_with = "supervisor")]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    if !options.json {
        return reload(&options, &mut Report::default()).await;
    }
    out::hide_notes();
    let mut report = Report::default();
    let outcome = reload(&options, &mut report).await;
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    out::line(serde_json::to_string(&report).map_err(|e| Failure::failed(format!("what came of it is no JSON: {e}")))?);
    outcome
}

async fn reload(options: &Options, report: &mut Report) -> Result<Outcome, Failure> {
    let target = options.place.find().await?;
    tokio::select! {
        outcome = of(&target, options.timeout, report), if !options.supervisor => outcome,
        outcome = renew::run(&target, options.timeout), if options.supervisor => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

/// Reloads that service, and tells how it came out. What [is rolled back](Failure::is_rolled_back)
/// is the new program's fault.
pub(crate) async fn of(target: &Target, timeout: Duration, report: &mut Report) -> Result<Outcome, Failure> {
    let reloading = async {
        match target.connect().await? {
            Some(client) => by_control(target, client, report).await,
            None => without_control(target, report).await,
        }
    };
    let outcome = tokio::time::timeout(timeout, reloading).await.unwrap_or_else(|_| {
        let within = humantime::format_duration(timeout);
        Err(Failure::failed(format!(
            "{}: no outcome within {within}; the reload goes on: see `handover status` and the journal",
            target.name()
        )))
    });
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    outcome
}

async fn without_control(target: &Target, report: &mut Report) -> Result<Outcome, Failure> {
    let Some(unit) = &target.unit else { return Err(target.needs_control()) };
    let before = crate::target::show(unit, target.user).await?;
    if before.main == 0 {
        return Err(Failure::cannot_run(format!("{unit} is not running ({}): start it", before.active)));
    }
    report.before(Generation::of_pid(before.main));
    if before.uses_handover() {
        // Whose status says so reloads itself, and starts nothing.
        if !before.status.contains("reloaded in place") {
            refuse_old_root(target).await?;
        }
        out::note(format_args!("{}: sending SIGHUP and watching what systemd says of {unit}", target.no_control()));
        return watch::by_signal(target, unit, before, report).await;
    }
    if is_within(unit) {
        return Err(Failure::cannot_run(format!(
            "{unit} does not say that it uses handover, and has {}: `systemctl reload` from within its own ExecReload= \
             would wait for itself; write ExecReload=/bin/kill -HUP $MAINPID",
            target.no_control()
        )));
    }
    out::note(format_args!("{unit} does not say that it uses handover: systemctl reload {unit}"));
    watch::by_systemctl(target, unit, report).await
}

async fn by_control(target: &Target, mut client: Client, report: &mut Report) -> Result<Outcome, Failure> {
    check_pid(target).await?;
    if let Err(refused) = refuse_old_root(target).await {
        // A service that does not say may be one that starts nothing.
        if status(target).await.is_ok_and(|status| status["reloads_in_place"] == false) {
            return Err(refused);
        }
    }
    loop {
        let mut taken = false;
        let mut answer = client.call("Reload", true).await;
        let retry = loop {
            match answer.map_err(|e| Failure::failed(e.to_string()))? {
                Answer::Step(parameters) => {
                    taken = true;
                    report.step(&parameters["step"]);
                    if let Some(line) = parameters.get("step").and_then(line_of) {
                        out::note(line);
                    }
                }
                Answer::Done(parameters) => {
                    let number = parameters["generation"].as_u64();
                    let after = Generation::new(&parameters["generation"], &parameters["pid"]);
                    match (parameters["outcome"].as_str(), number) {
                        (Some("passed_on"), Some(next)) => return passed_on(target, next, report).await,
                        (Some("handed_over"), _) => report.done("handed_over", after),
                        (Some("in_place"), _) => report.done("in_place", after),
                        _ => return Err(Failure::failed(format!("the service answers {parameters}"))),
                    }
                    return Ok(Outcome::Success);
                }
                Answer::Failed(failed) if failed.error.ends_with(".ReloadFailed") => {
                    let (number, pid) = (&failed.parameters["generation"], &failed.parameters["pid"]);
                    let reason = safe::terminal(failed.reason());
                    return Err(Failure::rolled_back(format!("{reason}; generation {number} (pid {pid}) serves on")));
                }
                Answer::Failed(failed) if failed.error.ends_with(".NotPossible") => break failed.reason().to_owned(),
                Answer::Failed(failed) => {
                    return Err(Failure::cannot_run(format!("{}: {}", target.name(), safe::terminal(failed.reason()))));
                }
                Answer::Gone if taken => {
                    return Err(Failure::failed(format!(
                        "{}: the main generation ended during the reload: see the journal",
                        target.name()
                    )));
                }
                // It stopped accepting just when we came.
                Answer::Gone => break "the service ended the connection".to_owned(),
                _ => return Err(Failure::failed("the service gives an answer that this version does not know")),
            }
            answer = client.next().await;
        };
        // Another generation is main by now: that one is asked. A service that stops is asked no
        // more.
        tokio::time::sleep(POLL).await;
        let status = status(target).await.ok();
        // Nobody there any more: then what was said is the answer.
        client = match (status, target.connect().await.unwrap_or(None)) {
            (Some(status), Some(client)) if status["state"] != "stopping" => client,
            _ => return Err(Failure::failed(format!("{}: {}", target.name(), safe::terminal(&retry)))),
        };
    }
}

/// Fails where a reload would start the old program again, as if it were the new one.
pub(crate) async fn refuse_old_root(target: &Target) -> Result<(), Failure> {
    OldRoot::of(target).await.map_or(Ok(()), |old| Err(Failure::cannot_run(old.to_string())))
}

/// A pid that was used again, or is that of another service, must not reload this one.
async fn check_pid(target: &Target) -> Result<(), Failure> {
    let Some(pid) = target.pid else { return Ok(()) };
    let status = status(target).await?;
    let older = status["draining"].as_array().into_iter().flatten().map(|older| &older["pid"]);
    // Of a program that handover runs, systemd knows the supervisor.
    let known = older.chain([&status["pid"], &status["supervisor"]["pid"]]).any(|known| *known == pid);
    // One that is not main yet does not know the one that is.
    if known || status["main_ms"].is_null() {
        return Ok(());
    }
    Err(Failure::cannot_run(format!("pid {pid} is none of {}, whose main pid is {}", target.name(), status["pid"])))
}

/// Another reload was running, and `next`, which it made main, runs ours.
async fn passed_on(target: &Target, next: u64, report: &mut Report) -> Result<Outcome, Failure> {
    out::note(format_args!("another reload was running: generation {next} is main, and runs this one"));
    loop {
        // Whom we asked may be leaving just then.
        if let Ok(status) = status(target).await {
            let (number, is_main) = (status["generation"].as_u64().unwrap_or(0), !status["main_ms"].is_null());
            let last = status["past"].as_array().and_then(|past| past.last());
            let own = last.filter(|past| past["generation"] == next);
            let serves = Generation::new(&status["generation"], &status["pid"]);
            if number > next && is_main {
                report.done("handed_over", serves);
                out::note(format_args!("generation {number} (pid {}) is main", status["pid"]));
                return Ok(Outcome::Success);
            }
            match own.and_then(|past| past["outcome"].as_str()) {
                Some("in_place") => {
                    report.done("in_place", serves);
                    return Ok(Outcome::Success);
                }
                Some("rolled_back") => {
                    let reason = own.and_then(|past| past["reason"].as_str()).unwrap_or("failed");
                    let reason = safe::terminal(reason);
                    return Err(Failure::rolled_back(format!("reload failed: generation {} {reason}", next + 1)));
                }
                _ => {}
            }
            if status["state"] == "stopping" {
                return Err(Failure::failed(format!("{} is stopping", target.name())));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A phase of a reload, for people; of other steps nothing.
fn line_of(step: &Value) -> Option<String> {
    let (number, pid) = (step["generation"].as_u64()?, step["pid"].as_u64()?);
    let next = step["next"].as_u64().unwrap_or(number + 1);
    let next = match step["next_pid"].as_u64() {
        Some(pid) => format!("generation {next} (pid {pid})"),
        None => format!("generation {next}"),
    };
    let own = format!("generation {number} (pid {pid})");
    let text = match step["what"].as_str()? {
        "reloading" => format!("{own} reloads"),
        "started" => format!("{next} is started"),
        "ready" => format!("{next} is ready"),
        "switched" => format!("{next} accepts, generation {number} does not any more"),
        "handed_over" => format!("{next} is main"),
        "in_place" => format!("{own} has reloaded itself"),
        "rolled_back" => format!("rolled back: {own} serves on"),
        "draining" => format!("generation {number} drains; open: {}", step["connections"]),
        _ => return None,
    };
    Some(match step["reload_ms"].as_u64() {
        Some(ms) => format!("{ms:>6} ms  {text}"),
        None => format!("           {text}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_phase_is_a_line() {
        let step =
            json!({"what": "ready", "generation": 1, "pid": 7, "next_pid": 9, "reload_ms": 12, "connections": 0});
        assert_eq!(line_of(&step).unwrap(), "    12 ms  generation 2 (pid 9) is ready");
        assert_eq!(line_of(&json!({"what": "exits", "generation": 1, "pid": 7})), None);
        assert_eq!(line_of(&json!({"what": "of a newer version"})), None);
    }
}
