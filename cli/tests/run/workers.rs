//! Several processes of a program on the same sockets.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Setup, World, is_alive, signal_to};
use handover_testing::processes::until;

fn pids(status: &Value) -> BTreeSet<u32> {
    let all = status["supervisor"]["workers"].as_array().unwrap();
    all.iter().map(|pid| pid.as_u64().unwrap().try_into().unwrap()).collect()
}

#[test]
fn workers_are_replaced_one_after_the_other() {
    let world = World::start(Setup { options: &["--workers", "3"], ..Setup::default() });
    let old = pids(&world.status());
    assert_eq!(old.len(), 3);
    world.reloaded();
    let new = pids(&world.status());
    assert!(new.len() == 3 && new.is_disjoint(&old), "{old:?} {new:?}");
    until("the old ones are gone", || (!old.iter().any(|pid| is_alive(*pid))).then_some(()));
    let log = world.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}\n{log}"));
    assert!(at("handed over to generation 4") < at("started generation 5"), "{log}");
    assert!(at("handed over to generation 5") < at("started generation 6"), "{log}");
    assert_eq!(world.manager.all().iter().filter(|d| d.has("RELOADING=1")).count(), 1);
    world.manager.check_states();

    let dead = *new.first().unwrap();
    signal_to(dead, Signal::SIGKILL);
    world.until_status("it is replaced, and no other", |s| {
        let now = pids(s);
        now.len() == 3 && !now.contains(&dead) && now.intersection(&new).count() == 2
    });
    world.stop();
}

#[test]
fn if_one_fails_those_that_were_replaced_go_back() {
    // With the same arguments one shell serves, and of the other the second process fails.
    let script = "echo x >>{dir}/starts; [ -z \"$BASH_VERSION\" ] || [ $(wc -l <{dir}/starts) -lt 5 ] || exit 6; \
                  trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let options = ["--workers", "3", "--ready", "delay:500ms"];
    let program = ["{dir}/sh", "-c", script];
    let world = World::launch_with(Setup { options: &options, program: &program, ..Setup::default() }, |dir| {
        std::fs::copy("/bin/dash", dir.join("sh")).unwrap();
    });
    world.manager.wait("that it is ready", |told| told.has("READY=1"));
    std::fs::copy("/bin/bash", world.path("new")).unwrap();
    std::fs::rename(world.path("new"), world.path("sh")).unwrap();
    let said = world.fails_to_reload();
    assert!(said.contains("exited with status 6") && said.contains("went back"), "{said}");
    let status = world.status();
    for pid in pids(&status) {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("sh"));
        let running = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap().len();
        assert_eq!(running, std::fs::metadata("/bin/dash").unwrap().len(), "{maps}");
    }
    world.manager.check_states();
    world.stop();
}
