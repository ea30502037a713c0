//! Writing to stdout and stderr. Nothing is coloured here; clap honours `NO_COLOR` for its own messages.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// One line, or a block of them, to stdout. A reader that went away (`handover … | head`) is no reason to
/// stop what was begun and leave it half done: the rest is written to nobody.
pub(crate) fn line(text: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

static NOTES: AtomicBool = AtomicBool::new(true);

/// As [`line`]: how far a thing has come. Nothing after [`hide_notes`].
pub(crate) fn note(text: impl fmt::Display) {
    if NOTES.load(Ordering::Relaxed) {
        line(text);
    }
}

/// For output that a program reads.
pub(crate) fn hide_notes() {
    NOTES.store(false, Ordering::Relaxed);
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
