//! What people see.

use std::env;

use crate::journal::{Journal, Times};
use crate::tool::{run, timeline};

#[test]
fn twenty_reloads_in_eighty_columns() {
    let run = timeline(&[], &Journal::twenty().text);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = run.stdout.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    assert_eq!(lines[0], "web.service: 20 reloads (19 handed over, 1 rolled back)");
    assert_eq!(lines[1], "2026-11-21 10:00:00 to 10:02:27 UTC");
    for number in 1..=20 {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{number:>2}  10:0"))), "{number}: {}", run.stdout);
    }
    let failed = lines.iter().position(|line| line.contains(" 8→9 ") && line.contains('✗')).unwrap();
    assert_eq!(lines[failed + 1].trim(), "rolled back in ready: generation 9 exited with status 7");
    assert!(run.stdout.contains("connections cut: 0") && !run.stdout.contains('\u{1b}'), "{}", run.stdout);
    // To look at: HANDOVER_TIMELINE_DIR=/some/where
    if let Some(directory) = env::var_os("HANDOVER_TIMELINE_DIR") {
        for (format, file) in [("--svg", "twenty.svg"), ("--html", "twenty.html")] {
            let picture = timeline(&[format, "-"], &Journal::twenty().text).stdout;
            std::fs::write(std::path::Path::new(&directory).join(file), picture).unwrap();
        }
        std::fs::write(std::path::Path::new(&directory).join("twenty.txt"), &run.stdout).unwrap();
    }
}

#[test]
fn any_width_is_kept() {
    let journal = Journal::twenty().text;
    for width in [60, 80, 100, 160] {
        let run = timeline(&["--width", &width.to_string()], &journal);
        assert!(run.stdout.lines().all(|line| line.chars().count() <= width), "{width}: {}", run.stdout);
        assert!(run.stdout.lines().any(|line| line.chars().count() + 2 >= width), "{width} is used: {}", run.stdout);
    }
    assert_eq!(timeline(&["--width", "20"], &journal).code, Some(2));
}

#[test]
fn letters_where_there_is_no_utf8() {
    let journal = Journal::twenty().text;
    for (arguments, environment) in [(vec![], vec![]), (vec!["--ascii"], vec![("LANG", "de_DE.UTF-8")])] {
        let run = run(&[&["--file", "-"], &arguments[..]].concat(), &journal, &environment);
        assert!(run.stdout.is_ascii(), "{}", run.stdout);
        assert!(run.stdout.contains("srrrr") && run.stdout.contains("dddd"), "{}", run.stdout);
    }
    assert!(!run(&["--file", "-"], &journal, &[("LC_ALL", "C.UTF-8")]).stdout.is_ascii());
}

#[test]
fn an_outlier_does_not_hide_the_others() {
    let mut journal = Journal::new();
    for generation in 1..=9 {
        journal.wait_ms(60_000).reload(generation, Times::USUAL);
    }
    journal.wait_ms(60_000).reload(10, Times { ready: 28_000, switch: 28_001, handover: 28_002, ..Times::USUAL });
    let run = timeline(&[], &journal.sorted().text);
    assert!(run.stdout.contains("28.0 s") && run.stdout.contains('»'), "{}", run.stdout);
    let usual = run.stdout.lines().find(|line| line.contains(" 3→4 ")).unwrap();
    assert!(usual.matches('▒').count() > 10, "{}", run.stdout);
}

#[test]
fn pictures_are_well_formed() {
    let journal = Journal::twenty().text;
    let svg = timeline(&["--svg", "-"], &journal).stdout;
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(svg.contains("rolled back in ready: generation 9 exited with status 7"));
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
    let html = timeline(&["--html", "-"], &journal).stdout;
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains(svg.trim_end()), "the page has the picture");
    assert_eq!(html.matches("<tr").count(), 1 + 20 + 1, "{html}");
    assert!(!html.contains("<script") && !html.contains("http:") || html.contains("www.w3.org"), "{html}");
}

#[test]
fn the_last_ones_and_how_many_there_are() {
    let run = timeline(&["--last", "3"], &Journal::twenty().text);
    assert!(run.stdout.starts_with("web.service: the last 3 of 20 reloads (3 handed over)\n"), "{}", run.stdout);
    assert!(run.stdout.contains("\n18  ") && !run.stdout.contains("\n17  "), "{}", run.stdout);
    let all = timeline(&["--last", "0"], &Journal::twenty().text);
    assert!(all.stdout.contains(": 20 reloads ("), "{}", all.stdout);
}
