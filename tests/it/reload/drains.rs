//! Generations that have handed over, and what is left in them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::processes::{End, look, signal};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    what_is_held_keeps_a_generation_alive,
    at_its_end_it_is_in_nobodys_way,
    only_so_many_drain_at_once,
    a_reload_waits_for_one_that_drains,
    the_timeout_cuts_what_is_left,
    quit_cuts_at_once,
    the_first_sigterm_hurries_the_second_cuts,
    a_hangup_is_ignored,
    it_hurries_when_the_new_main_dies,
    it_hurries_when_the_new_main_dies_without_a_manager,
];

const LONG: Duration = Duration::from_secs(60);

/// The first generation drains, because of that request.
fn draining(world: &World) -> (u32, Asked) {
    let first = world.start();
    let (holder, held) = world.hold();
    assert_eq!(holder, first.pid);
    world.reload_to(2);
    world.wait_for_log("generation 1 drains ");
    (first.pid, held)
}

fn patient() -> World {
    World::new().configured(|c| c.drain_timeout = LONG)
}

fn cut(held: &Asked) -> String {
    format!("cut http: {} (HTTP/1, open for ", held.local_addr())
}

fn what_is_held_keeps_a_generation_alive() {
    let world = patient();
    let (old, held) = draining(&world);
    world.reload_to(3);
    assert!(held.is_open() && look(old).is_some());
    drop(held);
    assert_eq!(world.end_of(old), End::Exited(0));
    world.wait_for_log("generation 1 has drained and exits");
    world.stop();
}

fn at_its_end_it_is_in_nobodys_way() {
    let world = World::new();
    let first = world.start();
    world.reload_to(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    // not in a container's seccomp filter: it may kill who asks for another policy
    let free = std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line == "Seccomp:\t0");
    let idle = if free { 5 } else { 0 };
    assert_eq!(std::fs::read_to_string(world.path("policies")).unwrap(), format!("{} {idle}\n", first.pid));
    world.stop();
}

fn only_so_many_drain_at_once() {
    let world = patient().configured(|c| (c.max_draining, c.draining_wait) = (2, Duration::ZERO));
    world.start();
    let mut held = vec![world.hold()];
    for generation in 2..=4 {
        world.reload_to(generation);
        held.push(world.hold());
    }
    let (oldest, connection) = held.remove(0);
    let expected = cut(&connection);
    connection.wait_for_end();
    assert_eq!(world.end_of(oldest), End::Exited(0));
    world.wait_for_log("more than 2 generations drain: hammering generation 1");
    world.wait_for_log(&expected);
    world.wait_for_log("hammered; connections cut: 1");
    for (pid, connection) in &held {
        assert!(connection.is_open() && look(*pid).is_some());
    }
    assert_eq!(world.log().matches("hammered; ").count(), 1);
    held.truncate(2);
    for (pid, connection) in held {
        drop(connection);
        assert_eq!(world.end_of(pid), End::Exited(0));
    }
    world.stop();
}

fn a_reload_waits_for_one_that_drains() {
    let world = patient().configured(|c| c.max_draining = 2);
    world.start();
    let mut held = vec![world.hold()];
    for generation in 2..=3 {
        world.reload_to(generation);
        held.push(world.hold());
    }
    let (main, last) = held.pop().unwrap();
    (0..3).for_each(|_| signal(main, Signal::SIGHUP));
    world.wait_for_log("the reload waits for one of 2 generations that drain");
    assert_eq!(world.who().generation, 3, "nothing is cut, and nobody started");
    let (oldest, connection) = held.remove(0);
    drop(connection);
    assert_eq!(world.end_of(oldest), End::Exited(0));
    world.wait_for_generation(4);
    assert!(held.iter().all(|(_, connection)| connection.is_open()) && last.is_open());
    assert_eq!(world.born().len(), 4, "one for all three requests");
    assert!(!world.log().contains("hammer"));
    drop((held, last));
    world.stop();
}

fn the_timeout_cuts_what_is_left() {
    let world = World::new().configured(|c| c.drain_timeout = Duration::from_millis(400));
    let (old, held) = draining(&world);
    let (expected, began) = (cut(&held), Instant::now());
    held.wait_for_end();
    assert_eq!(world.end_of(old), End::Exited(0));
    assert!(began.elapsed() < LONG / 2);
    world.wait_for_log("hammered; connections cut: 1");
    assert!(world.log().contains(&expected), "{expected}");
    assert!(world.log().contains("GET /hold"));
    world.stop();
}

fn quit_cuts_at_once() {
    let world = patient();
    let (old, held) = draining(&world);
    signal(old, Signal::SIGQUIT);
    held.wait_for_end();
    assert_eq!(world.end_of(old), End::Exited(0));
    world.wait_for_log("hammered; connections cut: 1");
    world.stop();
}

fn the_first_sigterm_hurries_the_second_cuts() {
    let world = patient().configured(|c| (c.linger, c.moves) = (LONG, false));
    world.start();
    let mut idle = Asked::new(world.address(), "/who", "keep-alive").unwrap();
    idle.rest().unwrap();
    let (old, held) = world.hold();
    // Not by a request: its connection would linger, too.
    signal(old, Signal::SIGHUP);
    world.wait_for_generation(2);
    // Three, if one that asked who is there was just being answered.
    world.wait_for_log("generation 1 drains within");
    assert!(idle.is_open(), "it lingers");
    signal(old, Signal::SIGTERM);
    idle.wait_for_end();
    assert!(held.is_open() && look(old).is_some(), "what is in flight goes on");
    signal(old, Signal::SIGTERM);
    held.wait_for_end();
    assert_eq!(world.end_of(old), End::Exited(0));
    assert!(world.log().contains("hammered; connections cut: 1"), "not the idle one");
    world.stop();
}

fn a_hangup_is_ignored() {
    let world = patient();
    let (old, held) = draining(&world);
    for _ in 0..5 {
        signal(old, Signal::SIGHUP);
    }
    drop(held);
    assert_eq!(world.end_of(old), End::Exited(0));
    assert_eq!(world.who().generation, 2);
    assert_eq!(world.born().len(), 2);
    world.stop();
}

/// The manager's restart of the service waits for the drainer.
fn hurries(world: World) {
    let world = world.configured(|c| (c.drain_timeout, c.hurry_timeout) = (LONG, Duration::from_millis(300)));
    let (old, held) = draining(&world);
    let main = world.who().pid;
    let began = Instant::now();
    signal(main, Signal::SIGKILL);
    held.wait_for_end();
    assert_eq!(world.end_of(old), End::Exited(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.wait_for_log("hammered; connections cut: 1");
    world.wait_for_nobody();
}

fn it_hurries_when_the_new_main_dies() {
    hurries(World::new());
}

fn it_hurries_when_the_new_main_dies_without_a_manager() {
    hurries(World::without_manager());
}
