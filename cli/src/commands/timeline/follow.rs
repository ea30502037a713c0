//! `handover timeline --follow`: each step as the journal gets it.

use std::process::Stdio;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::history::unit_of;
use super::journal::{self, Entry};
use super::known::{self, Kind};
use super::when::Moment;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::safe::terminal;
use crate::terminal::{Ink, Look};
use handover::service::events;

/// Of what journalctl says to stderr.
const MOST_WORDS: u64 = 4 * 1024;

/// A terminal, or systemctl, interrupts journalctl together with this process, which may see the
/// end of the one before its own signal.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long something took, where it is told.
const TIMES: [&str; 7] = ["SPAWN_MS", "READY_MS", "SWITCH_MS", "HANDOVER_MS", "RELOAD_MS", "MOVE_MS", "DRAIN_MS"];

/// Prints what comes until it is interrupted. journalctl goes on when the journal is rotated.
pub(super) async fn run(unit: &str, user: bool, since: Option<Moment>, zone: TimeZone) -> Result<Outcome, Failure> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--follow", "--output=json"]).arg(format!("--output-fields={}", journal::FIELDS));
    match since {
        Some(Moment(usec)) => command.args(["--no-tail", &format!("--since=@{}", usec.div_euclid(1_000_000))]),
        None => command.arg("--lines=0"),
    };
    command.arg(format!("--{}={unit}", if user { "user-unit" } else { "unit" }));
    command.args(known::ids().map(|id| format!("MESSAGE_ID={id}")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::cannot_run(e.to_string()))?;
    let mut child = command.spawn().map_err(|e| Failure::cannot_run(format!("journalctl cannot be run: {e}")))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::cannot_run("journalctl has no output"));
    };
    let each = |entry: Entry| {
        if unit_of(&entry).as_deref() == Some(unit)
            && let Some(line) = line(&entry, &zone, Look::of_stdout())
        {
            out::line(line);
        }
    };
    let followed = async {
        journal::lines(stdout, "the output of journalctl", each).await.map_err(Failure::cannot_run)?;
        let mut words = Vec::new();
        let _ = stderr.take(MOST_WORDS).read_to_end(&mut words).await;
        let words = terminal(String::from_utf8_lossy(&words).trim());
        Err(Failure::cannot_run(format!("journalctl does not follow the journal any more: {words}")))
    };
    tokio::select! {
        ended = followed => match timeout(SIGNAL_TIMEOUT, interrupt.recv()).await {
            Ok(_) => Err(Failure::interrupted()),
            Err(_) => ended,
        },
        _ = interrupt.recv() => Err(Failure::interrupted()),
    }
}

/// What is said of one step: a line, and more where the terminal is narrow.
fn line(entry: &Entry, zone: &TimeZone, look: Look) -> Option<String> {
    let kind = known::kind(&entry.get("MESSAGE_ID")?)?;
    let at = entry.time()?.zoned(zone).strftime("%H:%M:%S%.3f").to_string();
    let said = terminal(entry.get("MESSAGE").unwrap_or_default().trim());
    let took = TIMES.into_iter().find_map(|field| entry.number(field));
    let took = took.map(|ms| format!("({ms} ms)")).unwrap_or_default();
    Some(look.lines(&[(Ink::Dim, &at), (ink(kind), &said), (Ink::Dim, &took)]))
}

fn ink(kind: Kind) -> Ink {
    match (kind, known::mark(kind)) {
        (Kind::Ours(events::RELOAD_FAILED | events::HAMMERED | events::CRASHED | events::FAILED), _) => Ink::Bad,
        (_, Some((_, true))) => Ink::Bad,
        (Kind::Ours(events::READY), _) => Ink::Ready,
        (Kind::Ours(events::SPAWNED), _) => Ink::Spawn,
        (Kind::Ours(events::SWITCHED), _) => Ink::Switch,
        (Kind::Ours(events::MAIN | events::SERVES | events::RELOADED_IN_PLACE | events::PAUSE_OVER), _) => Ink::Good,
        _ => Ink::Plain,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(entry: &serde_json::Value, width: usize) -> Option<String> {
        let entry = Entry::parse(entry.to_string().as_bytes()).unwrap().unwrap();
        line(&entry, &TimeZone::UTC, Look::plain(width))
    }

    #[test]
    fn a_step_is_a_line_that_fits_and_harms_nobody() {
        let ready = json!({"MESSAGE_ID": events::READY, "MESSAGE": "generation 2 is ready", "READY_MS": "14",
            "__REALTIME_TIMESTAMP": "1795282200250000"});
        assert_eq!(shown(&ready, 60).unwrap(), "17:30:00.250 generation 2 is ready (14 ms)");
        let reason =
            "reload failed: generation 3 exited with status 7 \u{1b}[31m; generation 2 serves on, as it did before";
        let failed = json!({"MESSAGE_ID": events::RELOAD_FAILED, "MESSAGE": reason, "RELOAD_MS": "9",
            "__REALTIME_TIMESTAMP": "1795282200250000"});
        let text = shown(&failed, 60).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 60) && text.contains("\\u{1b}[31m"), "{text}");
        assert_eq!(shown(&json!({"MESSAGE_ID": "00", "__REALTIME_TIMESTAMP": "1"}), 60), None);
        assert_eq!(shown(&json!({"MESSAGE_ID": events::READY}), 60), None);
    }
}
