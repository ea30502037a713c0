//! Text, JSON, SARIF, `--list` and `--explain`.

use serde_json::Value;

use crate::tool::{check, json};

const BAD: &str = "# /srv/a b/web.service
[Service]
Type=notify
ExecStart=/usr/bin/web
ExecReload=/usr/bin/handover reload $MAINPID
Restart=on-failure
OOMPolicy=continue
FileDescriptorStoreMax=9
KillMode=mixed
TimeoutStopSec=5
";

#[test]
fn text_names_the_place_the_reason_and_the_fix() {
    let run = check(&["-"], BAD.replace("/a b", "").as_bytes());
    assert_eq!(run.code, Some(1));
    let expected = "/srv/web.service:8: error: KillMode=mixed [HO104 kill-mode]\n    why: An old generation drains beside the main process: \
                    `mixed` kills it the moment main exits, `process` and `none` leave it behind.\n    fix: [Service] KillMode=control-group\n";
    assert!(run.stdout.contains(expected), "{}", run.stdout);
    assert!(run.stdout.ends_with("\n1 error, 1 warning in 1 unit\n"), "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(run.stderr, "");
}

#[test]
fn json_counts_and_places() {
    let run = check(&["--format", "json", "--target-version", "252", "-"], BAD.replace("/a b", "").as_bytes());
    let report = json(&run);
    handover_testing::schema::holds("check", &report);
    assert_eq!((&report["format"], &report["target_version"], &report["errors"]), (&1.into(), &252.into(), &1.into()));
    let hit = &report["findings"][0];
    assert_eq!((&hit["id"], &hit["line"], &hit["key"]), (&"HO104".into(), &8.into(), &"KillMode".into()));
    assert_eq!(hit["fix"], serde_json::json!({"section": "Service", "lines": ["KillMode=control-group"]}));
    assert_eq!(report["pairs"][0]["handover"], "yes");
}

/// What the schema of SARIF 2.1.0 demands of the parts that are used.
#[test]
fn sarif_is_what_the_schema_demands() {
    let run = check(&["--format", "sarif", "--level", "info", "-"], BAD.replace("/a b", "").as_bytes());
    let log = json(&run);
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().is_some_and(|s| s.ends_with("sarif-schema-2.1.0.json")));
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(run["tool"]["driver"]["name"].is_string() && rules.len() > 50);
    let levels = ["error", "warning", "note"].map(Value::from);
    for rule in rules {
        assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string() && rule["helpUri"].is_string());
        assert!(levels.contains(&rule["defaultConfiguration"]["level"]));
    }
    let results = run["results"].as_array().unwrap();
    assert!(!results.is_empty());
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(levels.contains(&result["level"]) && result["message"]["text"].is_string());
        let physical = &result["locations"][0]["physicalLocation"];
        assert_eq!(physical["artifactLocation"]["uri"], "file:///srv/web.service");
        assert!(physical["region"]["startLine"].as_u64().unwrap() >= 1);
    }
}

#[test]
fn fix_is_a_drop_in_with_reasons() {
    let run = check(&["--fix", "-"], BAD.replace("/a b", "").as_bytes());
    assert_eq!(run.code, Some(0), "with that drop-in nothing is wrong any more");
    let expected = "# /etc/systemd/system/web.service.d/50-handover.conf\n\n[Service]\n# HO104 kill-mode: KillMode=mixed\nKillMode=control-group\n\
                    # HO142 stop-timeout: TimeoutStopSec=5 is not above the drain timeout of 30s\nTimeoutStopSec=45\n";
    assert_eq!(run.stdout.trim_end(), expected.trim_end());
}

#[test]
fn every_rule_is_listed_and_explained() {
    let list = check(&["--list"], b"").stdout;
    let rules = json(&check(&["--list", "--format", "json"], b""));
    for rule in rules["rules"].as_array().unwrap() {
        let (id, name) = (rule["id"].as_str().unwrap(), rule["name"].as_str().unwrap());
        assert!(list.lines().any(|l| l.starts_with(id) && l.contains(name)), "{id}");
        let explained = check(&["--explain", name], b"");
        assert_eq!(explained.code, Some(0));
        assert!(
            explained.stdout.contains(rule["why"].as_str().unwrap()) && explained.stdout.contains("https://"),
            "{id}"
        );
        assert_eq!(check(&["--explain", &id.to_lowercase()], b"").stdout, explained.stdout);
    }
}
