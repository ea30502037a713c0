//! What a signature tells of itself: the comment that is signed with the program.
//!
//! minisign(1) writes `timestamp:1717171717`, `file:web` and `hashed`, separated by tabs, unless it
//! is told otherwise (`-t`). Without it a good signature of any program would do for any other, and
//! one of years ago for that of today.

use crate::error::{Error, Kind, Result};

/// How much of a comment is shown.
const SHOWN: usize = 200;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedComment {
    text: String,
    file: Option<String>,
    /// Seconds since 1970.
    timestamp: Option<u64>,
}

impl TrustedComment {
    /// Takes out what is known; of a field that is there twice the first one counts.
    pub(crate) fn parse(text: &str) -> Self {
        let field = |name: &str| text.split('\t').find_map(|part| part.trim().strip_prefix(name));
        Self {
            text: text.chars().take(SHOWN).collect(),
            file: field("file:").map(str::to_owned),
            timestamp: field("timestamp:").and_then(|seconds| seconds.parse().ok()),
        }
    }

    /// Returns when it was signed, in seconds since 1970.
    pub(crate) fn timestamp(&self) -> Option<u64> {
        self.timestamp
    }

    /// Checks that what was signed is one of these files.
    pub(crate) fn check_name(&self, what: &str, names: [&str; 2]) -> Result<()> {
        let [program, source] = names;
        match self.file.as_deref() {
            Some(file) if names.contains(&file) => Ok(()),
            Some(file) => {
                let either =
                    if program == source { format!("{program:?}") } else { format!("{program:?} or {source:?}") };
                let why = format!("it is of a file {file:?}, and the program is {either}: --any-name takes it");
                Err(bad(what, &why))
            }
            None => {
                let text = &self.text;
                let why = format!("its comment {text:?} names no file: sign without -t, or --any-name takes it");
                Err(bad(what, &why))
            }
        }
    }

    /// Checks that it was not signed before the newest program that the service has taken.
    pub(crate) fn check_age(&self, what: &str, newest: Option<u64>) -> Result<()> {
        let Some(newest) = newest else { return Ok(()) };
        match self.timestamp {
            Some(signed) if signed >= newest => Ok(()),
            Some(signed) => {
                let why = format!("it was made at @{signed}, before that of a program which ran already (@{newest})");
                Err(bad(what, &format!("{why}: --allow-older takes it")))
            }
            None => {
                let text = &self.text;
                let why = format!("its comment {text:?} tells no time: sign without -t, or --allow-older takes it");
                Err(bad(what, &why))
            }
        }
    }
}

fn bad(what: &str, why: &str) -> Error {
    Error::new(Kind::Candidate, format!("the signature of {what} is not the one that is needed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_with_the_program_must_fit() {
        let comment = TrustedComment::parse("timestamp:1555779966\tfile:web\thashed");
        assert_eq!((comment.timestamp(), comment.file.as_deref()), (Some(1_555_779_966), Some("web")));
        comment.check_name("x", ["web", "web-1"]).unwrap();
        comment.check_name("x", ["other", "web"]).unwrap();
        let wrong = comment.check_name("x", ["worker", "worker"]).unwrap_err();
        assert!(wrong.is_candidate() && wrong.to_string().contains("of a file \"web\""), "{wrong}");
        for (newest, good) in [(None, true), (Some(1_555_779_966), true), (Some(1_555_779_967), false)] {
            assert_eq!(comment.check_age("x", newest).is_ok(), good, "{newest:?}");
        }
    }

    #[test]
    fn what_tells_nothing_fits_nothing() {
        for text in ["", "a test", "timestamp:\tfiles:web", "timestamp:-1 file:web", "timestamp:99999999999999999999"] {
            let comment = TrustedComment::parse(text);
            assert!(comment.check_name("x", ["web", "web"]).is_err(), "{text:?}");
            assert!(comment.check_age("x", Some(1)).is_err() && comment.check_age("x", None).is_ok(), "{text:?}");
        }
    }
}
