//! Entries of the journal as `journalctl -o json` prints them: asked from it, or from a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::known;
use super::when::Moment;
use crate::failure::Failure;

/// For all of journalctl's answer. A large journal on a slow disk takes its time.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(120);
/// A longer line is no entry: journalctl itself leaves out values above 4 KiB.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// Of what journalctl says to stderr.
const MOST_WORDS: u64 = 64 * 1024;

/// What a timeline reads; the rest need not be printed.
const FIELDS: &str = "MESSAGE,MESSAGE_ID,_PID,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,UNIT,USER_UNIT,_SOURCE_REALTIME_TIMESTAMP,JOB_ID,\
JOB_TYPE,JOB_RESULT,COMMAND,GENERATION,HANDOVER_ID,OLD_PID,NEW_PID,SPAWN_MS,READY_MS,SWITCH_MS,HANDOVER_MS,DRAIN_MS,RELOAD_MS,\
CONNECTIONS,CUT,MOVED,STAYED,MOVE_MS,REASON";

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Entry(Map<String, Value>);

impl Entry {
    /// `Ok(None)` of an empty line.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        // json-seq begins each entry with a record separator.
        let line = line.strip_prefix(b"\x1e").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => Ok(Some(Self(fields))),
            Ok(_) => Err("is no journal entry".to_owned()),
            Err(e) => Err(format!("is no JSON ({e})")),
        }
    }

    /// The first value of the field.
    pub(super) fn get(&self, field: &str) -> Option<Cow<'_, str>> {
        text(self.0.get(field)?)
    }

    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.get(field)?.parse().ok()
    }

    /// When it was logged; as a second choice, when it was received.
    pub(super) fn time(&self) -> Option<Moment> {
        let stamp = |field: &str| self.get(field)?.parse().ok();
        stamp("_SOURCE_REALTIME_TIMESTAMP").or_else(|| stamp("__REALTIME_TIMESTAMP")).map(Moment)
    }
}

/// When an entry was logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// For the order of entries and what is between them: as if nobody had set the clock.
    pub(super) order: Moment,
    /// By the clock on the wall.
    pub(super) wall: Moment,
}

impl Stamp {
    pub(super) fn earlier(self, ms: u64) -> Self {
        Self { order: self.order.earlier(ms), wall: self.wall.earlier(ms) }
    }

    pub(super) fn later(self, ms: u64) -> Self {
        Self { order: self.order.later(ms), wall: self.wall.later(ms) }
    }

    /// Milliseconds since `before`; 0 where that is later.
    pub(super) fn since(self, before: Self) -> u64 {
        self.order.since(before.order)
    }
}

/// Finds out where the clock was set: then it has another distance to the one that nobody sets.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Of each boot: the distance in its first entry.
    boots: BTreeMap<String, i64>,
}

impl Clock {
    /// Less is the time between two looks at two clocks.
    const SET: i64 = 100_000;

    /// `None`: the entry has no time.
    pub(super) fn stamp(&mut self, entry: &Entry) -> Option<Stamp> {
        let wall = entry.time()?;
        let received = |field: &str| entry.get(field)?.parse::<i64>().ok();
        let distance = received("__REALTIME_TIMESTAMP")
            .and_then(|real| real.checked_sub(received("__MONOTONIC_TIMESTAMP")?))
            .zip(entry.get("_BOOT_ID"));
        let set = distance.map_or(0, |(distance, boot)| {
            distance.saturating_sub(*self.boots.entry(boot.into_owned()).or_insert(distance))
        });
        let set = if set.saturating_abs() > Self::SET { set } else { 0 };
        Some(Stamp { order: Moment(wall.0.saturating_sub(set)), wall })
    }
}

/// What is no UTF-8 is an array of bytes; a field that occurs twice, an array of values; one that
/// is too long, null.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Array(values) => {
            let bytes: Option<Vec<u8>> = values.iter().map(|v| v.as_u64()?.try_into().ok()).collect();
            match bytes {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned().into()),
                None => text(values.iter().find(|v| !v.is_number())?),
            }
        }
        _ => None,
    }
}

