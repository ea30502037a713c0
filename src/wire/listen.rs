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
    /// There is no `LISTEN_FDS`, or it is 0.
    Nothing,
    /// There are fds, but for another process: that of the pid, or, without `LISTEN_PID`, nobody's.
    NotForUs(Option<u32>),
}

/// Reads the three variables for the process `pid`, of which at most `limit` fds can be open.
///
/// `LISTEN_PIDFDID` (systemd 259) must name the process too, where it is set and `id` tells the
/// number of its pidfd: a pid may have been another's before.
pub(crate) fn parse<'a>(
    get: impl Fn(&str) -> Option<&'a OsStr>,
    pid: u32,
    id: impl FnOnce() -> Option<u64>,
    limit: usize,
) -> Result<Listen> {
    let Some(count) = text("LISTEN_FDS", get("LISTEN_FDS"))? else {
        return Ok(Listen::Nothing);
    };
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
            if let Some(value) = text("LISTEN_PIDFDID", get("LISTEN_PIDFDID"))? {
                let named: u64 = value.parse().map_err(|_| {
                    invalid("LISTEN_PIDFDID", value, "is not the number of a pidfd; unset it with LISTEN_PID")
                })?;
                if id().is_some_and(|id| id != named) {
                    return Ok(Listen::NotForUs(Some(owner)));
                }
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

/// Returns the variable as text. An empty one counts as absent, except that empty names are one
/// empty name.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    const ME: u32 = 42;

    fn read(pairs: &[(&str, &str)]) -> Result<Listen> {
        let get = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| OsStr::new(*value));
        parse(get, ME, || Some(4711), 1024)
    }

    fn passed(fds: &[(i32, &str)]) -> Listen {
        Listen::Passed(fds.iter().map(|(fd, name)| (*fd, (*name).to_owned())).collect())
    }

    #[test]
    fn ours() {
        let two = [("LISTEN_PID", "42"), ("LISTEN_FDS", "2")];
        assert_eq!(read(&two).expect("valid"), passed(&[(3, "unknown"), (4, "unknown")]));
        let named = [two[0], two[1], ("LISTEN_FDNAMES", "http:web.socket")];
        assert_eq!(read(&named).expect("valid"), passed(&[(3, "http"), (4, "web.socket")]));
        let empty = [two[0], two[1], ("LISTEN_FDNAMES", ":")];
        assert_eq!(read(&empty).expect("valid"), passed(&[(3, ""), (4, "")]));
        let one = [two[0], ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "")];
        assert_eq!(read(&one).expect("valid"), passed(&[(3, "")]));
        let pidfd = [two[0], two[1], ("LISTEN_PIDFDID", "4711")];
        assert_eq!(read(&pidfd).expect("valid"), passed(&[(3, "unknown"), (4, "unknown")]));
    }

    #[test]
    fn nothing_and_not_for_us_are_told_apart() {
        assert_eq!(read(&[]).expect("valid"), Listen::Nothing);
        assert_eq!(read(&[("LISTEN_PID", "42")]).expect("valid"), Listen::Nothing);
        assert_eq!(read(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "")]).expect("valid"), Listen::Nothing);
        assert_eq!(read(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "0")]).expect("valid"), Listen::Nothing);
        assert_eq!(read(&[("LISTEN_FDS", "1")]).expect("valid"), Listen::NotForUs(None));
        assert_eq!(read(&[("LISTEN_PID", ""), ("LISTEN_FDS", "1")]).expect("valid"), Listen::NotForUs(None));
        assert_eq!(read(&[("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]).expect("valid"), Listen::NotForUs(Some(1)));
        let reused = [("LISTEN_PID", "42"), ("LISTEN_PIDFDID", "4712"), ("LISTEN_FDS", "1")];
        assert_eq!(read(&reused).expect("valid"), Listen::NotForUs(Some(42)));
        // What is malformed but somebody else's is not ours to judge.
        assert_eq!(read(&[("LISTEN_PID", "1"), ("LISTEN_FDS", "x")]).expect("valid"), Listen::NotForUs(Some(1)));
    }

    #[test]
    fn malformed_names_the_variable_and_its_value() {
        let ours = ("LISTEN_PID", "42");
        for (pairs, start) in [
            ([("LISTEN_PID", "me"), ("LISTEN_FDS", "1"), ("", "")], "LISTEN_PID=\"me\" is not"),
            ([ours, ("LISTEN_FDS", "one"), ("", "")], "LISTEN_FDS=\"one\" is not"),
            ([ours, ("LISTEN_FDS", "-1"), ("", "")], "LISTEN_FDS=\"-1\" is not"),
            ([ours, ("LISTEN_FDS", "1\n"), ("", "")], "LISTEN_FDS=\"1\\n\" is not"),
            ([ours, ("LISTEN_FDS", "2147483647"), ("", "")], "LISTEN_FDS=\"2147483647\" is not"),
            ([ours, ("LISTEN_FDS", "99999999999999999999"), ("", "")], "LISTEN_FDS=\"99999999999999999999\" is not"),
            ([ours, ("LISTEN_FDS", "1022"), ("", "")], "LISTEN_FDS=\"1022\" is more than this process can"),
            ([ours, ("LISTEN_FDS", "2147483644"), ("", "")], "LISTEN_FDS=\"2147483644\" is more than"),
            ([ours, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a")], "LISTEN_FDNAMES=\"a\" has 1 names for LISTEN_FDS=2"),
            ([ours, ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")], "LISTEN_FDNAMES=\"a:b\" has 2 names"),
        ] {
            let error = read(&pairs).expect_err("malformed");
            assert!(error.is_invalid());
            assert!(error.to_string().starts_with(start), "{error}");
        }
        assert!(read(&[ours, ("LISTEN_FDS", "1021")]).is_ok());
        let latin1 = |name: &str| (name == "LISTEN_FDS").then(|| OsStr::from_bytes(b"\xff"));
        assert!(parse(latin1, ME, || None, 1024).expect_err("malformed").to_string().ends_with("is not UTF-8"));
    }
}
