//! What is in `packaging/monitoring`: rules and a dashboard of metrics that the tool has, in the
//! language that Prometheus reads. That is asked of promtool, where it is; without it, it says so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/monitoring")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(place().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The expressions of the dashboard, as they are with all units.
fn expressions() -> Vec<String> {
    fn find(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(|expr| expr.replace("$unit", ".*")));
                fields.values().for_each(|value| find(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| find(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    find(&serde_json::from_str(&read("grafana.json")).unwrap(), &mut found);
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// Whether there is a promtool; that is optional on any machine.
fn promtool(arguments: &[&str], stdin: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("note: not checked, as promtool is missing: apt-get install prometheus");
        return None;
    };
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    Some(said)
}

#[test]
fn the_rules_and_the_dashboard_name_metrics_that_there_are() {
    let told = include_str!("../../src/prometheus.rs");
    let texts = [read("handover.rules.yml"), expressions().join("\n")];
    let names: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .filter(|word| word.starts_with("handover_"))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| !told.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "no metric of the tool: {unknown:?}");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/docs/fleet.md")).unwrap();
    let all = told.split('"').filter(|word| word.starts_with("handover_") && !word.contains(['{', ' ', '\\']));
    let missing: Vec<_> = all.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "src/docs/fleet.md does not describe {missing:?}");
}

#[test]
fn promtool_takes_the_rules_and_they_do_what_they_say() {
    let path = |name: &str| place().join(name).display().to_string();
    promtool(&["check", "rules", &path("handover.rules.yml")], "");
    promtool(&["test", "rules", &path("tests/rules.yml")], "");
}

#[test]
fn promtool_takes_the_expressions_of_the_dashboard() {
    let rules = expressions().into_iter().enumerate().map(|(number, expr)| {
        let expr = serde_json::to_string(&expr).unwrap();
        format!("      - record: dashboard:{number}\n        expr: {expr}\n")
    });
    let text = format!("groups:\n  - name: dashboard\n    rules:\n{}", rules.collect::<String>());
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}
