//! Reloads that work.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::processes::{End, fd_table, look, open_fds, signal, until};
use handover_testing::service::{State, Step};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    by_signal,
    by_call,
    without_a_manager,
    again_and_again,
    no_generation_has_to_enlarge_its_table_of_fds,
    a_hangup_never_kills_who_cannot_handle_it_yet,
    a_file_that_was_replaced_is_the_upgrade,
    a_link_that_was_switched_is_the_upgrade,
    a_made_up_name_does_not_mislead,
    a_file_replaced_before_the_start_is_found,
    a_name_found_by_path_is_found_again,
    a_relative_path_is_found_again,
    state_is_handed_over,
    large_state_is_handed_over,
    empty_state_is_not_no_state,
    probation_ends_in_a_handover,
];

fn us() -> u32 {
    std::process::id()
}

fn by_signal() {
    let world = World::new();
    let (first, load) = (world.start(), world.load());
    signal(first.pid, Signal::SIGHUP);
    let second = world.wait_for_generation(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    load.finish();
    let manager = world.manager();
    let reloading = manager.wait("RELOADING", |d| d.has("RELOADING=1"));
    assert_eq!(reloading.pid, first.pid);
    assert_eq!(reloading.field("STATUS"), Some("generation 1 serves; starting generation 2"));
    let named = manager.wait("MAINPID", |d| d.field("MAINPID").is_some());
    assert_eq!(named.pid, first.pid, "the new one is not allowed to speak for itself yet");
    // Linux numbers pidfds from 6.9 on.
    let id = named.field("MAINPIDFDID").map_or(String::new(), |id| format!("MAINPIDFDID={id}\n"));
    assert_eq!(named.text, format!("MAINPID={}\n{id}READY=1\nSTATUS=generation 2 takes over", second.pid));
    let all = manager.all();
    let at = all.iter().position(|d| d.text == named.text).unwrap();
    assert_eq!(all[at + 1].text, "BARRIER=1");
    manager.wait("STATUS", |d| d.pid == second.pid && d.text == "STATUS=generation 2 serves");
    assert!(
        !manager.all().iter().any(|d| d.pid == first.pid && d.has("STOPPING=1")),
        "a drainer does not stop the unit"
    );
    let oddities: Vec<_> = world.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert!(oddities.is_empty(), "{oddities:#?}");
    world.stop();
}

fn by_call() {
    let world = World::new();
    let (first, load) = (world.start(), world.load());
    let second = world.reload_to(2);
    assert_eq!(look(second.pid).unwrap().parent, us(), "the manager's own child, not the old generation's");
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    load.finish();
    world.stop();
}

fn without_a_manager() {
    let world = World::without_manager();
    let (first, load) = (world.start(), world.load());
    let (holder, held) = world.hold();
    assert_eq!(holder, first.pid);
    let second = world.reload_to(2);
    assert_eq!(look(second.pid).unwrap().parent, first.pid);
    drop(held);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    signal(second.pid, Signal::SIGHUP);
    let third = world.wait_for_generation(3);
    assert_eq!(world.end_of(second.pid), End::Exited(0));
    load.finish();
    assert_ne!(third.pid, first.pid);
    world.stop();
}

fn again_and_again() {
    let world = World::new();
    let (mut main, load) = (world.start(), world.load());
    for generation in 2..=20 {
        let old = main.pid;
        main = world.reload_to(generation);
        assert_eq!(world.end_of(old), End::Exited(0));
    }
    load.finish();
    let now = world.settled_fds(&main);
    // The second generation has no more than one that came much later, but is gone: compare with
    // one more reload.
    let next = world.reload_to(21);
    assert_eq!(world.end_of(main.pid), End::Exited(0));
    until("as many fds as before", || (open_fds(next.pid) <= now).then_some(()));
    world.stop();
}

fn no_generation_has_to_enlarge_its_table_of_fds() {
    let world = World::new();
    let first = world.start();
    until("the first one does so aside", || (fd_table(first.pid) >= 1024).then_some(()));
    let second = world.reload_to(2);
    assert!(fd_table(second.pid) >= 1024, "from its beginning");
    world.stop();
}

fn a_hangup_never_kills_who_cannot_handle_it_yet() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Wait, Step::Go);
    let mut asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    for _ in 0..10 {
        signal(second, Signal::SIGHUP);
    }
    world.go();
    assert_eq!(asked.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {second} }}"));
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn a_file_that_was_replaced_is_the_upgrade() {
    let world = World::new();
    world.install(|new| world.copy(new, "one"));
    assert_eq!(world.start().version, "one");
    world.install(|new| world.copy(new, "two"));
    assert_eq!(world.reload_to(2).version, "two");
    world.install(|new| world.copy(new, "three"));
    assert_eq!(world.reload_to(3).version, "three");
    world.stop();
}

