//! Each shell reads what is made for it.

use std::process::Command;

use crate::{commands, handover, is_there, run};

fn script(shell: &str) -> tempfile::NamedTempFile {
    let made = handover(&["completions", shell]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    for command in commands() {
        assert!(made.stdout.contains(&command), "{shell} does not know {command}");
    }
    assert!(!made.stdout.contains("The example service itself"), "what is hidden stays so");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.stdout).unwrap();
    file
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
fn bash_completes_commands_and_options() {
    if !is_there("bash", "bash") {
        return;
    }
    let script = script("bash");
    let complete = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let (last, number) = (words.last().unwrap(), words.len() - 1);
        let ask = format!(
            "source '{}'; COMP_WORDS=({line}); COMP_CWORD={number}; COMP_LINE='{line}'; \
             _handover handover '{last}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.path().display(),
            words[number - 1]
        );
        run(Command::new("bash").args(["--norc", "-c", &ask])).stdout
    };
    assert_eq!(complete("handover rel"), "reload\n");
    assert_eq!(complete("handover check --target"), "--target-version\n");
}
