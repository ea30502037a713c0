//! Hooks that work, fail, panic, hang and veto.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::extra::{Act, At, configured};
use crate::{Case, cases};
use handover_testing::processes::{End, signal, until};
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    every_moment_of_a_reload_is_told_in_its_order,
    a_failed_reload_is_told_with_its_reason,
    what_was_cut_is_told,
    a_veto_fails_the_reload_with_its_reason,
    a_blocking_veto_does_too,
    one_that_panics_is_a_veto,
    one_that_hangs_is_a_veto,
    a_blocking_one_that_hangs_is_a_veto,
    a_stop_does_not_wait_for_a_veto,
    observers_that_panic_hang_or_fail_delay_nothing,
    the_command_is_changed,
    a_command_that_cannot_be_changed_fails_the_reload,
    the_exit_waits_for_its_hook,
    the_exit_waits_no_longer_than_the_timeout,
    one_more_signal_ends_the_wait,
    a_hook_with_no_time_is_refused,
];

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(600);

pub(crate) fn with_hooks(world: World, hooks: &[(At, Act)]) -> World {
    world.configured(|c| configured(c, |e| e.hooks.extend(hooks.iter().cloned())))
}

fn with_timeout(world: World, timeout: Duration) -> World {
    world.configured(|c| configured(c, |e| e.timeout = Some(timeout)))
}

/// What the hooks of that process noted.
pub(crate) fn notes(world: &World, pid: u32) -> Vec<String> {
    let text = fs::read_to_string(world.path("hooks")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.split_once(' ').filter(|(by, _)| *by == pid.to_string()));
    own.map(|(_, note)| note.to_owned()).collect()
}

pub(crate) fn wait_for_note(world: &World, pid: u32, note: &str) {
    until(note, || notes(world, pid).iter().any(|n| n == note).then_some(()));
}

