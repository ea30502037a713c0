//! Reloads of services without a control interface.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use handover::internal::pidfd;
use nix::sys::signal::Signal;

use super::report::{Generation, Report};
use super::status::POLL;
use crate::believed::unit_of;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::safe;
use crate::systemctl;
use crate::target::{Target, Unit, show};

/// Whether a process leaves this signal to its default action.
///
/// # References
/// - proc_pid_status(5): `SigIgn`, `SigCgt`
fn would_end(pid: i32, signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_none_or(|mask| mask >> (signal as i32 - 1) & 1 == 1)
    };
    !has("SigIgn") && !has("SigCgt")
}

/// SIGHUP, and then what systemd says of the unit. The timeout of the command is around it.
pub(super) async fn by_signal(
    target: &Target,
    unit: &str,
    before: Unit,
    report: &mut Report,
) -> Result<Outcome, Failure> {
    let pid = i32::try_from(before.main).map_err(|_| Failure::cannot_run(format!("{unit} has no main process")))?;
    if would_end(pid, Signal::SIGHUP) {
        return Err(Failure::cannot_run(format!(
            "not sent: pid {pid} neither handles nor ignores SIGHUP, so it would end {unit}; its reload signal is another one \
             (RELOAD_SIGNAL= of its start in the journal says which), or the main process is not the service"
        )));
    }
    signal(before.main, unit)?;
    let mut moved = false;
    loop {
        tokio::time::sleep(POLL).await;
        let now = show(unit, target.user).await?;
        moved |= now.status != before.status || now.changed != before.changed;
        match judge(&before, &now, moved) {
            Verdict::Open => {}
            Verdict::Done(text) => {
                out::note(text);
                let outcome = if now.main == before.main { "in_place" } else { "handed_over" };
                report.done(outcome, Generation::of_pid(now.main));
                return Ok(Outcome::Success);
            }
            Verdict::RolledBack(reason) => return Err(Failure::rolled_back(safe::terminal(&reason))),
            // That need not be the new program's fault.
            Verdict::Gone(state) => return Err(Failure::failed(safe::terminal(&state))),
        }
    }
}

/// Sends SIGHUP to that main process, and to none that got its pid meanwhile: what the pidfd names
/// is looked at when the pidfd is there.
fn signal(pid: u32, unit: &str) -> Result<(), Failure> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::cannot_run(format!("pid {pid} may not be signalled: be the service's user or root"))
        }
        _ => Failure::cannot_run(format!("pid {pid} cannot be signalled: {e}")),
    };
    let pidfd = pidfd::open(pid).map_err(failed)?;
    let (of, _) = unit_of(&pid.to_string()).map_err(failed)?;
    if of.as_deref() != Some(unit) {
        return Err(Failure::cannot_run(format!("not sent: pid {pid} is none of {unit} any more")));
    }
    pidfd::send_signal(pidfd.as_fd(), Signal::SIGHUP).map_err(failed)
}

/// What a change of the unit says of the reload, and in which words.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet.
    Open,
    Done(String),
    RolledBack(String),
    /// The service itself.
    Gone(String),
}

/// `moved`: something has changed since the request, so that a text of before is one of now.
fn judge(before: &Unit, now: &Unit, moved: bool) -> Verdict {
    if now.main != 0 && now.main != before.main {
        return Verdict::Done(format!("pid {} is main: {}", now.main, now.status));
    }
    if now.main == 0 || !["active", "reloading", "refreshing"].contains(&now.active.as_str()) {
        return Verdict::Gone(format!("the service is gone: {} ({})", now.active, now.sub));
    }
    match now.status.split_once("; reload failed: ") {
        _ if !moved => Verdict::Open,
        Some((serves, reason)) => {
            Verdict::RolledBack(format!("reload failed: {reason}; {serves} on (pid {})", now.main))
        }
        None if now.status.ends_with("; reloaded in place") => Verdict::Done(now.status.clone()),
        None => Verdict::Open,
    }
}

/// What the unit itself says about reloads.
pub(super) async fn by_systemctl(target: &Target, unit: &str, report: &mut Report) -> Result<Outcome, Failure> {
    let mut command = systemctl::command(target.user, &["reload", "--", unit]);
    let status = command.status().await.map_err(|e| Failure::cannot_run(format!("systemctl cannot be run: {e}")))?;
    if status.success() {
        let after = show(unit, target.user).await?;
        report.done("reloaded", Generation::of_pid(after.main));
        return Ok(Outcome::Success);
    }
    Err(failure(unit, status))
}

fn failure(unit: &str, status: ExitStatus) -> Failure {
    // A terminal interrupts both, and systemctl may be the first to end.
    if status.signal() == Some(Signal::SIGINT as i32) {
        return Failure::interrupted();
    }
    let text = format!("systemctl reload {unit}: {status}");
    // 1: the job failed. Others: no such unit, not running, not permitted.
    if status.code() == Some(1) { Failure::rolled_back(text) } else { Failure::failed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(main: u32, status: &str, changed: &str) -> Unit {
        Unit::sample(main, "active", status, changed)
    }

    #[test]
    fn what_systemd_says_is_the_outcome() {
        let before = unit(7, "generation 1 serves", "1");
        let judged = |now: &Unit, moved| judge(&before, now, moved);
        assert_eq!(judged(&before, false), Verdict::Open);
        assert_eq!(judged(&unit(7, "generation 1 serves; starting generation 2", "2"), true), Verdict::Open);
        let done = |now: &Unit| matches!(judged(now, true), Verdict::Done(_));
        assert!(done(&unit(9, "generation 2 takes over", "2")));
        assert!(done(&unit(7, "generation 1 serves; reloaded in place", "2")));
        let failed = unit(7, "generation 1 serves; reload failed: generation 2 exited with status 7", "2");
        let reason = "reload failed: generation 2 exited with status 7; generation 1 serves on (pid 7)";
        assert_eq!(judged(&failed, true), Verdict::RolledBack(reason.to_owned()));
        assert_eq!(judge(&failed, &failed, false), Verdict::Open, "that was the reload of before");
        assert!(matches!(judged(&Unit::sample(0, "failed", "", "2"), true), Verdict::Gone(_)));
    }

    #[test]
    fn what_ends_systemctl_is_the_outcome() {
        let of = |status| failure("web.service", ExitStatus::from_raw(status));
        assert!(of(1 << 8).is_rolled_back());
        assert!(!of(5 << 8).is_rolled_back());
        assert_eq!(of(Signal::SIGINT as i32).word(), "interrupted");
    }
}
