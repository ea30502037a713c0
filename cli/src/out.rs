//! Writing to stdout and stderr, and whether in colour; clap decides the same way for its own
//! messages.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// One line, or a block of them, to stdout. A reader that went away (`handover … | head`) is no
/// reason to stop what was begun and leave it half done: the rest is written to nobody.
pub(crate) fn line(text: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// Writes a file that was asked for, such as a page. Root is not led elsewhere by what others have
/// put there.
pub(crate) fn file(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    handover::internal::write_file(path, text.as_ref())
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

/// How many columns the terminal has that stdout is; `None`: it is none, and lines may be as long
/// as they like.
pub(crate) fn columns() -> Option<usize> {
    let (columns, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(columns.0)).filter(|columns| *columns > 0)
}

/// Whether stdout takes colours: only a terminal that has them, and not with `NO_COLOR`
/// (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}
