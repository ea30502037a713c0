//! The supervisor goes on as a new version of itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::world::{HANDOVER, Setup, World};
use handover_testing::processes::until;

fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, to).unwrap();
}

#[test]
fn sockets_generations_and_the_pid_stay() {
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("handover");
    install(Path::new(HANDOVER), &binary);
    let world = World::start(Setup { binary: Some(&binary), options: &["--drain-timeout", "50s"], ..Setup::default() });
    let (first, _) = world.who();
    world.ask("store queue");
    std::thread::scope(|scope| {
        // Across both: a request that the first generation finishes while it drains.
        let slow = scope.spawn(|| world.ask("slow 8"));
        until("the request is read", || (world.who().0 == first).then_some(()));
        world.mode("ok");
        assert_eq!(world.reloaded(), 2);
        let before = world.status();
        assert_eq!(before["draining"][0]["pid"], first);

        install(Path::new(HANDOVER), &binary);
        world.signal(Signal::SIGUSR2);
        let after = world.until_status("it has gone on", |s| s["supervisor"]["renewals"] == 1);
        assert_eq!(after["supervisor"]["pid"], world.pid());
        for key in ["pid", "generation", "sockets", "store", "reloads"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        assert_eq!(after["draining"][0]["pid"], first, "it still drains");
        assert_eq!(slow.join().unwrap(), format!("{first} 1"));
    });
    world.until_status("it has drained", |s| s["draining"] == serde_json::json!([]));
    assert_eq!(world.reloaded(), 3);
    assert_eq!(world.ask("stored queue"), "kept");
    world.ask("notify STATUS=still heard");
    world.manager.wait("the program's words", |d| d.text.contains("still heard"));
    let (third, _) = world.who();
    crate::world::signal_to(third, Signal::SIGKILL);
    world.until_status("it is replaced", |s| s["state"] == "serving" && s["generation"] == 4);
    world.stop();
}

/// Of the same sources by other features, so nothing lies where it did: what is passed on must not
/// depend on that.
#[test]
fn from_one_build_to_another_and_back() {
    let Some(other) = std::env::var_os("HANDOVER_OTHER_BUILD") else {
        eprintln!("note: from one build to another: HANDOVER_OTHER_BUILD names no other build (tests/run makes one)");
        return;
    };
    let other = Path::new(&other);
    assert!(std::fs::read(other).unwrap() != std::fs::read(HANDOVER).unwrap(), "that is the same build");
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("handover");
    install(Path::new(HANDOVER), &binary);
    let world = World::start(Setup {
        binary: Some(&binary),
        options: &["--workers", "2", "--probation", "100ms", "--drain-timeout", "50s"],
        ..Setup::default()
    });
    world.ask("store queue");
    for (round, build) in [(1, other), (2, Path::new(HANDOVER)), (3, other)] {
        let before = world.status();
        install(build, &binary);
        world.signal(Signal::SIGUSR2);
        let after = world.until_status("it has gone on", |s| s["supervisor"]["renewals"] == round);
        assert_eq!(after["supervisor"]["pid"], world.pid());
        for key in ["pid", "generation", "sockets", "store", "reloads"] {
            assert_eq!(after[key], before[key], "{key} after round {round}");
        }
        let runs = std::fs::read(format!("/proc/{}/exe", world.pid())).unwrap();
        assert!(runs == std::fs::read(build).unwrap(), "round {round} runs the other build");
        world.reloaded();
    }
    assert_eq!(world.ask("stored queue"), "kept");
    world.stop();
}

#[test]
fn a_new_version_that_is_none_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("handover");
    install(Path::new(HANDOVER), &binary);
    let world = World::start(Setup { binary: Some(&binary), ..Setup::default() });
    let who = world.who();
    let half = std::fs::read(HANDOVER).unwrap();
    for (content, said) in [
        (&half[..30_000], "cannot"),
        (&b"#!/bin/sh\nexit 0\n"[..], "cannot go on where this version is"),
        (&b"#!/bin/sh\nexit 3\n"[..], "cannot go on where this version is"),
    ] {
        std::fs::write(place.path().join("bad"), content).unwrap();
        install(&place.path().join("bad"), &binary);
        let before = world.log().matches("stays as it is").count();
        world.signal(Signal::SIGUSR2);
        until("it says so", || (world.log().matches("stays as it is").count() > before).then_some(()));
        assert!(world.log().lines().rev().any(|line| line.contains(said)), "{}", world.log());
        assert_eq!(world.who(), who);
    }
    let asked = world.handover(&["reload", "--self"]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(asked.status.code() == Some(1) && said.contains("stays as it is"), "{said}");
    install(Path::new(HANDOVER), &binary);
    assert!(world.handover(&["reload", "--self"]).status.success(), "{}", world.log());
    assert_eq!(world.status()["supervisor"]["renewals"], 1);
    assert_eq!(world.reloaded(), 2);
    world.stop();
}
