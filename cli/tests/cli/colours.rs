//! Colours are for terminals, and not for those who say `NO_COLOR`.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::{commands, handover};

const BAD: &str =
    "[Service]\nType=notify\nExecStart=/usr/bin/web\nExecReload=/usr/bin/handover reload $MAINPID\nKillMode=mixed\n";
/// A reload, as systemd alone tells it.
const JOURNAL: &str = r#"{"__REALTIME_TIMESTAMP":"1795282200000000","_PID":"1","UNIT":"web.service","MESSAGE_ID":"d34d037fff1847e6ae669a370e694725","MESSAGE":"Reloading web.service"}
{"__REALTIME_TIMESTAMP":"1795282200100000","_PID":"1","UNIT":"web.service","MESSAGE_ID":"7b05ebc668384222baa8881179cfda54","JOB_RESULT":"done","MESSAGE":"Reloaded web.service"}
"#;

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) columns: u16,
}

/// What the tool writes to a terminal, with this in its environment.
pub(crate) fn on_a_terminal(arguments: &[&str], variables: &[(&str, &str)], terminal: Terminal) -> String {
    let size = nix::pty::Winsize { ws_row: 50, ws_col: terminal.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    // All of them have a say: in CI, for one, clap takes any terminal for one with colours.
    for other in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(other);
    }
    command.args(arguments).env("TERM", "xterm").envs(variables.iter().copied());
    let stderr = pty.slave.try_clone().unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(pty.slave).stderr(stderr).spawn().unwrap();
    // It holds the other end; when nobody does, reading from this one fails.
    drop(command);
    let (mut terminal, mut written) = (std::fs::File::from(pty.master), Vec::new());
    let _ = terminal.read_to_end(&mut written);
    child.wait().unwrap();
    String::from_utf8(written).unwrap()
}

const WIDE: Terminal = Terminal { columns: 100 };

#[test]
fn colours_are_for_terminals_and_not_for_no_color() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (unit, journal) = (file("web.service", BAD), file("journal", JOURNAL));
    let mut all: Vec<Vec<String>> = commands().into_iter().map(|name| vec![name, "--help".into()]).collect();
    all.extend(commands().into_iter().map(|name| vec![name, "--no-such-option".into()]));
    all.extend([
        vec!["--help".to_owned()],
        vec!["check".into(), unit],
        vec!["timeline".into(), "--file".into(), journal, "--utc".into()],
    ]);
    for arguments in &all {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let plain = on_a_terminal(&arguments, &[("NO_COLOR", "1")], WIDE);
        assert!(plain.len() > 20 && !plain.contains('\u{1b}'), "{arguments:?}: {plain:?}");
        assert!(!on_a_terminal(&arguments, &[("TERM", "dumb")], WIDE).contains('\u{1b}'), "{arguments:?}");
        let coloured = on_a_terminal(&arguments, &[("NO_COLOR", "")], WIDE);
        assert!(coloured.contains("\u{1b}["), "an empty NO_COLOR is none: {arguments:?}: {coloured:?}");
        let piped = handover(&arguments);
        assert!(!piped.stdout.contains('\u{1b}') && !piped.stderr.contains('\u{1b}'), "{arguments:?}");
    }
}
