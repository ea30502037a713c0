//! The table of programs in the chapter has the rows that `tests/run programs` runs.

use std::collections::BTreeSet;

const SCRIPT: &str = include_str!("../../../tests/lab/programs/table");
const CHAPTER: &str = include_str!("../../../src/docs/run.md");
const GENTLE: [&str; 2] = [
    include_str!("../../../tests/lab/programs/gentle.py"),
    include_str!("../../../tests/lab/programs/gunicorn.conf.py"),
];

#[test]
fn each_row_is_run_and_each_that_is_run_has_its_row() {
    let run: BTreeSet<&str> =
        SCRIPT.split("Row(").skip(1).filter_map(|row| row.trim_start().strip_prefix('"')?.split('"').next()).collect();
    let (_, table) = CHAPTER.split_once("\n## Programs\n").unwrap();
    let rows = table.lines().take_while(|line| !line.starts_with("## "));
    let told: BTreeSet<&str> = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(run, told);
    assert!(run.len() > 20, "{run:?}");
}

#[test]
fn what_the_chapter_shows_is_what_is_run() {
    for file in GENTLE {
        let (_, code) = file.split_once("\"\"\"\n").unwrap();
        assert!(CHAPTER.contains(code), "{code}");
    }
}
