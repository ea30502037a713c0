//! SIGTERM, at any moment: everything ends, and well.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::processes::{End, signal, until};
use handover_testing::service::{State, Step};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    while_serving,
    by_call,
    before_the_next_one_starts,
    while_the_next_one_starts,
    while_the_next_one_starts_and_ignores_sigterm,
    while_the_next_one_should_switch,
    in_probation,
    in_probation_all_at_once,
    while_handing_over,
    while_handing_over_all_at_once,
    while_an_old_one_drains,
    what_is_in_flight_is_finished,
    a_second_one_cuts,
    quit_cuts,
    quit_during_a_reload,
];

fn terminate(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::SIGTERM));
}

/// All are gone, those that must end well did, and the manager knew.
fn all_over(world: &World, well: &[u32]) {
    ended_well(world, well);
    world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
}

fn ended_well(world: &World, well: &[u32]) {
    for pid in well {
        assert_eq!(world.end_of(*pid), End::Exited(0), "{pid}");
        assert_eq!(world.result_of(*pid), "ok");
    }
    world.wait_for_nobody();
}

fn while_serving() {
    let world = World::new();
    let first = world.start();
    terminate(&[first.pid]);
    all_over(&world, &[first.pid]);
}

fn by_call() {
    let world = World::new();
    let first = world.start();
    assert_eq!(world.get("/stop").unwrap(), "true");
    all_over(&world, &[first.pid]);
}

/// Without a manager: nobody else would end it, and it would take over from a service that was
/// stopped.
fn before_the_next_one_starts() {
    let world = World::without_manager().configured(|c| c.state = State::Wait);
    let first = world.start();
    let mut asked = world.ask_for_reload();
    until("the state to be asked for", || world.path("asked").exists().then_some(()));
    terminate(&[first.pid]);
    assert_eq!(asked.rest().unwrap(), "no reload: the service is stopping");
    world.wait_for_log("generation 1 has drained and exits");
    world.go();
    ended_well(&world, &[first.pid]);
}

fn while_the_next_one_starts() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Wait, Step::Go);
    let mut asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    terminate(&[first.pid]);
    assert_eq!(asked.rest().unwrap(), "no reload: the service is stopping");
    all_over(&world, &[first.pid]);
    assert_eq!(world.end_of(second), End::Killed(Signal::SIGTERM));
}

fn while_the_next_one_starts_and_ignores_sigterm() {
    let mut world = World::new();
    let first = world.start();
    // where it has its handlers, but does not look at what they tell it
    world.next(Step::Go, Step::Wait);
    let _asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    world.wait_for_a_waiting_one();
    terminate(&[first.pid]);
    all_over(&world, &[first.pid]);
    assert_eq!(world.end_of(second), End::Killed(Signal::SIGKILL));
}

fn while_the_next_one_should_switch() {
    let mut world = World::new();
    let first = world.start();
    let frames = [r#"handover/1 {"type":"ready"}"#.to_owned()];
    world.next(Step::Say(frames.into()), Step::Go);
    let _asked = world.ask_for_reload();
    world.wait_for_log("generation 2 is ready");
    terminate(&[first.pid]);
    all_over(&world, &[first.pid]);
}

fn on_probation() -> (World, Asked, [u32; 2]) {
    let world = World::new().configured(|c| c.probation = Duration::from_secs(60));
    let first = world.start();
    let asked = world.ask_for_reload();
    let second = world.wait_for_generation(2);
    (world, asked, [first.pid, second.pid])
}

fn in_probation() {
    let (world, mut asked, pids) = on_probation();
    terminate(&pids[..1]);
    assert_eq!(asked.rest().unwrap(), "no reload: the service is stopping");
    all_over(&world, &pids);
}

fn in_probation_all_at_once() {
    let (world, _asked, pids) = on_probation();
    terminate(&pids);
    all_over(&world, &pids);
}

/// The manager has been told of the new main, and does not say that it has read it.
fn handing_over() -> (World, Asked, [u32; 2]) {
    let world = World::new();
    world.manager().hold_at_handover();
    let first = world.start();
    let asked = world.ask_for_reload();
    world.manager().wait_for_held_barrier();
    let second = world.who();
    assert_eq!(second.generation, 2, "the switch waits for nobody");
    (world, asked, [first.pid, second.pid])
}

fn while_handing_over() {
    let (world, mut asked, pids) = handing_over();
    terminate(&pids[..1]);
    // Noted before the barrier is over.
    world.wait_for_log("SIGTERM; ");
    world.manager().release_barriers();
    assert_eq!(asked.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {} }}", pids[1]));
    all_over(&world, &pids);
    let stopping = world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
    assert_eq!(stopping.pid, pids[1], "only the main one may say so");
}

fn while_handing_over_all_at_once() {
    let (world, _asked, pids) = handing_over();
    terminate(&pids);
    world.wait_for_log("SIGTERM; ");
    world.manager().release_barriers();
    // The new one may be done before it learns that it is main: then nobody was, who could have
    // said STOPPING.
    ended_well(&world, &pids);
}

fn while_an_old_one_drains() {
    let world = World::new().configured(|c| c.drain_timeout = Duration::from_secs(60));
    let first = world.start();
    let (_, held) = world.hold();
    let second = world.reload_to(2);
    // To each process, as systemd does it.
    terminate(&[first.pid, second.pid]);
    world.manager().wait("STOPPING=1", |d| d.pid == second.pid && d.has("STOPPING=1"));
    assert!(held.is_open(), "what is in flight goes on");
    drop(held);
    all_over(&world, &[first.pid, second.pid]);
}

fn in_flight() -> (World, u32, Asked) {
    let world = World::new().configured(|c| c.drain_timeout = Duration::from_secs(60));
    world.start();
    let (pid, held) = world.hold();
    terminate(&[pid]);
    world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
    assert!(held.is_open());
    (world, pid, held)
}

fn what_is_in_flight_is_finished() {
    let (world, pid, held) = in_flight();
    let extended = world.manager().wait("EXTEND_TIMEOUT_USEC", |d| d.field("EXTEND_TIMEOUT_USEC").is_some());
    assert_eq!(extended.pid, pid);
    drop(held);
    all_over(&world, &[pid]);
    assert!(!world.log().contains("hammered"));
}

fn a_second_one_cuts() {
    let (world, pid, held) = in_flight();
    terminate(&[pid]);
    held.wait_for_end();
    all_over(&world, &[pid]);
    assert!(world.log().contains("hammered; connections cut: 1"));
}

fn quit_cuts() {
    let world = World::new();
    world.start();
    let (pid, held) = world.hold();
    signal(pid, Signal::SIGQUIT);
    held.wait_for_end();
    all_over(&world, &[pid]);
    assert!(world.log().contains("hammered; connections cut: 1"));
}

fn quit_during_a_reload() {
    let (world, _asked, pids) = on_probation();
    signal(pids[0], Signal::SIGQUIT);
    all_over(&world, &pids);
}
