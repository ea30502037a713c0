//! Names in the fd store.
//!
//! systemd can remove only *all* fds of a name, and of one open file description it keeps the first
//! name. So an entry cannot be replaced under its own name without a moment in which the store has
//! neither: each replacement goes under a name of its own, the plain one with a number, and the one
//! before is removed afterwards. Two slots that alternate were rejected: after a crash between the
//! two steps nothing would tell which one is newer.

use crate::error::{Error, Kind, Result};
use std::fmt;

/// The longest name of an fd, which is `FDNAME_MAX` in systemd.
const MAX_NAME: usize = 255;
/// The length of `~` and the digits of a u64.
const MAX_SUFFIX: usize = 21;

/// Names that begin so are handover's own.
pub(crate) const RESERVED: &str = "handover.";

/// The entry with the connections that wait for the next start.
pub(crate) const MAILBOX: &str = "handover.mailbox";

/// Names of entries with copies of the connections that are served, for the start after a crash.
pub(crate) const INSURED: &str = "handover.insured.";

/// What an entry is called in the store: `name`, after replacements `name~1`, `name~2`…
///
/// A trailing `~` says, between generations only, that the store does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) stored: bool,
}

impl Slot {
    /// Parses a name; `None` if it is none that handover gives.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (text, stored) = match text.strip_suffix('~') {
            Some(text) => (text, false),
            None => (text, true),
        };
        let (name, number) = match text.rsplit_once('~') {
            None => (text, 0),
            Some((name, digits)) => {
                let number: u64 = digits.parse().ok().filter(|n| *n > 0)?;
                // One spelling each: what is removed is what was put.
                (number.to_string() == digits).then_some((name, number))?
            }
        };
        check(name).ok()?;
        Some(Self { name: name.to_owned(), number, stored })
    }
}

impl Slot {
    /// Returns whether that is a name that only a replacement by handover has: others do not number
    /// theirs so.
    pub(crate) fn is_replacement(text: &str) -> bool {
        Self::parse(text).is_some_and(|slot| slot.number > 0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.number > 0 {
            write!(f, "~{}", self.number)?;
        }
        if self.stored { Ok(()) } else { f.write_str("~") }
    }
}

/// Checks that the store can have an entry of that plain name.
pub(crate) fn check(name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_NAME - MAX_SUFFIX {
        format!("has {} bytes, at most {} are possible", name.len(), MAX_NAME - MAX_SUFFIX)
    } else if let Some(bad) = name.chars().find(|c| !(' '..='\u{7e}').contains(c) || *c == ':') {
        format!("has {bad:?}: systemd allows printable ASCII without ':'")
    } else if name.contains('~') {
        "has '~', which numbers replacements".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Invalid, format!("the fd store's name {name:?} {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_as_they_went() {
        for (text, name, number, stored) in
            [("db", "db", 0, true), ("db~1", "db", 1, true), ("db~", "db", 0, false), ("a b~77~", "a b", 77, false)]
        {
            let slot = Slot::parse(text).unwrap();
            assert_eq!((slot.name.as_str(), slot.number, slot.stored), (name, number, stored));
            assert_eq!(slot.to_string(), text);
        }
        for odd in
            ["", "~", "~1", "db~0", "db~01", "db~x", "db~~", "db~1~2", "db~-1", "db~99999999999999999999", "a:b", "ä"]
        {
            assert_eq!(Slot::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_refused_name_is_told_why() {
        assert!(check("handover.state.x y").is_ok());
        assert!(check(&"x".repeat(234)).is_ok());
        for (name, why) in [
            ("", "is empty"),
            ("a:b", "has ':': systemd allows"),
            ("a\n", "has '\\n'"),
            ("ä", "has 'ä'"),
            ("a~1", "has '~', which"),
            (&*"x".repeat(235), "has 235 bytes, at most 234"),
        ] {
            let error = check(name).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(why), "{error}");
        }
    }
}
