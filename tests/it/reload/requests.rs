//! Requests for reloads: none is lost, and none piles up.

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::processes::{End, signal};
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    requests_during_a_reload_are_one_more,
    requests_during_a_failed_reload_are_one_more,
    hangups_during_a_reload_are_one_more,
    a_drainer_refuses,
    a_stopping_service_refuses,
];

const MANY: usize = 5;

fn reloads(world: &World) -> usize {
    world.manager().all().iter().filter(|d| d.has("RELOADING=1")).count()
}

fn requests_during_a_reload_are_one_more() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Go, Step::Wait);
    let mut asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    let others: Vec<Asked> = (0..MANY).map(|_| world.ask_for_reload()).collect();
    world.go();
    assert_eq!(asked.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {second} }}"));
    for mut other in others {
        assert_eq!(other.rest().unwrap(), "PassedOn");
    }
    world.wait_for_generation(3);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(world.end_of(second), End::Exited(0));
    assert_eq!(reloads(&world), 2);
    world.stop();
}

fn requests_during_a_failed_reload_are_one_more() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Wait, Step::Fail("not today".into()));
    let mut asked = world.ask_for_reload();
    world.wait_for_birth(2);
    let others: Vec<Asked> = (0..MANY).map(|_| world.ask_for_reload()).collect();
    // The one on its way has read its configuration.
    world.next(Step::Go, Step::Go);
    world.go();
    assert_eq!(asked.rest().unwrap(), "reload failed: generation 2 said that it failed: not today");
    let third = world.wait_for_birth(3);
    for mut other in others {
        assert_eq!(other.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {third} }}"));
    }
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(reloads(&world), 2);
    world.stop();
}

fn hangups_during_a_reload_are_one_more() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Go, Step::Wait);
    signal(first.pid, Signal::SIGHUP);
    let second = world.wait_for_birth(2);
    for _ in 0..MANY {
        signal(first.pid, Signal::SIGHUP);
        // The new one too: `kill -s HUP` to all processes of the unit.
        signal(second, Signal::SIGHUP);
    }
    world.go();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    let third = world.wait_for_generation(3);
    assert_eq!(world.end_of(second), End::Exited(0));
    assert_eq!(reloads(&world), 2);
    assert_eq!(world.who().pid, third.pid);
    world.stop();
}

fn a_drainer_refuses() {
    let world = World::new().configured(|c| (c.linger, c.moves) = (std::time::Duration::from_secs(20), false));
    let first = world.start();
    let mut idle = Asked::new(world.address(), "/who", "keep-alive").unwrap();
    idle.rest().unwrap();
    world.reload_to(2);
    idle.again("/reload").unwrap();
    let text = idle.rest().unwrap();
    assert_eq!(text, "asked\nno reload: another generation is main by now");
    // It was answered once more, and that was the last thing the old one waited for.
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn a_stopping_service_refuses() {
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Wait, Step::Go);
    let mut asked = world.ask_for_reload();
    world.wait_for_birth(2);
    signal(first.pid, Signal::SIGTERM);
    assert_eq!(asked.rest().unwrap(), "no reload: the service is stopping");
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.wait_for_nobody();
}
