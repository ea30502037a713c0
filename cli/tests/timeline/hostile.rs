//! Anybody may log anything.

use handover::service::events;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::journal::Journal;
use crate::tool::timeline;

const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J<script>alert(1)</script>\"'>&amp;\u{202e}\u{0}\u{9b}31m\nnext line";

fn evil() -> String {
    let mut journal = Journal::new();
    journal.unit = format!("w{EVIL}.service");
    journal.rolled_back(1, 30, EVIL);
    journal.service(40, events::UNHEALTHY, &[("MESSAGE", EVIL)]);
    journal.text
}

#[test]
fn nothing_reaches_the_terminal() {
    let run = timeline(&[], &evil());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.stdout.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{:?}", run.stdout);
    assert!(run.stdout.contains(r"\u{1b}[2J"), "{}", run.stdout);
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    // In messages of its own, too.
    let two = evil() + &Journal::twenty().text;
    let run = timeline(&[], &two);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("several units") && !run.stderr.contains('\u{1b}'), "{:?}", run.stderr);
}

#[test]
fn nothing_is_markup() {
    for format in ["--svg", "--html"] {
        let run = timeline(&[format, "-"], &evil());
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(!run.stdout.contains("<script") && !run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{0}'));
        assert!(run.stdout.contains("&lt;script&gt;"), "{}", run.stdout);
    }
}

/// Fields of any value in any order are no reason to panic, or to print what is no number.
#[test]
fn any_fields() {
    let names = [
        "HANDOVER_ID",
        "GENERATION",
        "OLD_PID",
        "NEW_PID",
        "SPAWN_MS",
        "READY_MS",
        "SWITCH_MS",
        "HANDOVER_MS",
        "DRAIN_MS",
        "RELOAD_MS",
        "CUT",
        "JOB_ID",
        "JOB_RESULT",
        "REASON",
        "CONNECTIONS",
        "COMMAND",
    ];
    let values = ["0", "1", "2", "77", "18446744073709551615", "-1", "x", "", "done", "ExecReload"];
    let ids: Vec<&str> = events::ALL
        .iter()
        .map(|(_, id)| *id)
        .chain([
            crate::journal::RELOADING,
            crate::journal::RELOADED,
            crate::journal::STARTED,
            crate::journal::STOPPED,
            crate::journal::PROCESS_EXIT,
        ])
        .collect();
    let entry = (0..ids.len(), prop::collection::vec((0..names.len(), 0..values.len()), 0..9), 0_u64..3);
    let mut runner =
        TestRunner::new_with_rng(Config::with_cases(24), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let result = runner.run(&prop::collection::vec(entry, 1..120), |entries| {
        let mut journal = Journal::new();
        for (id, fields, step) in entries {
            let fields: Vec<_> = fields.into_iter().map(|(name, value)| (names[name], values[value])).collect();
            journal.wait_ms(step * 400);
            journal.service(0, ids[id], &fields);
            journal.systemd(ids[id], &fields);
        }
        for arguments in [&["web"][..], &["web", "--json"], &["web", "--html", "-"]] {
            let run = timeline(arguments, &journal.text);
            prop_assert_eq!(run.code, Some(0), "{}", run.stderr);
            prop_assert!(!run.stdout.contains("NaN") && !run.stdout.contains("inf\""));
            if arguments.len() == 1 {
                prop_assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
            }
        }
        Ok(())
    });
    result.unwrap();
}
