//! What a service keeps in the fd store over a reload, as the manager is told.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::manager::Datagram;
use handover_testing::processes::{signal, until};
use handover_testing::service::Step;
use handover_testing::world::{World, launch};

pub(crate) const CASES: &[Case] = cases![
    what_was_bound_is_there_before_ready,
    what_the_next_one_binds_is_there_before_it_is_main,
    a_manager_that_does_not_answer_fails_no_reload,
    what_a_failed_one_bound_is_removed,
    what_was_put_meanwhile_arrives,
    what_was_taken_meanwhile_is_gone,
    without_a_manager_it_is_said_once,
    odd_entries_are_said_and_removed,
    a_rollback_takes_a_raised_state_back,
    both_generations_count_on,
];

const MORE: &str = "handover.bound.more@127.0.0.1=0";

fn world() -> World {
    World::new().with_store()
}

fn stores(datagram: &Datagram, name: &str) -> bool {
    datagram.has("FDSTORE=1") && datagram.field("FDNAME") == Some(name)
}

fn removes(datagram: &Datagram, name: &str) -> bool {
    datagram.has("FDSTOREREMOVE=1") && datagram.field("FDNAME") == Some(name)
}

fn position(world: &World, wanted: impl Fn(&Datagram) -> bool) -> usize {
    world.manager().all().iter().position(wanted).expect("a datagram of that kind")
}

fn what_was_bound_is_there_before_ready() {
    let world = world().configured(|c| c.more = Some("127.0.0.1:0".into()));
    let first = world.start();
    let put = position(&world, |d| stores(d, MORE));
    let ready = position(&world, |d| d.has("READY=1"));
    assert!(put < ready, "{:?}", world.manager().all());
    assert_eq!(world.manager().all()[put].pid, first.pid);
    world.stop();
}

fn what_the_next_one_binds_is_there_before_it_is_main() {
    let mut world = world();
    let first = world.start();
    world.configure(|c| c.more = Some("127.0.0.1:0".into()));
    world.reload_to(2);
    let put = position(&world, |d| stores(d, MORE));
    let main = position(&world, |d| d.field("MAINPID").is_some());
    assert!(put < main, "{:?}", world.manager().all());
    assert_eq!(world.manager().all()[put].pid, first.pid, "systemd listens to nobody else");
    world.stop();
}

/// Not even one that has less time than a barrier may take.
fn a_manager_that_does_not_answer_fails_no_reload() {
    let mut world = world().configured(|c| c.ready_timeout = std::time::Duration::from_secs(4));
    world.start();
    world.manager().hold_barriers();
    world.configure(|c| c.more = Some("127.0.0.1:0".into()));
    world.reload_to(2);
    world.manager().release_barriers();
    world.stop();
}

fn what_a_failed_one_bound_is_removed() {
    let mut world = world().configured(|c| c.probation = std::time::Duration::from_secs(30));
    let first = world.start();
    world.configure(|c| c.more = Some("127.0.0.1:0".into()));
    let asked = world.ask_for_reload();
    world.manager().wait("of the new socket", |d| stores(d, MORE));
    let second = world.wait_for_birth(2);
    signal(second, Signal::SIGKILL);
    world.manager().wait("to remove it", |d| removes(d, MORE) && d.pid == first.pid);
    drop(asked);
    world.wait_for_only(&[first.pid]);
    // The store is its own again.
    assert_eq!(world.get("/store/put/late").unwrap(), "Stored");
    world.stop();
}

/// A reload whose next generation has started and is not ready.
fn on_its_way(world: &mut World) -> Asked {
    world.next(Step::Go, Step::Wait);
    let asked = world.ask_for_reload();
    world.wait_for_birth(2);
    world.wait_for_a_waiting_one();
    asked
}

fn what_was_put_meanwhile_arrives() {
    let mut world = world();
    world.start();
    let mut asked = on_its_way(&mut world);
    assert_eq!(world.get("/store/put/late").unwrap(), "Stored");
    world.go();
    asked.rest().unwrap();
    world.wait_for_generation(2);
    assert_eq!(world.get("/store/list").unwrap(), "late 1 Stored\n");
    world.stop();
}