fn a_link_that_was_switched_is_the_upgrade() {
    let world = World::new();
    for version in ["one", "two"] {
        fs::create_dir(world.path(version)).unwrap();
        world.copy(&world.path(version).join("web"), version);
    }
    symlink(world.path("one"), world.path("current")).unwrap();
    assert_eq!(world.started(world.program_at(world.path("current/web"))).version, "one");
    symlink(world.path("two"), world.path("current.new")).unwrap();
    fs::rename(world.path("current.new"), world.path("current")).unwrap();
    assert_eq!(world.reload_to(2).version, "two");
    world.stop();
}

fn a_made_up_name_does_not_mislead() {
    let world = World::new();
    world.install(|new| world.copy(new, "one"));
    world.started(world.program().argv(["my service: main".into()]));
    world.install(|new| world.copy(new, "two"));
    let second = world.reload_to(2);
    assert_eq!(second.version, "two");
    assert_eq!(fs::read(format!("/proc/{}/cmdline", second.pid)).unwrap(), b"my service: main\0");
    world.stop();
}

fn a_file_replaced_before_the_start_is_found() {
    let world = World::new().configured(|c| c.before = Step::Wait);
    world.install(|new| world.copy(new, "one"));
    let program = world.program().argv(["made up".into()]);
    let first = handover_testing::world::launch(program);
    assert_eq!(world.wait_for_birth(1), first);
    world.install(|new| world.copy(new, "two"));
    world.go();
    assert_eq!(world.who().version, "one");
    assert_eq!(world.reload_to(2).version, "two");
    world.stop();
}

fn a_name_found_by_path_is_found_again() {
    let world = World::new();
    let path = format!("/nowhere:{}:/bin", world.path("").display());
    world.started(world.program().argv(["web".into()]).env("PATH", path));
    world.install(|new| world.copy(new, "two"));
    assert_eq!(world.reload_to(2).version, "two");
    world.stop();
}

fn a_relative_path_is_found_again() {
    let world = World::new();
    world.started(world.program().argv([OsString::from("./web")]).directory(world.path("")));
    world.install(|new| world.copy(new, "two"));
    let second = world.reload_to(2);
    assert_eq!(second.version, "two");
    let directory = world.path("").canonicalize().unwrap();
    assert_eq!(world.get("/directory").unwrap(), directory.display().to_string());
    world.stop();
}

fn state(bytes: State, arrived: &str) {
    let world = World::new().configured(|c| c.state = bytes);
    world.start();
    assert_eq!(world.get("/state").unwrap(), "none");
    world.reload_to(2);
    assert_eq!(world.get("/state").unwrap(), arrived);
    world.stop();
}

fn state_is_handed_over() {
    state(State::Bytes(1000), "1000 true");
}

fn large_state_is_handed_over() {
    state(State::Bytes(10 << 20), "10485760 true");
}

fn empty_state_is_not_no_state() {
    state(State::Bytes(0), "0 true");
}

fn probation_ends_in_a_handover() {
    let world = World::new().configured(|c| c.probation = std::time::Duration::from_millis(300));
    let (first, load) = (world.start(), world.load());
    let mut asked = world.ask_for_reload();
    let second = world.wait_for_generation(2);
    assert!(
        !world.manager().all().iter().any(|d| d.field("MAINPID").is_some()),
        "not main before the probation is over"
    );
    assert_eq!(asked.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {} }}", second.pid));
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    load.finish();
    world.stop();
}
