//! Entries of the journal as `journalctl -o json` prints them, or `-o export`: asked from it, or
//! from a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::known;
use super::when::Moment;
use crate::failure::Failure;

/// For all of journalctl's answer. A large journal on a slow disk takes its time.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(120);
/// For ssh to reach another machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer line is no entry: journalctl itself leaves out values above 4 KiB.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// Of what journalctl says to stderr.
const MOST_WORDS: u64 = 64 * 1024;

/// What a timeline reads; the rest need not be printed.
pub(super) const FIELDS: &str = "MESSAGE,MESSAGE_ID,_HOSTNAME,_PID,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,UNIT,USER_UNIT,_SOURCE_REALTIME_TIMESTAMP,JOB_ID,\
JOB_TYPE,JOB_RESULT,COMMAND,GENERATION,HANDOVER_ID,OLD_PID,NEW_PID,SPAWN_MS,READY_MS,SWITCH_MS,HANDOVER_MS,DRAIN_MS,RELOAD_MS,\
CONNECTIONS,CUT,MOVED,STAYED,MOVE_MS,REASON";

/// Those that an entry has in any case.
const ALWAYS: [&str; 3] = ["__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID"];

/// Whose journal is asked.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Here {
        user: bool,
    },
    /// Of any number of machines.
    Directory(PathBuf),
    /// By the name that ssh knows it by, which is one word and no option.
    Host {
        name: String,
        user: bool,
    },
}

impl Place {
    fn command(&self, arguments: &[String]) -> Command {
        let Self::Host { name, .. } = self else {
            let mut command = Command::new("journalctl");
            command.args(arguments);
            return command;
        };
        let mut command = Command::new("ssh");
        command.args([
            "-o",
            "BatchMode=yes",
            "-o",
            &format!("ConnectTimeout={}", CONNECT_TIMEOUT.as_secs()),
            "-T",
            "--",
            name,
        ]);
        // A shell reads there what ssh says: each word is one for it, too.
        let words = std::iter::once("journalctl").chain(arguments.iter().map(String::as_str));
        command.args(words.map(|word| shlex::try_quote(word).unwrap_or_default().into_owned()));
        command
    }

    fn is_of_user(&self) -> bool {
        matches!(self, Self::Here { user: true } | Self::Host { user: true, .. })
    }

    /// At the beginning of what is said of it.
    fn name(&self) -> String {
        match self {
            Self::Here { .. } => "journalctl".to_owned(),
            Self::Directory(path) => format!("journalctl of {}", path.display()),
            Self::Host { name, .. } => format!("journalctl on {name}"),
        }
    }
}

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
    place: &Place,
    unit: &str,
    since: Option<Moment>,
    each: impl FnMut(Entry),
) -> Result<String, Failure> {
    let mut arguments = vec!["--no-pager".to_owned(), "--output=json".to_owned(), format!("--output-fields={FIELDS}")];
    if let Place::Directory(path) = place {
        let path = path.to_str().ok_or_else(|| Failure::usage(format!("{} is no UTF-8", path.display())))?;
        arguments.push(format!("--directory={path}"));
    }
    arguments.push(format!("--{}={unit}", if place.is_of_user() { "user-unit" } else { "unit" }));
    if let Some(Moment(usec)) = since {
        // With a fraction it would not be understood by all versions.
        arguments.push(format!("--since=@{}", usec.div_euclid(1_000_000)));
    }
    arguments.extend(known::ids().map(|id| format!("MESSAGE_ID={id}")));
    let (mut command, name) = (place.command(&arguments), place.name());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| {
        Failure::cannot_run(format!(
            "{name} cannot be run: {e}. Where there is no journald, bring an export of one: \
             `journalctl -o json -u {unit} >journal.json` there, `handover timeline --file journal.json` here"
        ))
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::cannot_run("journalctl has no output"));
    };
    let (read, failed) = (format!("the output of {name}"), io::Error::other);
    let lines = async { lines(stdout, &read, each).await.map_err(failed) };
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
            if (words.trim().is_empty() && status.code() == Some(1)) || words.contains("No journal files were found") {
                return Ok(words);
            }
            Err(Failure::cannot_run(format!("{name} failed, {status}: {}", crate::safe::terminal(words.trim()))))
        }
        Ok(Err(e)) => Err(Failure::cannot_run(format!("{name}: {e}"))),
        Err(_) => Err(Failure::cannot_run(format!(
            "{name} did not end within {JOURNAL_TIMEOUT:?}: ask for less with --since"
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
        let line = line(&mut from, name).await?;
        if line.is_empty() {
            break;
        }
        // An export begins with the name of a field.
        if number == 1 && line.first().is_some_and(|first| *first == b'_' || first.is_ascii_uppercase()) {
            return export(from, line, name, each).await;
        }
        if let Some(entry) = entry(&line, number, name)? {
            each(entry);
        }
    }
    Ok(())
}

/// With its end; nothing at the end of all.
async fn line(from: &mut (impl AsyncBufRead + Unpin), name: &str) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let read = from.take(LONGEST_LINE + 1).read_until(b'\n', &mut line).await;
    read.map_err(|e| format!("{name} cannot be read: {e}"))?;
    Ok(line)
}

