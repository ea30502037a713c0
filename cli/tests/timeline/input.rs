//! What it reads, refuses, and says then.

use crate::journal::{Journal, Times};
use crate::tool::{run, timeline};

#[test]
fn a_file_and_stdin_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.json");
    std::fs::write(&path, Journal::twenty().text).unwrap();
    let utf8 = [("LANG", "C.UTF-8")];
    let from_file = run(&["web", "--file", path.to_str().unwrap()], "", &utf8);
    assert_eq!(from_file.stdout, timeline(&[], &Journal::twenty().text).stdout);
    let picture = directory.path().join("reloads.svg");
    let written = run(&["--file", path.to_str().unwrap(), "--svg", picture.to_str().unwrap()], "", &utf8);
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""));
    assert!(std::fs::read_to_string(picture).unwrap().starts_with("<svg"));
    let nowhere = run(&["--file", path.to_str().unwrap(), "--svg", "/no/such/directory/x.svg"], "", &utf8);
    assert!(nowhere.code == Some(3) && nowhere.stderr.contains("cannot be written"), "{nowhere:?}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let run = timeline(&["web"], "{\"MESSAGE\":\"a\"}\n-- No entries --\n");
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("line 2 of stdin is no JSON") && run.stderr.contains("journalctl -o json"), "{run:?}");
    let empty = timeline(&["web"], "");
    assert!(empty.code == Some(3) && empty.stderr.contains("nothing about web.service"), "{empty:?}");
    let missing = crate::tool::run(&["--file", "/no/such/file"], "", &[]);
    assert!(missing.code == Some(3) && missing.stderr.contains("/no/such/file cannot be read"), "{missing:?}");
}

#[test]
fn the_unit_may_be_left_out_where_there_is_one() {
    let mut two = Journal::new();
    two.reload(1, Times::USUAL);
    two.unit = "other.service".into();
    two.wait_ms(1000).reload(70, Times::USUAL);
    let run = timeline(&[], &two.text);
    assert!(run.code == Some(2) && run.stderr.contains("other.service, web.service"), "{run:?}");
    assert!(timeline(&["other"], &two.text).stdout.starts_with("other.service: 1 reload (1 handed over)"));
    assert_eq!(run_without_anything().code, Some(2));
}

fn run_without_anything() -> crate::tool::Run {
    run(&[], "", &[])
}

#[test]
fn wrong_arguments() {
    for (arguments, word) in [
        (&["web*", "--file", "-"][..], "not the name of one unit"),
        (&["web", "--file", "-", "--since", "soon"], "how long ago"),
        (&["web", "--file", "-", "--json", "--svg", "-"], "only one of"),
    ] {
        let run = run(arguments, "", &[]);
        assert!(run.code == Some(2) && run.stderr.contains(word), "{arguments:?}: {run:?}");
    }
}

#[test]
fn since_leaves_out_what_is_older() {
    let journal = Journal::twenty().text;
    let run = timeline(&["--since", "2026-11-21 10:02:00"], &journal);
    assert!(run.stdout.starts_with("web.service: 4 reloads (4 handed over)\n"), "{}", run.stdout);
    let none = timeline(&["--since", "2030-01-01"], &journal);
    assert_eq!(none.code, Some(3), "{none:?}");
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = run(&["--help"], "", &[]).stdout;
    for word in ["Examples:", "--svg reloads.svg", "Exit codes:", "systemd-journal", "NO_COLOR"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let short = help.lines().skip_while(|l| *l != "Examples:").all(|line| line.chars().count() <= 82);
    assert!(short, "{help}");
}

#[test]
fn without_journalctl_it_says_what_else_works() {
    let run = run(&["web"], "", &[("PATH", "/no/such/directory")]);
    assert!(run.code == Some(3) && run.stderr.contains("--file"), "{run:?}");
}
