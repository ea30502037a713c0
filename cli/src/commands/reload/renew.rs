//! `handover reload --self`: the supervisor goes on as the version of handover that is installed.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::status::{POLL, status};
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::safe;
use crate::target::Target;

pub(super) async fn run(target: &Target, timeout: Duration) -> Result<Outcome, Failure> {
    tokio::time::timeout(timeout, renew(target)).await.unwrap_or_else(|_| {
        let within = humantime::format_duration(timeout);
        Err(Failure::failed(format!("{}: no outcome within {within}; it waits for a reload to end", target.name())))
    })
}

async fn renew(target: &Target) -> Result<Outcome, Failure> {
    let before = status(target).await?;
    let of = |status: &Value, key: &str| status["supervisor"][key].as_u64().unwrap_or_default();
    let pid = i32::try_from(of(&before, "pid")).ok().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| Failure::cannot_run(format!("{} is not run by handover run", target.name())))?;
    kill(Pid::from_raw(pid), Signal::SIGUSR2)
        .map_err(|e| Failure::cannot_run(format!("{} (pid {pid}) cannot be asked: {e}", target.name())))?;
    loop {
        tokio::time::sleep(POLL).await;
        // Just then nobody may answer.
        let Ok(now) = status(target).await else { continue };
        if of(&now, "renewals") > of(&before, "renewals") {
            let version = now["version"].as_str().unwrap_or("?");
            out::line(format_args!("handover run (pid {pid}) goes on as version {}", safe::terminal(version)));
            return Ok(Outcome::Success);
        }
        if of(&now, "renewals_failed") > of(&before, "renewals_failed") {
            let why = now["supervisor"]["renewal_failed"].as_str().unwrap_or("it does not say why");
            return Err(Failure::failed(format!("handover run (pid {pid}) stays as it is: {}", safe::terminal(why))));
        }
    }
}
