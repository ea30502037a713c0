//! SIGKILL of the old generation at each moment of a reload. A manager restarts the service, so a
//! next generation leaves the way free unless it holds clients; without a manager it is all there
//! is, and takes over.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::processes::{End, signal, until};
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    before_the_next_one_has_started,
    before_the_next_one_has_started_without_a_manager,
    before_the_next_one_is_ready,
    before_the_next_one_is_ready_without_a_manager,
    before_the_switch,
    before_the_switch_without_a_manager,
    in_probation,
    in_probation_without_a_manager,
    while_handing_over,
    the_new_one_while_handing_over,
    the_new_one_when_the_handover_is_confirmed,
    after_a_takeover_reloads_work,
];

const DIED: &str = "the previous generation died before it handed over";

/// The next generation is at that step when the old one is killed; gives its pid.
fn orphaned(world: &mut World, before: Step, after: Step) -> u32 {
    let first = world.start();
    world.next(before, after);
    let _asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    signal(first.pid, Signal::SIGKILL);
    assert_eq!(world.end_of(first.pid), End::Killed(Signal::SIGKILL));
    world.go();
    second
}

fn goes(world: &World, pid: u32) {
    assert_eq!(world.end_of(pid), End::Exited(1));
    let result = world.result_of(pid);
    assert!(result.contains(DIED) || result.contains("the previous generation closed the handover link"), "{result}");
    world.wait_for_nobody();
    let manager = world.manager();
    assert!(!manager.all().iter().any(|d| d.pid == pid), "it had nothing to say");
}

fn takes_over(world: World, pid: u32) {
    let who = world.wait_for_generation(2);
    assert_eq!(who.pid, pid);
    world.wait_for_log("the other generation is gone: generation 2 serves");
    world.reload_to(3);
    assert_eq!(world.end_of(pid), End::Exited(0));
    world.stop();
}

fn before_the_next_one_has_started() {
    let mut world = World::new();
    let second = orphaned(&mut world, Step::Wait, Step::Go);
    goes(&world, second);
}

fn before_the_next_one_has_started_without_a_manager() {
    let mut world = World::without_manager();
    let second = orphaned(&mut world, Step::Wait, Step::Go);
    let who = world.wait_for_generation(2);
    assert_eq!(who.pid, second);
    world.reload_to(3);
    world.stop();
}

fn before_the_next_one_is_ready() {
    let mut world = World::new();
    let second = orphaned(&mut world, Step::Go, Step::Wait);
    goes(&world, second);
}

fn before_the_next_one_is_ready_without_a_manager() {
    let mut world = World::without_manager();
    let second = orphaned(&mut world, Step::Go, Step::Wait);
    let who = world.wait_for_generation(2);
    assert_eq!(who.pid, second);
    world.reload_to(3);
    world.stop();
}

/// The old one is stopped, so it cannot read that the next one is ready.
fn in_standby(world: &mut World) -> u32 {
    let first = world.start();
    world.next(Step::Go, Step::Wait);
    let _asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    until("it to take up the link", || world.log().contains("started generation 2").then_some(()));
    signal(first.pid, Signal::SIGSTOP);
    world.go();
    let waits = format!("/proc/{second}/wchan");
    until("it to wait in its event loop", || std::fs::read_to_string(&waits).ok().filter(|w| w.contains("poll")));
    signal(first.pid, Signal::SIGKILL);
    assert_eq!(world.end_of(first.pid), End::Killed(Signal::SIGKILL));
    second
}

fn before_the_switch() {
    let mut world = World::new();
    let second = in_standby(&mut world);
    goes(&world, second);
}

fn before_the_switch_without_a_manager() {
    let mut world = World::without_manager();
    let second = in_standby(&mut world);
    world.wait_for_generation(2);
    assert_eq!(world.who().pid, second);
    world.reload_to(3);
    world.stop();
}

fn probation(world: World) -> (World, u32) {
    let world = world.configured(|c| c.probation = Duration::from_secs(60));
    let first = world.start();
    let _asked = world.ask_for_reload();
    let second = world.wait_for_generation(2);
    signal(first.pid, Signal::SIGKILL);
    assert_eq!(world.end_of(first.pid), End::Killed(Signal::SIGKILL));
    (world, second.pid)
}

/// It holds clients, so it serves; whether the manager agrees is the manager's to say.
fn in_probation() {
    let (world, second) = probation(World::new());
    let said = world.manager().wait("MAINPID", |d| d.pid == second && d.field("MAINPID").is_some());
    let id = said.field("MAINPIDFDID").map_or(String::new(), |id| format!("MAINPIDFDID={id}\n"));
    assert_eq!(said.text, format!("MAINPID={second}\n{id}READY=1\nSTATUS=generation 2 serves"));
    signal(second, Signal::SIGTERM);
    assert_eq!(world.end_of(second), End::Exited(0));
    world.wait_for_nobody();
}

fn in_probation_without_a_manager() {
    let (world, second) = probation(World::without_manager());
    world.wait_for_log("the other generation is gone: generation 2 serves");
    assert_eq!(world.who().pid, second);
    signal(second, Signal::SIGTERM);
    assert_eq!(world.end_of(second), End::Exited(0));
    world.wait_for_nobody();
}

fn handing_over() -> (World, [u32; 2]) {
    let world = World::new();
    world.manager().hold_at_handover();
    let first = world.start();
    let _asked = world.ask_for_reload();
    world.manager().wait_for_held_barrier();
    let second = world.who().pid;
    (world, [first.pid, second])
}

fn while_handing_over() {
    let (world, [first, second]) = handing_over();
    let mark = world.manager().mark();
    signal(first, Signal::SIGKILL);
    world.wait_for_status(mark, "generation 2 serves");
    world.manager().release_barriers();
    takes_over(world, second);
}

fn the_new_one_while_handing_over() {
    let (world, [first, second]) = handing_over();
    let mark = world.manager().mark();
    signal(second, Signal::SIGKILL);
    let said = world.wait_for_status(mark, "generation 1 serves");
    assert_eq!((said.pid, said.field("MAINPID")), (first, Some(first.to_string().as_str())));
    assert_eq!(world.who().pid, first);
    world.manager().release_barriers();
    world.wait_for_only(&[first]);
    world.reload_to(2);
    world.stop();
}

/// The manager's answer and the news of the death come at once: the answer is about somebody who
/// cannot be main.
fn the_new_one_when_the_handover_is_confirmed() {
    let (world, [first, second]) = handing_over();
    let mark = world.manager().mark();
    signal(first, Signal::SIGSTOP);
    signal(second, Signal::SIGKILL);
    world.wait_for_only(&[first]);
    world.manager().release_barriers();
    signal(first, Signal::SIGCONT);
    let said = world.wait_for_status(mark, "generation 1 serves");
    assert_eq!((said.pid, said.field("MAINPID")), (first, Some(first.to_string().as_str())));
    world.reload_to(2);
    world.stop();
}

fn after_a_takeover_reloads_work() {
    let (mut world, second) = probation(World::without_manager());
    world.configure(|c| c.probation = Duration::ZERO);
    // The one that runs has the long probation still: its successor is main only after it.
    let _asked = world.ask_for_reload();
    let third = world.wait_for_generation(3);
    signal(second, Signal::SIGKILL);
    world.wait_for_log("the other generation is gone: generation 3 serves");
    assert_eq!(world.reload_to(4).generation, 4);
    assert_eq!(world.end_of(third.pid), End::Exited(0));
    world.stop();
}
