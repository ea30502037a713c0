//! Each shell reads what is made for it, and completes with it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::{commands, handover, is_there, run};

/// As of systemd, whose every unit has a line.
const SYSTEMCTL: &str = r#"#!/bin/sh
case " $* " in
*" list-units "*) ;;
*) exit 1 ;;
esac
case " $* " in
*" --user "*) echo "mine.service loaded active running My own" ;;
*)
    echo "web.service  loaded    active   running A web server"
    echo "web.socket   loaded    active   running Its socket"
    echo "gone.service not-found inactive dead    gone.service"
    ;;
esac
"#;

/// A directory for `PATH` with the tool and a systemctl in it.
fn path() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_handover"), directory.path().join("handover")).unwrap();
    let systemctl = directory.path().join("systemctl");
    fs::write(&systemctl, SYSTEMCTL).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn script(shell: &str) -> tempfile::NamedTempFile {
    let made = handover(&["completions", shell]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), made.stdout).unwrap();
    file
}

/// What a shell says, with the tool in its path.
fn asked(shell: &str, arguments: &[&str], path: &Path) -> String {
    let system = std::env::var("PATH").unwrap();
    run(Command::new(shell).args(arguments).env("PATH", format!("{}:{system}", path.display()))).stdout
}

#[test]
fn shells_accept_their_completions() {
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = script(shell);
        if is_there(shell, shell) {
            let checked = run(Command::new(shell).arg(check).arg(script.path()));
            assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{shell}");
        }
    }
}

#[test]
fn bash_completes_commands_options_and_units() {
    if !is_there("bash", "bash") {
        return;
    }
    let (script, path) = (script("bash"), path());
    let complete = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let (last, number) = (words.last().unwrap(), words.len() - 1);
        let ask = format!(
            "source '{}'; COMP_WORDS=({line}); COMP_CWORD={number}; COMP_LINE='{line}'; \
             _clap_complete_handover handover '{last}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.path().display(),
            words[number - 1]
        );
        asked("bash", &["--norc", "-c", &ask], path.path())
    };
    assert_eq!(complete("handover rel"), "reload\n");
    assert_eq!(complete("handover check --target"), "--target-version\n");
    let all = complete("handover ");
    for command in commands() {
        assert!(all.lines().any(|line| line == command), "{command}: {all}");
    }
    assert!(!all.lines().any(|line| line == "web"), "what is hidden stays so: {all}");
    for takes in ["status ", "reload ", "timeline ", "check ", "upgrade ", "prove --unit "] {
        assert_eq!(complete(&format!("handover {takes}we")), "web.service\nweb.socket\n", "{takes}");
        let any = complete(&format!("handover {takes}"));
        assert!(!any.contains("gone.service") && !any.contains("mine.service"), "{takes}: {any}");
    }
    assert_eq!(complete("handover status --user m"), "mine.service\n");
}

#[test]
fn fish_completes_units() {
    if !is_there("fish", "fish") {
        return;
    }
    let (script, path) = (script("fish"), path());
    let complete = format!("source '{}'; complete --do-complete 'handover status we'", script.path().display());
    assert_eq!(asked("fish", &["--no-config", "-c", &complete], path.path()), "web.service\nweb.socket\n");
}

/// As zsh asks: its own function cannot be called without a terminal.
#[test]
fn zsh_is_told_units() {
    let path = path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.args(["--", "handover", "status", "we"]).env("PATH", path.path());
    command.env("HANDOVER_COMPLETE", "zsh").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
    assert_eq!(run(&mut command).stdout, "web.service\nweb.socket");
}
