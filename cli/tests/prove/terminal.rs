//! The tool on a terminal of a given width.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};

pub(crate) const WIDTHS: [u16; 5] = [40, 60, 80, 120, 200];

/// What it wrote, and its exit code.
pub(crate) fn on_a_terminal(columns: u16, arguments: &[&str]) -> (String, Option<i32>) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.args(arguments).env_remove("NO_COLOR").env("TERM", "xterm");
    let stderr = pty.slave.try_clone().unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(pty.slave).stderr(stderr).spawn().unwrap();
    // It holds the other end; when nobody does, reading from this one fails.
    drop(command);
    let (mut terminal, mut written) = (File::from(pty.master), Vec::new());
    let _ = terminal.read_to_end(&mut written);
    (String::from_utf8_lossy(&written).into_owned(), child.wait().unwrap().code())
}

/// Its lines, as they stand on the screen: without what moves the cursor and colours.
pub(crate) fn lines(written: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().skip(1).find(|c| c.is_ascii_alphabetic())),
            '\r' => plain.push('\n'),
            c => plain.push(c),
        }
    }
    plain.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[track_caller]
pub(crate) fn assert_fits(written: &str, columns: u16) {
    for line in lines(written) {
        assert!(line.chars().count() <= usize::from(columns), "{columns} columns: {line:?} of {written}");
    }
}
