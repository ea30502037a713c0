//! Running the tool.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

/// A run that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// What it said, and its exit code.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

pub(crate) async fn prove(url: &str, arguments: &[&str]) -> Run {
    run(&[&["prove", "--url", url], arguments].concat()).await
}

pub(crate) async fn run(arguments: &[&str]) -> Run {
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_handover"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("it hangs").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
}

/// The report; the verdict and the exit code must agree.
pub(crate) async fn report(url: &str, arguments: &[&str]) -> Value {
    let run = prove(url, &[arguments, &["--json"]].concat()).await;
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    let code = match report["verdict"].as_str().unwrap() {
        "nothing_lost" => 0,
        "lost" => 1,
        _ => 2,
    };
    assert_eq!(run.code, Some(code), "{run:?}");
    handover_testing::schema::holds("prove", &report);
    let (sent, total) = (number(&report["total"]["sent"]), &report["total"]);
    let ended = ["answered", "handed_back", "lost"].iter().map(|of| number(&total[*of])).sum::<u64>();
    assert!(sent <= ended, "{total}");
    report
}

/// Everything was lost by this cause, and nothing by another.
#[track_caller]
pub(crate) fn lost_only(report: &Value, cause: &str) -> u64 {
    let causes = report["total"]["lost_by"].as_object().unwrap();
    for (name, count) in causes {
        assert!(name == cause || *count == 0, "{causes:?} {}", report["losses"]);
    }
    number(&causes[cause])
}

#[track_caller]
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// What there is of a kind of client.
#[track_caller]
pub(crate) fn kind<'a>(report: &'a Value, name: &str) -> &'a Value {
    let kinds = report["kinds"].as_array().unwrap();
    kinds.iter().find(|kind| kind["kind"] == name).unwrap_or_else(|| panic!("no {name}: {kinds:?}"))
}
