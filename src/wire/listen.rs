//! `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, as in sd_listen_fds(3).

use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;

/// The number of the first fd that is passed (`SD_LISTEN_FDS_START`).
pub(crate) const FIRST_FD: i32 = 3;

/// What a socket is called when nobody named it, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// What the variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// These fds, in order, are ours; the list is not empty.
    Passed(Vec<(i32, String)>),
    /// No `LISTEN_FDS`, or 0 of them.
    Nothing,
    /// There are fds, but for another process: that of the pid, or, without `LISTEN_PID`, nobody's.
    NotForUs(Option<u32>),
}

/// Reads the three variables for the process `pid`, of which at most `limit` fds can be open.
///
/// `LISTEN_PIDFDID` (systemd 259) is not looked at: it narrows down what `LISTEN_PID` says, and
/// programs that pass sockets on by the older protocol leave a stale one behind.
pub(crate) fn parse<'a>(get: impl Fn(&str) -> Option<&'a OsStr>, pid: u32, limit: usize) -> Result<Listen> {
    let Some(count) = text("LISTEN_FDS", get("LISTEN_FDS"))? else { return Ok(Listen::Nothing) };
    match text("LISTEN_PID", get("LISTEN_PID"))? {
        None => return Ok(Listen::NotForUs(None)),
        Some(value) => {
            let owner: u32 = value.parse().map_err(|_| {
                invalid(
                    "LISTEN_PID",
                    value,
                    "is not a process id; unset it or start the service through its .socket unit",
                )
            })?;
            if owner != pid {
                return Ok(Listen::NotForUs(Some(owner)));
            }
        }
    }
    let fds = count_of(count, limit)?;
    let names = names_of(text("LISTEN_FDNAMES", get("LISTEN_FDNAMES"))?, fds.len())?;
    if fds.is_empty() { Ok(Listen::Nothing) } else { Ok(Listen::Passed(fds.zip(names).collect())) }
}

fn count_of(value: &str, limit: usize) -> Result<std::ops::Range<i32>> {
    let count: i32 = value
        .parse()
        .ok()
        .filter(|n| (0..=i32::MAX - FIRST_FD).contains(n))
        .ok_or_else(|| invalid("LISTEN_FDS", value, "is not a number of file descriptors"))?;
    let end = FIRST_FD + count;
    if count > 0 && usize::try_from(end).is_ok_and(|end| end > limit) {
        let why = format!("is more than this process can have open ({limit}, see LimitNOFILE=)");
        return Err(invalid("LISTEN_FDS", value, &why));
    }
    Ok(FIRST_FD..end)
}

fn names_of(value: Option<&str>, fds: usize) -> Result<Vec<String>> {
    let Some(value) = value.filter(|_| fds > 0) else {
        return Ok(vec![UNNAMED.to_owned(); fds]);
    };
    let names: Vec<_> = value.split(':').map(str::to_owned).collect();
    if names.len() == fds {
        return Ok(names);
    }
    let why = format!(
        "has {} names for LISTEN_FDS={fds}; a socket unit whose own name holds a ':' needs FileDescriptorName=",
        names.len()
    );
    Err(invalid("LISTEN_FDNAMES", value, &why))
}

/// The variable as text. An empty one counts as absent, except that empty names are one empty name.
fn text<'a>(variable: &str, value: Option<&'a OsStr>) -> Result<Option<&'a str>> {
    match value {
        None => Ok(None),
        Some(value) if value.is_empty() && variable != "LISTEN_FDNAMES" => Ok(None),
        Some(value) => match value.to_str() {
            Some(text) => Ok(Some(text)),
            None => Err(invalid(variable, &value.to_string_lossy(), "is not UTF-8")),
        },
    }
}

fn invalid(variable: &str, value: &str, why: &str) -> Error {
    // Debug, so that a control character in the variable reaches no terminal.
    Error::new(Kind::Invalid, format!("{variable}={value:?} {why}"))
}
