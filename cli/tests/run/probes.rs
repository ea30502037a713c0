//! Readiness that is not said but found out.

use crate::world::{Setup, World};
use handover_testing::processes::until;

/// The old one accepts all the while: a probe that asked nothing more than for an answer would have
/// it.
#[test]
fn a_probe_is_not_answered_by_the_old_generation() {
    let options = ["--ready", "accept", "--ready-timeout", "2s"];
    let world = World::start(Setup { mode: "ok silent", options: &options, ..Setup::default() });
    let (old, _) = world.who();
    world.mode("ok silent idle");
    let said = world.fails_to_reload();
    assert!(said.contains("was not ready within 2s: it accepted no connection"), "{said}");
    assert_eq!(world.who().0, old);
    world.mode("ok silent");
    world.reloaded();
    until("the new one alone answers", || (world.who().0 != old).then_some(()));
    world.stop();
}

#[test]
fn a_command_can_say_so() {
    let options = ["--ready", "exec:test -e $(dirname $NOTE)/ready-$HANDOVER_GENERATION && kill -0 $HANDOVER_PID"];
    let note = tempfile::tempdir().unwrap();
    let path = note.path().join("x").display().to_string();
    std::fs::write(note.path().join("ready-1"), "").unwrap();
    let setup = Setup { mode: "ok silent", options: &options, env: &[("NOTE", &path)], ..Setup::default() };
    let world = World::start(setup);
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| world.reloaded());
        world.until_status("it waits", |s| s["state"] == "reloading");
        assert!(!reload.is_finished());
        std::fs::write(note.path().join("ready-2"), "").unwrap();
        assert_eq!(reload.join().unwrap(), 2);
    });
    world.stop();
}

#[test]
fn more_time_can_be_asked_for() {
    let world = World::start(Setup { options: &["--ready-timeout", "1s"], ..Setup::default() });
    // Started by a shell that speaks for it, and slow.
    world.mode("hang");
    let said = world.fails_to_reload();
    assert!(said.contains("was not ready within 1s"), "{said}");
    world.stop();
}
