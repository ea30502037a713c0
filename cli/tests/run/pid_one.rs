//! `handover run` as PID 1 of a container: of a pid namespace of its own.

use std::process::{Child, Command, Stdio};

use crate::world::HANDOVER;
use handover_testing::processes::until;

const UNSHARE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/lab/apps/web.py");
const RELOADS: &str = "5";

/// Whether this machine lets us have namespaces.
fn is_possible() -> bool {
    let status = Command::new("unshare").args(UNSHARE).arg("true").stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What it was, and what it ends with.
fn ends(child: &mut Child) -> std::process::ExitStatus {
    until("the end of the container", || child.try_wait().unwrap())
}

/// Reloads that are asked for from outside of the container, as `podman exec` does from within.
#[test]
fn five_reloads_lose_nothing() {
    handover_testing::set_patience(crate::PATIENCE);
    if !is_possible() {
        eprintln!("not run: no namespaces here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display().to_string();
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let said = || std::fs::read_to_string(directory.path().join("log")).unwrap();
    let mut container = Command::new("unshare")
        .args(UNSHARE)
        .args([HANDOVER, "run", "--socket", &format!("http=unix:{dir}/http"), "--control", &format!("{dir}/control")])
        .args(["--drain-timeout", "3s", "--", "python3", PROGRAM])
        .env("RUNTIME_DIRECTORY", &dir)
        .env_remove("NOTIFY_SOCKET")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    until("it to serve", || said().contains("generation 1 serves").then_some(()));
    let proved = Command::new(HANDOVER)
        .args(["prove", "--url", &format!("unix:{dir}/http"), "--fresh", "4", "--reloads", RELOADS, "--every", "1s"])
        .args(["--reload", &format!("{HANDOVER} reload --socket {dir}/control"), "--any-body", "--json"])
        .args(["--pid", &container.id().to_string()])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&proved.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}\n{}", String::from_utf8_lossy(&proved.stderr), said()));
    assert_eq!(report["verdict"], "nothing_lost", "{}\n{}\n{}", report["losses"], report["problems"], said());
    assert!(said().contains("generation 6 is main"), "{}", said());
    assert!(container.try_wait().unwrap().is_none(), "PID 1 is the same");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", container.id())).unwrap();
    let first: i32 = children.trim().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let inner = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert!(inner.ends_with("\t1"), "{inner}");
    // As `podman stop` does.
    crate::world::signal_to(first.cast_unsigned(), nix::sys::signal::Signal::SIGTERM);
    assert!(ends(&mut container).success(), "{}", said());
}
