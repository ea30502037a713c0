//! `--help` of each command.

use crate::{commands, handover};

#[test]
fn every_command_has_examples_and_exit_codes() {
    let mut all: Vec<Vec<String>> = commands().into_iter().map(|name| vec![name]).collect();
    all.push(Vec::new());
    for command in all {
        let arguments: Vec<_> = command.iter().map(String::as_str).collect();
        let run = handover(&[&arguments[..], &["--help"]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{command:?}");
        let (before, after) = run.stdout.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{}", run.stdout));
        assert!(before.contains("\nUsage: handover"), "{before}");
        let example = format!("handover {}", arguments.concat());
        assert!(after.contains(&example), "no example of {example}:\n{after}");
        let (_, codes) = after.split_once("\nExit codes:\n").unwrap_or_else(|| panic!("{after}"));
        let codes: Vec<u8> =
            codes.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()?.parse().ok()).collect();
        assert!(codes.starts_with(&[0]) && codes.contains(&2) && codes.is_sorted(), "{codes:?}");
        // No code that is not in the table of all.
        assert!(codes.iter().all(|code| [0, 1, 2, 3, 130].contains(code)), "{codes:?}");
        let limit = if command.is_empty() { 100 } else { 80 };
        let wide: Vec<_> = after.lines().filter(|l| l.chars().count() > limit).collect();
        assert!(wide.is_empty(), "{wide:#?}");
        let short = handover(&[&arguments[..], &["-h"]].concat());
        assert_eq!(short.code, Some(0));
        assert!(short.stdout.lines().count() <= run.stdout.lines().count());
    }
}