/// The Journal Export Format: `FIELD=value`, or for other values than text the name alone and,
/// after it, the length in eight bytes and the value. An empty line ends an entry.
///
/// # References
/// - <https://systemd.io/JOURNAL_EXPORT_FORMATS/>
async fn export(
    mut from: impl AsyncBufRead + Unpin,
    first: Vec<u8>,
    name: &str,
    mut each: impl FnMut(Entry),
) -> Result<(), String> {
    let (mut fields, mut next) = (Map::new(), first);
    while !next.is_empty() {
        if next.len() as u64 > LONGEST_LINE {
            return Err(format!("a line of {name} has more than {LONGEST_LINE} bytes, so it is no journal entry"));
        }
        let text = next.strip_suffix(b"\n").unwrap_or(&next);
        match text.iter().position(|byte| *byte == b'=') {
            _ if text.is_empty() => {
                if !fields.is_empty() {
                    each(Entry(std::mem::take(&mut fields)));
                }
            }
            Some(end) => keep(&mut fields, &text[..end], &text[end + 1..]),
            None => {
                let cut = |e: io::Error| format!("{name} ends within a field, or is no `journalctl -o export`: {e}");
                let length = from.read_u64_le().await.map_err(cut)?;
                if length > LONGEST_LINE {
                    return Err(format!(
                        "a field of {name} has {length} bytes: what is read is `journalctl -o export`"
                    ));
                }
                let mut value = vec![0; usize::try_from(length).unwrap_or_default()];
                from.read_exact(&mut value).await.map_err(cut)?;
                if from.read_u8().await.map_err(cut)? != b'\n' {
                    return Err(format!("a field of {name} is longer than it says: it is no `journalctl -o export`"));
                }
                keep(&mut fields, text, &value);
            }
        }
        next = line(&mut from, name).await?;
    }
    if !fields.is_empty() {
        each(Entry(fields));
    }
    Ok(())
}

/// The first value of a field that a timeline reads.
fn keep(fields: &mut Map<String, Value>, name: &[u8], value: &[u8]) {
    let Ok(name) = std::str::from_utf8(name) else { return };
    if FIELDS.split(',').chain(ALWAYS).any(|known| known == name) && !fields.contains_key(name) {
        fields.insert(name.to_owned(), Value::from(String::from_utf8_lossy(value).into_owned()));
    }
}

fn entry(line: &[u8], number: u64, name: &str) -> Result<Option<Entry>, String> {
    if line.len() as u64 > LONGEST_LINE {
        return Err(format!("line {number} of {name} has more than {LONGEST_LINE} bytes, so it is no journal entry"));
    }
    Entry::parse(line)
        .map_err(|e| format!("line {number} of {name} {e}: what is read is `journalctl -o json` or `-o export`"))
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

    async fn exported(bytes: &[u8]) -> Result<Vec<Entry>, String> {
        let mut all = Vec::new();
        lines(bytes, "export", |entry| all.push(entry)).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn an_export_has_the_same_values() {
        let mut bytes =
            b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=7\nMESSAGE\n\x05\0\0\0\0\0\0\0a\nb=c\nREASON=one\nREASON=two\n"
                .to_vec();
        bytes.extend(b"OTHER=x\n\n\n__REALTIME_TIMESTAMP=8\n");
        let all = exported(&bytes).await.unwrap();
        assert_eq!(all.iter().map(Entry::time).collect::<Vec<_>>(), [Some(Moment(7)), Some(Moment(8))]);
        assert_eq!((all[0].get("MESSAGE").unwrap(), all[0].get("REASON").unwrap()), ("a\nb=c".into(), "one".into()));
        assert!(all[0].get("OTHER").is_none(), "a timeline does not read it");
        assert!(exported(&bytes[..40]).await.is_err(), "cut within a value");
        for bad in [&b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xffa\n"[..], b"MESSAGE\n\x01\0\0\0\0\0\0\0abc\n"] {
            assert!(exported(bad).await.is_err());
        }
    }

    #[test]
    fn nothing_reaches_a_shell_unquoted() {
        let place = Place::Host { name: "web1".into(), user: false };
        let command = place.command(&["--unit=web\\x2da.service".into(), "; touch /tmp/x".into(), "$(id)".into()]);
        let words: Vec<_> = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let asked = words.iter().position(|word| word == "journalctl").unwrap();
        assert_eq!(words[asked - 2..asked], ["--", "web1"]);
        let read = shlex::split(&words[asked + 1..].join(" ")).unwrap();
        assert_eq!(read, ["--unit=web\\x2da.service", "; touch /tmp/x", "$(id)"]);
        assert!(words[asked + 1..].iter().all(|word| word.starts_with(['\'', '"', '-'])), "{words:?}");
    }
}
