//! Running the tool.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What it said, and its exit code.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

/// With a clean environment: UTC, and a locale of UTF-8.
pub(crate) fn timeline(arguments: &[&str], journal: &str) -> Run {
    run(&[&["--file", "-"], arguments].concat(), journal, &[("LANG", "C.UTF-8")])
}

pub(crate) fn run(arguments: &[&str], stdin: &str, environment: &[(&str, &str)]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_handover"))
        .arg("timeline")
        .args(arguments)
        .env_clear()
        .env("TZ", "UTC")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pipe, input) = (child.stdin.take().unwrap(), stdin.to_owned());
    // One that does not read its input is none the worse.
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(stdout), stderr: text(stderr), code: status.code() }
}

pub(crate) fn json(journal: &str) -> Value {
    let run = timeline(&["--json"], journal);
    assert_eq!(run.code, Some(0), "{run:?}");
    let told = serde_json::from_str(&run.stdout).unwrap();
    handover_testing::schema::holds("timeline", &told);
    told
}

/// The rows that are reloads.
pub(crate) fn reloads(journal: &str) -> Vec<Value> {
    let all = json(journal)["rows"].as_array().unwrap().clone();
    all.into_iter().filter(|row| row["row"] == "reload").collect()
}