fn every_moment_of_a_reload_is_told_in_its_order() {
    let world = with_hooks(World::new(), &At::ALL.map(|at| (at, Act::Note)));
    let (first, load) = (world.start(), world.load());
    let second = world.reload_to(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    load.finish();
    let mut noted = notes(&world, first.pid);
    noted.iter_mut().filter(|n| n.starts_with("DrainStarted")).for_each(|n| *n = "DrainStarted".into());
    let expected =
        ["Ready", "Main", "BeforeReload", "Switch accepts=false", "HandedOver", "DrainStarted", "BeforeExit"];
    assert_eq!(noted, expected);
    wait_for_note(&world, second.pid, "Main");
    assert_eq!(notes(&world, second.pid), ["Ready", "Switch accepts=true", "Main"]);
    signal(second.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(second.pid), End::Exited(0));
    let noted = notes(&world, second.pid);
    assert_eq!(noted[3..], ["BeforeSignal SIGTERM", "DrainStarted 0", "AfterSignal SIGTERM", "BeforeExit"]);
    world.wait_for_nobody();
}

fn a_failed_reload_is_told_with_its_reason() {
    let mut world = with_hooks(World::new(), &[(At::RolledBack, Act::NoteBlocking)]);
    let first = world.start();
    world.next(Step::Fail("no".into()), Step::Go);
    world.next(Step::Go, Step::Fail("not today".into()));
    assert_eq!(world.reload(), "reload failed: generation 2 said that it failed: not today");
    wait_for_note(&world, first.pid, "RolledBack said that it failed: not today");
    world.next(Step::Go, Step::Go);
    world.reload_to(2);
    world.stop();
}

fn what_was_cut_is_told() {
    let world = with_hooks(World::new(), &[(At::Hammered, Act::Note)]);
    let first = world.start();
    let (_, held) = world.hold();
    signal(first.pid, Signal::SIGQUIT);
    held.wait_for_end();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(notes(&world, first.pid), ["Hammered 1"]);
}

/// The reload fails for that reason and costs nothing, and works when the hook does.
fn vetoes(act: Act, reason: &str) {
    let world = with_timeout(with_hooks(World::new(), &[(At::BeforeReload, act)]), SHORT);
    let (first, load) = (world.start(), world.load());
    fs::write(world.path("bad"), "line 3: no such colour").unwrap();
    let mark = world.manager().mark();
    let outcome = world.reload();
    assert_eq!(outcome, format!("reload failed: generation 2 was not started: vetoed before the reload: {reason}"));
    let status = world.wait_for_status(mark, &format!("generation 1 serves; {outcome}"));
    assert!(status.pid == first.pid && status.has("READY=1"), "{status:?}");
    assert!(world.log().contains(&format!("{outcome}; generation 1 serves on")));
    assert_eq!(world.born().len(), 1, "nothing was started");
    load.finish();
    assert_eq!(world.who(), first);
    world.stop();
}

fn a_veto_fails_the_reload_with_its_reason() {
    let world = with_hooks(World::new(), &[(At::BeforeReload, Act::Note)]);
    world.start();
    fs::write(world.path("bad"), "line 3: no such colour").unwrap();
    for _ in 0..2 {
        assert!(world.reload().ends_with("vetoed before the reload: line 3: no such colour"));
    }
    fs::remove_file(world.path("bad")).unwrap();
    world.reload_to(2);
    world.stop();
}

fn a_blocking_veto_does_too() {
    vetoes(Act::NoteBlocking, "line 3: no such colour");
}

fn one_that_panics_is_a_veto() {
    vetoes(Act::Panic, "panicked: the hook is broken");
    vetoes(Act::PanicBlocking, "panicked: the hook is broken");
}

fn one_that_hangs_is_a_veto() {
    vetoes(Act::Hang, "was not over within 200ms");
}

fn a_blocking_one_that_hangs_is_a_veto() {
    vetoes(Act::HangBlocking, "was not over within 200ms");
}

fn a_stop_does_not_wait_for_a_veto() {
    for act in [Act::Hang, Act::HangBlocking] {
        let world = with_timeout(with_hooks(World::new(), &[(At::BeforeReload, act)]), LONG);
        let first = world.start();
        let _asked = world.ask_for_reload();
        signal(first.pid, Signal::SIGTERM);
        assert_eq!(world.end_of(first.pid), End::Exited(0));
        assert_eq!(world.born().len(), 1);
        world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
    }
}

/// All moments that nothing waits for.
fn observers_that_panic_hang_or_fail_delay_nothing() {
    for act in [Act::Hang, Act::HangBlocking, Act::Panic, Act::PanicBlocking, Act::Note] {
        let waited_for = [At::BeforeReload, At::BeforeSignal, At::BeforeExit];
        let hooks: Vec<_> = At::ALL.into_iter().filter(|at| !waited_for.contains(at)).map(|at| (at, act)).collect();
        let world = with_timeout(with_hooks(World::new(), &hooks), SHORT);
        fs::write(world.path("bad"), "no").unwrap();
        let first = world.start();
        let second = world.reload_to(2);
        assert_eq!(world.end_of(first.pid), End::Exited(0));
        world.wait_for_log("the hook Ready failed: ");
        signal(second.pid, Signal::SIGTERM);
        assert_eq!(world.end_of(second.pid), End::Exited(0));
        world.wait_for_nobody();
    }
}

fn the_command_is_changed() {
    let world = World::new().configured(|c| configured(c, |e| e.before_spawn = Some(Act::NoteBlocking)));
    world.start();
    for generation in 2..=3 {
        let next = world.reload_to(generation);
        let read = |name: &str| fs::read(format!("/proc/{}/{name}", next.pid)).unwrap();
        let (arguments, environment) = (read("cmdline"), String::from_utf8(read("environ")).unwrap());
        assert!(arguments.ends_with(b"web\0changed\0"), "{}", arguments.escape_ascii());
        assert_eq!(environment.matches("COLOUR=blue\0").count(), 1, "in each generation, and once");
        assert!(!environment.contains("RUST_BACKTRACE"));
    }
    world.stop();
}

fn a_command_that_cannot_be_changed_fails_the_reload() {
    let world = World::new().configured(|c| configured(c, |e| e.before_spawn = Some(Act::Panic)));
    let first = world.start();
    assert_eq!(
        world.reload(),
        "reload failed: generation 2 was not started: before_spawn: panicked: the hook is broken"
    );
    assert_eq!(world.who(), first);
    world.stop();
}

fn the_exit_waits_for_its_hook() {
    let world = with_hooks(World::new(), &[(At::BeforeExit, Act::Wait)]);
    let first = world.start();
    signal(first.pid, Signal::SIGTERM);
    until("the hook", || world.path("asked").exists().then_some(()));
    assert_eq!(world.processes(), [first.pid]);
    world.go();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
}

fn the_exit_waits_no_longer_than_the_timeout() {
    for act in [Act::Hang, Act::HangBlocking] {
        let world = with_timeout(with_hooks(World::new(), &[(At::BeforeExit, act)]), SHORT);
        let first = world.start();
        world.reload_to(2);
        assert_eq!(world.end_of(first.pid), End::Exited(0));
        assert!(world.log().contains("the hook BeforeExit failed: was not over within 200ms"));
        world.stop();
    }
}

fn one_more_signal_ends_the_wait() {
    let world = with_timeout(with_hooks(World::new(), &[(At::BeforeExit, Act::HangBlocking)]), LONG);
    let first = world.start();
    signal(first.pid, Signal::SIGTERM);
    world.wait_for_log("generation 1 has drained and exits");
    signal(first.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert!(world.log().contains("SIGTERM: exiting without the hooks"));
}

fn a_hook_with_no_time_is_refused() {
    let world = with_timeout(World::new(), Duration::ZERO);
    let pid = handover_testing::world::launch(world.program());
    assert_eq!(world.end_of(pid), End::Exited(1));
    let why = "hook_timeout is 0, which would fail every hook; write a time such as \"10s\"";
    assert_eq!(world.result_of(pid), why);
}
