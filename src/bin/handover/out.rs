//! Writing to stdout and stderr. Nothing is coloured here; clap honours `NO_COLOR` for its own messages.

use std::fmt;
use std::io::{self, Write};

/// One line, or a block of them, to stdout. A reader that went away (`handover … | head`) is no reason to
/// stop what was begun and leave it half done: the rest is written to nobody.
pub(crate) fn line(text: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// One message to stderr.
pub(crate) fn error(text: &impl fmt::Display) {
    drop(writeln!(io::stderr().lock(), "handover: {text}"));
}

/// What somebody else wrote, without anything that a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    text.chars().fold(String::new(), |mut clean, c| {
        if c.is_control() {
            clean.extend(c.escape_default())
        } else {
            clean.push(c)
        }
        clean
    })
}
