//! Reloads of a program that knows nothing of them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{Setup, World, is_alive};
use handover_testing::processes::until;

#[test]
fn a_reload_swaps_the_program_and_its_request_in_flight_is_answered() {
    let world = World::start(Setup::default());
    let (old, _) = world.who();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| world.ask("slow 1"));
        until("the slow request is read", || (world.ask("who").split(' ').next()? == old.to_string()).then_some(()));
        assert_eq!(world.reloaded(), 2);
        assert_eq!(slow.join().unwrap(), format!("{old} 1"), "by the generation that had accepted it");
    });
    until("only the new one answers", || (world.who().1 == 2).then_some(()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.who().0)).unwrap();
    assert!(status.contains("FDSize:\t1024\n"), "a program with threads need not enlarge it under load: {status}");
    until("the old one is gone", || (!is_alive(old)).then_some(()));
    world.manager.check_states();
    let told = world.manager.all();
    assert!(told.iter().all(|d| d.pid == world.pid()), "systemd hears of one process only: {told:?}");
    assert!(told.iter().all(|d| d.field("MAINPID").is_none()));
    let log = world.stop();
    assert!(log.contains("generation 2 is main") && log.contains("generation 1 has drained"), "{log}");
}

#[test]
fn whatever_is_wrong_with_the_next_one_the_old_one_serves_on() {
    let world = World::start(Setup { options: &["--ready-timeout", "3s", "--probation", "1s"], ..Setup::default() });
    let (old, _) = world.who();
    for (mode, reason) in [
        ("exit 3", "exited with status 3"),
        ("hang", "was not ready within 3s: it never said READY=1"),
        ("die 0.2", "exited with status 7"),
        ("nonsense silent exit", "was not ready within 3s"),
    ] {
        world.mode(mode);
        let said = world.fails_to_reload();
        assert!(said.contains(reason) && said.contains("serves on"), "{mode}: {said}");
        until("the old one alone answers", || (world.status()["draining"] == serde_json::json!([])).then_some(()));
        assert_eq!(world.status()["pid"], old);
        let told = world.manager.all();
        let last = told.iter().rev().find(|d| d.has("READY=1")).unwrap();
        assert!(last.field("STATUS").unwrap().contains("reload failed"), "{last:?}");
    }
    world.mode("ok");
    world.reloaded();
    until("only the new one answers", || (world.who().0 != old).then_some(()));
    world.manager.check_states();
    world.stop();
}

#[test]
fn requests_during_a_reload_are_one_more() {
    let world = World::start(Setup { options: &["--ready", "delay:1s"], mode: "ok silent", ..Setup::default() });
    world.signal(Signal::SIGHUP);
    world.until_status("the reload begins", |s| s["state"] == "reloading");
    for _ in 0..5 {
        world.signal(Signal::SIGHUP);
    }
    let output = world.reload();
    assert!(output.status.success());
    let status = world.until_status("it is over", |s| s["state"] == "serving");
    assert_eq!((&status["reloads"], &status["generation"]), (&2.into(), &3.into()));
    world.stop();
}

#[test]
fn what_does_not_end_is_told_again_and_killed_in_the_end_with_all_that_came_from_it() {
    let options = ["--stop-signal", "TERM,300ms,USR2", "--drain-timeout", "1500ms"];
    let world = World::start(Setup { mode: "ok deaf", options: &options, ..Setup::default() });
    let (old, _) = world.who();
    world.ask("family");
    let strays = until("a process in a session of its own", || Some(sleepers(&world)).filter(|all| all.len() == 1));
    let began = Instant::now();
    world.reloaded();
    until("the old one is gone", || (!is_alive(old)).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(30));
    until("so is what it left behind", || (!strays.iter().any(|pid| is_alive(*pid))).then_some(()));
    let log = world.log();
    assert!(log.contains("told to go by TERM,300ms,USR2"), "{log}");
    world.mode("ok");
    world.reloaded();
    world.stop();
}

/// `sleep 1000` of the program, wherever it has gone.
fn sleepers(world: &World) -> Vec<u32> {
    let tag = world.ask("env HANDOVER_RUN_TAG");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let environment = read("environ");
        let tagged = environment.split(|b| *b == 0).any(|v| v == format!("HANDOVER_RUN_TAG={tag}").as_bytes());
        tagged && read("cmdline").starts_with(b"sleep\x001000")
    })
    .collect()
}

#[test]
fn many_generations_drain_at_once_within_a_bound() {
    let options = ["--max-draining", "2", "--drain-timeout", "60s"];
    let world = World::start(Setup { mode: "ok deaf", options: &options, ..Setup::default() });
    for number in 2..=4 {
        assert_eq!(world.reloaded(), number);
    }
    let status = world.until_status("the oldest is cut", |s| s["draining"].as_array().unwrap().len() == 2);
    assert_eq!(status["draining"][0]["generation"], 2);
    assert!(world.log().contains("more than 2 generations drain"), "{}", world.log());
    // Twice: what is left is cut.
    world.signal(Signal::SIGTERM);
    world.manager.wait("that it stops", |d| d.has("STOPPING=1"));
    world.stop();
}

#[test]
fn a_stop_during_a_reload_ends_all_and_refuses_the_reload() {
    let world = World::start(Setup { options: &["--ready-timeout", "60s"], ..Setup::default() });
    world.mode("hang");
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| world.reload());
        world.until_status("the reload begins", |s| s["state"] == "reloading");
        world.signal(Signal::SIGTERM);
        let output = reload.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("stopping"), "{said}");
    });
    let mut world = world;
    assert!(world.ends().success());
    assert!(!world.path("http").exists(), "what it bound it removes");
}

#[test]
fn the_old_one_serves_on_for_the_drain_delay_and_not_when_all_stop() {
    let world = World::start(Setup { options: &["--drain-delay", "2s"], ..Setup::default() });
    let (old, _) = world.who();
    assert_eq!(world.reloaded(), 2);
    let began = Instant::now();
    let status = world.status();
    assert_eq!((&status["draining"][0]["pid"], &status["settings"]["drain_delay"]), (&old.into(), &"2s".into()));
    until("the old one answers, beside the new one", || (world.who().0 == old).then_some(()));
    until("the old one is gone", || (!is_alive(old)).then_some(()));
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    // A pause that is longer than the test: a stop does not wait for it.
    world.stop();
    let world =
        World::start(Setup { options: &["--drain-delay", "200s", "--drain-timeout", "300s"], ..Setup::default() });
    assert_eq!(world.reloaded(), 2);
    let log = world.stop();
    assert!(log.contains("serves on for 200s, is then told to go by TERM"), "{log}");
    let said = std::process::Command::new(crate::world::HANDOVER)
        .args(["run", "--drain-delay", "30s", "--", "/bin/true"])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("leaves nothing of the drain timeout"));
}