fn what_was_taken_meanwhile_is_gone() {
    let mut world = world();
    world.start();
    for name in ["early", "late"] {
        assert_eq!(world.get(&format!("/store/put/{name}")).unwrap(), "Stored");
    }
    let mut asked = on_its_way(&mut world);
    assert_eq!(world.get("/store/take/early").unwrap(), "1");
    world.go();
    asked.rest().unwrap();
    world.wait_for_generation(2);
    assert_eq!(world.get("/store/list").unwrap(), "late 1 Stored\n");
    world.stop();
}

fn without_a_manager_it_is_said_once() {
    let world = World::without_manager().configured(|c| c.more = Some("127.0.0.1:0".into()));
    launch(world.program());
    world.wait_for_generation(1);
    world.wait_for_log("a crash does not");
    for generation in 2..5 {
        world.reload_to(generation);
        // Its turn to say it would be now.
        world.wait_for_log(&format!("generation {generation} is main"));
        assert_eq!(world.get("/store/put/some").unwrap(), "HeldOnly");
    }
    assert_eq!(world.log().matches("a crash does not").count(), 1, "{}", world.log());
    world.stop();
}

/// As they come in at a start: of the wrong kind, dead, twice, with names that nobody can have
/// given.
fn odd_entries_are_said_and_removed() {
    let world = world().configured(|c| c.more = Some("127.0.0.1:0".into()));
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let (dead, peer) = UnixStream::pair().unwrap();
    drop(peer);
    let kept = null();
    let program = world
        .program()
        .socket(MORE, OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()))
        .socket("handover.state.x~0", null())
        .socket("handover.state.sessions", null())
        .socket("early", OwnedFd::from(dead))
        .socket("late", kept.try_clone().unwrap())
        .socket("late", kept)
        .socket("nobody's", null())
        .socket("nobody's~2", null());
    let first = world.started(program);
    for said in [
        "\"handover.bound.more@127.0.0.1=0\" in the fd store is of no use; 127.0.0.1:0 is bound anew",
        "\"handover.state.x~0\" is removed: its name is none that this version of handover gives",
        "\"early\" is removed: its other end is gone",
        "closed sockets that nobody asked for: nobody's, nobody's~2",
    ] {
        world.wait_for_log(said);
    }
    for name in ["handover.state.x~0", "early", "nobody's~2", MORE] {
        world.manager().wait(name, |d| removes(d, name) && d.pid == first.pid);
    }
    assert!(!world.manager().all().iter().any(|d| removes(d, "nobody's")), "somebody else may have put it there");
    assert_eq!(world.get("/store/list").unwrap(), "late 1 Stored\n");
    // The one that was bound instead is the one that the next start gets.
    until("the new socket in the store", || {
        let all = world.manager().all();
        let last = all.iter().rposition(|d| stores(d, MORE) || removes(d, MORE))?;
        stores(&all[last], MORE).then_some(())
    });
    world.reload_to(2);
    assert_eq!(world.log().matches("is bound anew").count(), 1, "{}", world.log());
    world.stop();
}

/// Version 2 of the state comes with version 2 of the program, and goes with it.
fn a_rollback_takes_a_raised_state_back() {
    let mut world = world().configured(|c| c.probation = std::time::Duration::from_secs(30));
    let first = world.start();
    assert_eq!(world.get("/count").unwrap(), "1");
    world.configure(|c| c.counts = 2);
    let asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    // On one connection: at the switch both accept for a moment.
    let mut next = until("an answer by the next one", || {
        let mut connection = Asked::new(world.address(), "/who", "keep-alive").ok()?;
        connection.rest().is_ok_and(|who| who.starts_with("2 ")).then_some(connection)
    });
    next.again("/count").unwrap();
    assert_eq!(next.rest().unwrap(), "2");
    signal(second, Signal::SIGKILL);
    drop(asked);
    world.wait_for_log("goes back from version 2 to 1: 1 changes of it are lost");
    world.wait_for_only(&[first.pid]);
    assert_eq!(world.get("/count").unwrap(), "2");
    world.stop();
}

/// The old one is asked on a connection that it still has.
fn both_generations_count_on() {
    let world = world().configured(|c| (c.linger, c.moves) = (std::time::Duration::from_secs(20), false));
    world.start();
    let mut old = Asked::new(world.address(), "/count", "keep-alive").unwrap();
    assert_eq!(old.rest().unwrap(), "1");
    world.reload_to(2);
    assert_eq!(world.get("/count").unwrap(), "2");
    old.again("/count").unwrap();
    assert_eq!(old.rest().unwrap(), "3", "in the old generation");
    assert_eq!(world.get("/count").unwrap(), "4");
    world.stop();
}
