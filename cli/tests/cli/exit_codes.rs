//! The same codes everywhere, and a reason with each but 0.

use crate::{commands, handover};

#[test]
fn two_is_a_wrong_command_line() {
    for command in commands() {
        let run = handover(&[&command, "--no-such-option"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{command}");
        assert!(run.stderr.contains("--no-such-option") && run.stderr.contains("--help"), "{}", run.stderr);
    }
    for arguments in
        [&["no-such-command"][..], &["reload"], &["completions", "no-such-shell"], &["init", "a b"], &["check"], &[]]
    {
        let run = handover(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn one_is_a_bad_answer_and_three_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(
        path("web.service"),
        "[Service]\nType=simple\nExecStart=/bin/web\nExecReload=/usr/bin/handover reload $MAINPID\n",
    )
    .unwrap();
    let (bad, missing, below_a_file) = (path("web.service"), path("missing"), path("web.service/below"));
    let directory = dir.path().display().to_string();
    for (arguments, code) in [
        (&["check", &bad][..], 1),
        (&["init", "web", "--dir", &directory], 1),
        (&["init", "web", "--dir", &below_a_file], 3),
        (&["check", &missing], 3),
        (&["reload", "0"], 3),
        (&["reload", "--socket", &missing], 3),
        (&["status", "--socket", &missing], 3),
        (&["timeline", "--file", &missing], 3),
        (&["man", &below_a_file], 3),
    ] {
        let run = handover(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.stdout, run.stderr);
        let said = if arguments[0] == "check" && code == 1 { &run.stdout } else { &run.stderr };
        assert!(said.lines().next().is_some_and(|line| line.len() > 10), "{arguments:?}: {said:?}");
    }
}