/// Everything about the unit that this user may read; what journalctl said about what is missing.
pub(super) async fn ask(
    unit: &str,
    user: bool,
    since: Option<Moment>,
    each: impl FnMut(Entry),
) -> Result<String, Failure> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--output=json"]).arg(format!("--output-fields={FIELDS}"));
    command.arg(format!("--{}={unit}", if user { "user-unit" } else { "unit" }));
    if let Some(Moment(usec)) = since {
        // With a fraction it would not be understood by all versions.
        command.arg(format!("--since=@{}", usec.div_euclid(1_000_000)));
    }
    command.args(known::ids().map(|id| format!("MESSAGE_ID={id}")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| {
        Failure::cannot_run(format!(
            "journalctl cannot be run: {e}. Where there is no journald, bring an export of one: \
             `journalctl -o json -u {unit} >journal.json` there, `handover timeline --file journal.json` here"
        ))
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::cannot_run("journalctl has no output"));
    };
    let lines = async { lines(stdout, "journalctl's output", each).await.map_err(io::Error::other) };
    let words = async {
        let mut text = Vec::new();
        let mut stderr = stderr.take(MOST_WORDS);
        stderr.read_to_end(&mut text).await.map(|_| String::from_utf8_lossy(&text).into_owned())
    };
    let all = async { tokio::try_join!(lines, words, child.wait()) };
    match tokio::time::timeout(JOURNAL_TIMEOUT, all).await {
        Ok(Ok(((), words, status))) if status.success() || words.contains("insufficient permissions") => Ok(words),
        Ok(Ok(((), words, status))) => {
            // Without entries, old versions end with 1 and without a word.
            if words.trim().is_empty() || words.contains("No journal files were found") {
                return Ok(words);
            }
            Err(Failure::cannot_run(format!("journalctl failed, {status}: {}", crate::safe::terminal(words.trim()))))
        }
        Ok(Err(e)) => Err(Failure::cannot_run(format!("journalctl: {e}"))),
        Err(_) => Err(Failure::cannot_run(format!(
            "journalctl did not end within {JOURNAL_TIMEOUT:?}: ask for less with --since"
        ))),
    }
}

/// An export; `-` is stdin.
pub(super) async fn read(path: &Path, each: impl FnMut(Entry)) -> Result<(), Failure> {
    let name = if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() };
    let file = match path.as_os_str() == "-" {
        true => io::stdin().as_fd().try_clone_to_owned().map(|fd| File::from_std(fd.into())),
        false => File::open(path).await,
    };
    let file = file.map_err(|e| Failure::cannot_run(format!("{name} cannot be read: {e}")))?;
    lines(file, &name, each).await.map_err(Failure::cannot_run)
}

pub(super) async fn lines(from: impl AsyncRead + Unpin, name: &str, mut each: impl FnMut(Entry)) -> Result<(), String> {
    let mut from = BufReader::new(from);
    for number in 1.. {
        let mut line = Vec::new();
        let read = (&mut from).take(LONGEST_LINE + 1).read_until(b'\n', &mut line).await;
        if read.map_err(|e| format!("{name} cannot be read: {e}"))? == 0 {
            break;
        }
        if let Some(entry) = entry(&line, number, name)? {
            each(entry);
        }
    }
    Ok(())
}

fn entry(line: &[u8], number: u64, name: &str) -> Result<Option<Entry>, String> {
    if line.len() as u64 > LONGEST_LINE {
        return Err(format!("line {number} of {name} has more than {LONGEST_LINE} bytes, so it is no journal entry"));
    }
    Entry::parse(line).map_err(|e| format!("line {number} of {name} {e}: what is read is `journalctl -o json`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_journalctl_writes_them() {
        let line =
            br#"{"A":"a","B":[104,105,255],"C":["one","two"],"D":null,"E":[[104,105],"x"],"__REALTIME_TIMESTAMP":"7"}"#;
        let entry = Entry::parse(line).unwrap().unwrap();
        let get = |name| entry.get(name).map(Cow::into_owned);
        assert_eq!(get("A").as_deref(), Some("a"));
        assert_eq!(get("B").as_deref(), Some("hi\u{fffd}"));
        assert_eq!(get("C").as_deref(), Some("one"));
        assert_eq!((get("D"), get("F")), (None, None));
        assert_eq!(get("E").as_deref(), Some("hi"));
        assert_eq!(entry.time(), Some(Moment(7)));
        assert!(Entry::parse(b" \n").unwrap().is_none());
        assert!(Entry::parse(b"\x1e{}\n").unwrap().is_some());
        assert!(Entry::parse(b"-- No entries --").is_err() && Entry::parse(b"[]").is_err());
    }
}
