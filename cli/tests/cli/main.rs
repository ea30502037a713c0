//! What holds for every command of the tool: help with examples, manual pages, completions, exit
//! codes, colours. And the Debian package.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]
#![expect(clippy::print_stderr, reason = "what cannot be checked here is said")]

mod chapters;
mod colours;
mod completions;
mod exit_codes;
mod fits;
mod help;
mod monitoring;
mod package;
mod pages;

use std::process::{Command, Output, Stdio};

/// What it said, and its exit code.
struct Run {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn handover(arguments: &[&str]) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_handover")).args(arguments))
}

fn run(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(stdout), stderr: text(stderr), code: status.code() }
}

/// All commands that `handover --help` names.
fn commands() -> Vec<String> {
    let help = handover(&["--help"]).stdout;
    let (_, rest) = help.split_once("\nCommands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let name = |line: &str| line.strip_prefix("  ")?.split(' ').next().filter(|n| !n.is_empty()).map(str::to_owned);
    let names: Vec<_> = list.lines().filter_map(name).filter(|name| name != "help").collect();
    assert!(names.len() >= 8 && names.iter().any(|name| name == "reload"), "{names:?}");
    names
}

/// Whether a program is there. What is missing is said; on a machine that is there to test it is a
/// failure.
fn is_there(program: &str, package: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status().unwrap();
    let ci = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
    assert!(found.success() || !ci, "{program} is missing, and CI is set: apt-get install {package}");
    if !found.success() {
        eprintln!("note: not checked, as {program} is missing: apt-get install {package}");
    }
    found.success()
}
