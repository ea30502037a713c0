//! The pidfile over the life of a service.

use std::fs;

use nix::sys::signal::Signal;

use crate::extra::{Act, At, configured};
use crate::hooks::with_hooks;
use crate::{Case, cases};
use handover_testing::processes::{End, signal, until};
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    it_names_the_main_generation_over_reloads,
    a_failed_reload_leaves_it,
    a_stale_one_is_no_obstacle,
    anothers_is_left_alone,
    one_that_cannot_be_written_is_said,
    a_crash_leaves_one_that_the_next_start_replaces,
    under_a_service_manager_it_is_warned_of,
];

fn with_pidfile(world: World) -> World {
    let path = world.path("web.pid");
    world.configured(|c| configured(c, |e| e.pidfile = Some(path)))
}

fn named(world: &World) -> Option<u32> {
    fs::read_to_string(world.path("web.pid")).ok()?.trim().parse().ok()
}

fn wait_for(world: &World, pid: u32) {
    until("the pidfile", || (named(world) == Some(pid)).then_some(()));
}

fn it_names_the_main_generation_over_reloads() {
    let world = with_pidfile(World::without_manager());
    let mut main = world.start();
    wait_for(&world, main.pid);
    for generation in 2..=4 {
        let next = world.reload_to(generation);
        assert_eq!(world.end_of(main.pid), End::Exited(0));
        wait_for(&world, next.pid);
        main = next;
    }
    let (path, left) = (world.path(""), world.path("web.pid"));
    let names = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.starts_with('.')), "nothing beside it");
    signal(main.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(main.pid), End::Exited(0));
    assert!(!left.exists(), "removed at the final stop");
}

fn a_failed_reload_leaves_it() {
    let mut world = with_pidfile(World::without_manager());
    let first = world.start();
    wait_for(&world, first.pid);
    world.next(Step::Go, Step::Exit(7));
    assert!(world.reload().starts_with("reload failed"));
    world.wait_for_only(&[first.pid]);
    assert_eq!(named(&world), Some(first.pid));
    world.stop();
}

fn a_stale_one_is_no_obstacle() {
    for (stale, said) in [("4194304\n", "was stale: it named process 4194304"), ("", ""), ("rubbish", "")] {
        let world = with_pidfile(World::without_manager());
        fs::write(world.path("web.pid"), stale).unwrap();
        let first = world.start();
        wait_for(&world, first.pid);
        assert!(world.log().contains(said));
        world.stop();
    }
}

fn anothers_is_left_alone() {
    let world = with_hooks(with_pidfile(World::without_manager()), &[(At::BeforeExit, Act::Wait)]);
    let first = world.start();
    wait_for(&world, first.pid);
    signal(first.pid, Signal::SIGTERM);
    until("the exit", || world.path("asked").exists().then_some(()));
    fs::write(world.path("web.pid"), "1\n").unwrap();
    world.go();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(named(&world), Some(1));
}

fn one_that_cannot_be_written_is_said() {
    let world = World::without_manager();
    let path = world.path("missing/web.pid");
    let world = world.configured(|c| configured(c, |e| e.pidfile = Some(path)));
    world.start();
    world.wait_for_log("missing/web.pid cannot be written: No such file or directory");
    world.stop();
}

fn a_crash_leaves_one_that_the_next_start_replaces() {
    let world = with_pidfile(World::without_manager());
    let first = world.start();
    wait_for(&world, first.pid);
    signal(first.pid, Signal::SIGKILL);
    assert_eq!(world.end_of(first.pid), End::Killed(Signal::SIGKILL));
    assert_eq!(named(&world), Some(first.pid));
    let again = world.start();
    wait_for(&world, again.pid);
    world.stop();
}

fn under_a_service_manager_it_is_warned_of() {
    let world = with_pidfile(World::new());
    world.start();
    assert!(world.log().contains("a pidfile under a service manager that is notified is of no use; with PIDFile="));
    world.stop();
}
