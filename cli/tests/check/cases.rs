//! Each rule: a pair of units that it is about, and one that it must leave alone.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::table::{CASES, Units};
use crate::tool::{check, findings, ids, json};

fn rules() -> Vec<Value> {
    json(&check(&["--list", "--format", "json"], b""))["rules"].as_array().unwrap().clone()
}

#[test]
fn the_pair_that_cases_start_from_is_without_a_fault() {
    assert_eq!(findings(&Units::default().text(), &["--target-version", "252"]), [] as [Value; 0]);
}

#[test]
fn every_rule_fires_on_what_it_is_about_and_on_nothing_else() {
    let rules = rules();
    let mut tested = BTreeSet::new();
    for (id, bad, good) in CASES {
        let rule = rules.iter().find(|r| r["id"] == *id).unwrap_or_else(|| panic!("there is no rule {id}"));
        let found = findings(&bad.text(), bad.arguments);
        let hits: Vec<_> = found.iter().filter(|f| f["id"] == *id).collect();
        assert!(!hits.is_empty(), "{id} does not fire, only {:?}, on\n{}", ids(&found), bad.text());
        for hit in hits {
            assert_eq!(hit["severity"], rule["severity"], "{id}");
            names_its_line(hit, bad);
        }
        let found = findings(&good.text(), good.arguments);
        assert!(!ids(&found).contains(id), "{id} fires on\n{}\n{found:#?}", good.text());
        tested.insert(*id);
    }
    let untested: Vec<_> = rules.iter().filter_map(|r| r["id"].as_str()).filter(|id| !tested.contains(id)).collect();
    assert!(untested.is_empty(), "without a case: {untested:?}");
    assert!(CASES.len() * 2 >= 60);
}

/// The line in the file is the one with the setting.
fn names_its_line(finding: &Value, units: &Units) {
    let text = units.text();
    let file = finding["file"].as_str().unwrap();
    let after = text.split(&format!("# {file}\n")).nth(1).unwrap_or_else(|| panic!("no file {file}"));
    let line = usize::try_from(finding["line"].as_u64().unwrap()).unwrap();
    let line = after.lines().nth(line - 1).unwrap_or_else(|| panic!("{file} has no line {line}"));
    match finding["key"].as_str() {
        Some(key) => assert_eq!(line.split('=').next().map(str::trim), Some(key), "{finding:#}"),
        None if line.starts_with('[') => {}
        // A setting is missing whose section is missing, or the line itself is what systemd cannot
        // read.
        None => assert!(finding["line"] == 1 || finding["id"] == "HO001", "{line}: {finding:#}"),
    }
}

#[test]
fn every_rule_can_be_turned_off_in_the_unit() {
    for (id, bad, _) in CASES {
        let (service, socket, more) = bad.parts();
        let text = format!("{service}\n[X-Handover]\n# by this test\nIgnore={id}\n\n{socket}\n{more}");
        let of_the_pair = |f: &&Value| f["file"].as_str().is_some_and(|file| file.contains("/web"));
        let found = findings(&text, bad.arguments);
        assert!(!found.iter().filter(of_the_pair).any(|f| f["id"] == *id), "{id}");
    }
}

#[test]
fn what_fix_writes_fixes() {
    let mut fixed = BTreeSet::new();
    for (id, bad, _) in CASES {
        let found = findings(&bad.text(), bad.arguments);
        let by_machine = |f: &Value| f["id"] == *id && f["fix"]["lines"].is_array();
        // A drop-in can say the right thing, but not unsay a line in the wrong section.
        if *id == "HO002" || !found.iter().any(by_machine) {
            continue;
        }
        let mut arguments = vec!["--fix", "--level", "info"];
        arguments.extend(bad.arguments);
        arguments.push("-");
        let drop_ins = check(&arguments, bad.text().as_bytes()).stdout;
        let (service, socket, more) = bad.parts();
        let of = |unit: &str| {
            let all = drop_ins.split("# /etc/systemd/system/").filter(|d| d.starts_with(&format!("{unit}.d/")));
            all.map(|d| format!("# /etc/systemd/system/{d}\n")).collect::<String>()
        };
        let socket_name = bad.name.unwrap_or("web.socket");
        let text = format!("{service}\n{}{socket}\n{}{more}\n{}", of("web.service"), of(socket_name), of("b.service"));
        let after = findings(&text, bad.arguments);
        assert!(!after.iter().any(by_machine), "{id} is not fixed by\n{drop_ins}\n{after:#?}");
        // Nothing is made worse: what is there now was there before.
        let (before, after) = (ids(&found), ids(&after));
        let new: Vec<_> = after.iter().filter(|id| !before.contains(id)).collect();
        assert!(new.is_empty(), "{id}: the drop-in brings {new:?}\n{drop_ins}");
        fixed.insert(*id);
    }
    assert!(fixed.len() > 30, "{fixed:?}");
}
