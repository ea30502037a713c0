//! Running the tool.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What it said, and its exit code.
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

pub(crate) fn check(arguments: &[&str], stdin: &[u8]) -> Run {
    check_in(Path::new("."), arguments, stdin)
}

pub(crate) fn check_in(directory: &Path, arguments: &[&str], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_handover"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its input is none the worse.
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_vec();
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(stdout), stderr: text(stderr), code: status.code() }
}

/// All findings on a text as `systemctl cat` prints it.
pub(crate) fn findings(text: &str, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["--format", "json", "--level", "info"];
    all.extend(arguments);
    all.push("-");
    let run = check(&all, text.as_bytes());
    assert!(matches!(run.code, Some(0 | 1)), "{:?} {}", run.code, run.stderr);
    json(&run)["findings"].as_array().unwrap().clone()
}

pub(crate) fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", run.stdout, run.stderr))
}

pub(crate) fn ids(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|f| f["id"].as_str().unwrap()).collect()
}
