//! Programs that die.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{Setup, World, signal_to};
use handover_testing::processes::until;

#[test]
fn a_program_that_dies_is_replaced_and_no_connection_is_refused() {
    let world = World::start(Setup::default());
    for crash in 1..=3_u64 {
        let (pid, _) = world.who();
        signal_to(pid, Signal::SIGKILL);
        // Perhaps it is dead already, perhaps not yet: refused it is never.
        let next =
            until("an answer", || world.try_ask("who").map_err(|e| assert_ne!(e.raw_os_error(), Some(111))).ok());
        assert!(!next.starts_with(&format!("{pid} ")) || next.is_empty(), "{next}");
        let status = world.until_status("another one serves", |s| s["state"] == "serving");
        assert_eq!(status["supervisor"]["crashes"], crash);
    }
    let told = world.manager.all();
    assert!(told.iter().any(|d| d.field("STATUS").is_some_and(|s| s.contains("SIGKILL"))), "{told:?}");
    assert_eq!(told.iter().filter(|d| d.has("READY=1")).count(), 1, "systemd sees a service that runs");
    world.stop();
}

#[test]
fn a_program_that_never_started_is_a_failure_to_start() {
    for (mode, options, reason) in [
        ("exit 3", &[][..], "generation 1 exited with status 3"),
        ("hang", &["--ready-timeout", "1s"], "generation 1 was not ready within 1s"),
    ] {
        let mut world = World::launch(Setup { mode, options, ..Setup::default() });
        assert_eq!(world.ends().code(), Some(1));
        assert!(world.log().contains(reason), "{}", world.log());
        assert!(!world.manager.all().iter().any(|d| d.has("READY=1")));
    }
    let mut world = World::launch(Setup { program: &["{dir}/none"], ..Setup::default() });
    assert_eq!(world.ends().code(), Some(1));
    assert!(world.log().contains("none cannot be started"), "{}", world.log());
}

#[test]
fn systemd_can_be_left_to_restart_it() {
    let mut world = World::start(Setup { options: &["--on-crash", "exit"], ..Setup::default() });
    let _ = world.try_ask("exit 9");
    assert_eq!(world.ends().code(), Some(1));
    assert!(world.log().contains("generation 1 exited with status 9"), "{}", world.log());
}

#[test]
fn a_program_that_says_that_it_stops_and_ends_well_is_not_started_again() {
    let mut world = World::start(Setup::default());
    world.ask("notify STOPPING=1");
    let _ = world.try_ask("exit 0");
    assert!(world.ends().success(), "{}", world.log());
    world.manager.wait("that it stops", |d| d.has("STOPPING=1"));
}

/// One shell is the good version, another the bad one: with the same arguments the latter dies.
#[test]
fn a_crash_loop_goes_back_to_the_last_version_that_was_good() {
    let script = "[ -z \"$BASH_VERSION\" ] || { sleep 0.3; exit 5; }; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let options = ["--ready", "delay:100ms", "--good-after", "1s"];
    let install = |world: &World, shell: &str| {
        std::fs::copy(shell, world.path("new")).unwrap();
        std::fs::rename(world.path("new"), world.path("sh")).unwrap();
    };
    let world = World::launch_with(
        Setup { options: &options, program: &["{dir}/sh", "-c", script], ..Setup::default() },
        |dir| {
            std::fs::copy("/bin/dash", dir.join("sh")).unwrap();
        },
    );
    world.manager.wait("that it is ready", |told| told.has("READY=1"));
    std::thread::sleep(Duration::from_millis(1500)); // A time that it must have served, not one that is waited for.
    install(&world, "/bin/bash");
    world.reloaded();
    let status = world.until_status("the good one is back", |s| s["supervisor"]["went_back"] == true);
    assert_eq!(status["state"], "serving");
    assert!(world.log().contains("going back to the last version that was good"), "{}", world.log());
    install(&world, "/bin/dash");
    world.reloaded();
    assert_eq!(world.status()["supervisor"]["went_back"], false, "a reload takes what is at the path");
    world.stop();
}
