//! A roll-out over several machines: one chart, from whatever the journals were written to.

use std::env;
use std::path::{Path, PathBuf};

use handover_testing::schema;
use serde_json::Value;

use crate::journal::{EPOCH_US, Journal, Times};
use crate::tool::{Run, run};

const REASON: &str =
    "said that it failed: the configuration /etc/web/web.toml cannot be read: line 17 has a key that is not known";

/// As the journal of that machine has them.
fn on(machine: &str, journal: &Journal) -> String {
    let lines = journal.sorted().text;
    let entries = lines.lines().map(|line| {
        let mut entry: Value = serde_json::from_str(line).unwrap();
        entry["_HOSTNAME"] = machine.into();
        format!("{entry}\n")
    });
    entries.collect()
}

/// A canary, two more, and the rest; the third one does not take it, and two were not come to.
fn machines() -> Vec<(&'static str, String)> {
    let at = |seconds: u64| Journal { now_us: EPOCH_US + seconds * 1_000_000, ..Journal::new() };
    let mut all: Vec<(&str, Journal)> =
        vec![("web1", at(0)), ("web2", at(61)), ("web3", at(62)), ("web4", at(0)), ("web5", at(0))];
    all[0].1.reload(3, Times::USUAL);
    all[1].1.reload(7, Times { drain: 31_000, ..Times::USUAL });
    all[2].1.rolled_back(4, 900, REASON);
    for later in [3, 4] {
        all[later].1.wait_ms(120_000 + 400 * u64::try_from(later).unwrap()).reload(1, Times::USUAL);
    }
    all.into_iter().map(|(name, journal)| (name, on(name, &journal))).collect()
}

/// In one file.
pub(crate) fn all() -> String {
    machines().into_iter().map(|(_, json)| json).collect()
}

/// Of the same entries, in the Journal Export Format.
fn exported(json: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in json.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        for (name, value) in entry.as_object().unwrap() {
            let value = value.as_str().unwrap();
            if name == "REASON" {
                bytes.extend(format!("{name}\n").bytes());
                bytes.extend(u64::try_from(value.len()).unwrap().to_le_bytes());
                bytes.extend(format!("{value}\n").bytes());
            } else {
                bytes.extend(format!("{name}={value}\n").bytes());
            }
        }
        bytes.push(b'\n');
    }
    bytes
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let write = |(number, (name, json)): (usize, &(&str, String))| {
        let path = directory.join(name);
        let content = if number % 2 == 0 { exported(json) } else { json.clone().into_bytes() };
        std::fs::write(&path, content).unwrap();
        path
    };
    machines().iter().enumerate().map(write).collect()
}

fn of_files(paths: &[PathBuf], arguments: &[&str]) -> Run {
    let mut all = arguments.to_vec();
    for path in paths {
        all.extend(["--file", path.to_str().unwrap()]);
    }
    let run = run(&all, "", &[("LANG", "C.UTF-8")]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    run
}

#[test]
fn files_of_both_forms_and_one_file_of_all_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let told = of_files(&files(directory.path()), &["--json"]).stdout;
    let one = run(&["--file", "-", "--json"], &all(), &[]);
    assert_eq!(told, one.stdout);
    let fleet: Value = serde_json::from_str(&told).unwrap();
    schema::holds("timeline", &fleet);
    let names = |of: &Value, key: &str| -> Vec<String> {
        of.as_array().unwrap().iter().map(|each| each[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&fleet["machines"], "machine"), ["web1", "web2", "web3", "web4", "web5"], "as it came to them");
    let batches: Vec<_> =
        fleet["batches"].as_array().unwrap().iter().map(|batch| names(&batch["reloads"], "machine")).collect();
    assert_eq!(batches, [vec!["web1"], vec!["web2", "web3"], vec!["web4", "web5"]]);
    assert_eq!(
        (&fleet["batches"][1]["bad"], &fleet["machines"][2]["rows"][0]["outcome"]),
        (&1.into(), &"rolled_back".into())
    );
    let one_each: Value =
        serde_json::from_str(&of_files(&files(directory.path()), &["--json", "--gap", "0s"]).stdout).unwrap();
    assert_eq!(one_each["batches"].as_array().unwrap().len(), 5);
}

#[test]
fn a_lane_for_each_machine_in_any_width() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    for width in [40, 60, 80, 120, 200] {
        let text = of_files(&paths, &["--width", &width.to_string()]).stdout;
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        let lane = |name: &str| text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        assert!(
            lane("web1").contains('█') && lane("web2").contains("█▄") && lane("web3").contains('✗'),
            "{width}:\n{text}"
        );
        let column = |name: &str| lane(name).chars().position(|c| "█✗".contains(c)).unwrap();
        assert!(column("web1") < column("web2") && column("web2") < column("web4"), "{width}:\n{text}");
        for words in ["batch 2: 1 failed", "rolled back in ready", "line 17"] {
            assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{words}, {width}:\n{text}");
        }
    }
    let ascii = of_files(&paths, &["--ascii"]).stdout;
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn a_picture_and_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let picture = of_files(&paths, &["--svg", "-"]).stdout;
    assert!(picture.starts_with("<svg") && picture.matches("<svg").count() == 1, "{picture}");
    for words in ["web5", "batch 2: 1 failed", "rolled back", "3→4"] {
        assert!(picture.contains(words), "{words}: {picture}");
    }
    let page = of_files(&paths, &["--html", "-"]).stdout;
    assert!(page.contains("<td>web3") && page.contains("line 17"), "{page}");
    // To look at: HANDOVER_TIMELINE_DIR=/some/where
    if let Some(place) = env::var_os("HANDOVER_TIMELINE_DIR") {
        let place = Path::new(&place);
        for (name, content) in
            [("fleet.svg", &picture), ("fleet.html", &page), ("fleet.txt", &of_files(&paths, &[]).stdout)]
        {
            std::fs::write(place.join(name), content).unwrap();
        }
    }
}

/// What a machine calls itself is somebody's text.
#[test]
fn a_hostile_name_is_harmless() {
    let mut journal = Journal::new();
    journal.reload(1, Times::USUAL);
    let hostile = "\u{1b}[2J<script>alert(1)</script>\u{202e}";
    let both = on(hostile, &journal) + &on("web2", &journal);
    for arguments in [&["--width", "80"][..], &["--svg", "-"], &["--html", "-"]] {
        let told = run(&[&["--file", "-"], arguments].concat(), &both, &[("LANG", "C.UTF-8")]).stdout;
        assert!(
            !told.contains('\u{1b}')
                && (arguments[0] == "--width" || !told.contains("<script>alert"))
                && !told.contains('\u{202e}'),
            "{told}"
        );
    }
}

#[test]
fn a_machine_that_ssh_could_misread_is_none() {
    for bad in ["-oProxyCommand=true", "a b", "a;b", ""] {
        let refused = run(&["web", &format!("--host={bad}")], "", &[]);
        assert_eq!(refused.code, Some(2), "{bad}: {refused:?}");
    }
    for arguments in [&["web", "--host", "a", "--file", "x"][..], &["web", "--directory", "d", "--host", "a"]] {
        assert_eq!(run(arguments, "", &[]).code, Some(2), "{arguments:?}");
    }
}
