//! What the service that runs reloads on: by its status, or by what it logged when it began to
//! serve.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use handover::service::events::{MAIN, SERVES};
use serde_json::Value;
use tokio::process::Command;

use super::name::UnitName;
use crate::commands::reload::status_if_told;
use crate::target::{Target, show};
use handover::supervise::signal_name;

/// For each of the two questions. Without an answer a service is judged by its unit alone.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks for the signals, as `HUP`. `None`: it does not run, or tells nothing, as one without
/// handover.
pub(super) async fn reload_signals(unit: &UnitName, user: bool) -> Option<BTreeSet<String>> {
    let unit = unit.to_string();
    if let Ok(Some(told)) = tokio::time::timeout(TIMEOUT, by_status(&unit, user)).await {
        return Some(told);
    }
    tokio::time::timeout(TIMEOUT, by_journal(&unit, user)).await.ok()?
}

async fn by_status(unit: &str, user: bool) -> Option<BTreeSet<String>> {
    let target = Target::of_unit(unit, user).await.ok()?;
    let status = status_if_told(&target).await.ok()??;
    let told = status["reload_signals"].as_array()?.iter().filter_map(Value::as_str);
    Some(told.filter_map(signal_name).collect())
}

/// The kernel tells journald whose an entry is. The unit is asked for, too, as a pid is used again.
async fn by_journal(unit: &str, user: bool) -> Option<BTreeSet<String>> {
    let main = show(unit, user).await.ok().map(|shown| shown.main).filter(|pid| *pid != 0)?;
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--boot", "--lines=1", "--output=json", "--output-fields=RELOAD_SIGNAL"]);
    let field = if user { "_SYSTEMD_USER_UNIT" } else { "_SYSTEMD_UNIT" };
    command.args([
        format!("_PID={main}"),
        format!("{field}={unit}"),
        format!("MESSAGE_ID={SERVES}"),
        format!("MESSAGE_ID={MAIN}"),
    ]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    told_by(&output.stdout)
}

fn told_by(entry: &[u8]) -> Option<BTreeSet<String>> {
    let entry: Value = serde_json::from_slice(entry).ok()?;
    Some(entry["RELOAD_SIGNAL"].as_str()?.split(' ').filter_map(signal_name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_the_signals() {
        let told = |text: &str| told_by(text.as_bytes()).map(|told| told.into_iter().collect::<Vec<_>>().join(" "));
        assert_eq!(told(r#"{"RELOAD_SIGNAL":"SIGUSR1 SIGHUP","__CURSOR":"s=1"}"#).unwrap(), "HUP USR1");
        assert_eq!(told(r#"{"RELOAD_SIGNAL":""}"#).unwrap(), "");
        for other in ["", "{}", r#"{"RELOAD_SIGNAL":[1]}"#, "-- No entries --"] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
