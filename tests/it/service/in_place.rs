//! Reloads without a new process.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::extra::{Act, configured};
use crate::hooks::{notes, wait_for_note};
use crate::{Case, cases};
use handover_testing::processes::{End, signal, until};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    it_is_told_as_a_reload,
    it_works_without_a_manager,
    its_failure_is_told_and_costs_nothing,
    one_that_panics_or_hangs_fails,
    it_may_ask_for_a_new_generation,
    requests_meanwhile_are_one_more,
    a_stop_does_not_wait_for_it,
];

fn in_place(world: World, act: Act) -> World {
    world.configured(|c| {
        configured(c, |e| {
            e.in_place = Some(act);
            e.timeout = Some(Duration::from_millis(300));
        });
    })
}

fn it_is_told_as_a_reload() {
    let world = in_place(World::new(), Act::Note);
    let (first, load) = (world.start(), world.load());
    let mark = world.manager().mark();
    assert_eq!(world.reload(), "InPlace");
    let manager = world.manager();
    let reloading = manager.wait_from(mark, "RELOADING", |d| d.has("RELOADING=1"));
    assert_eq!(reloading.field("STATUS"), Some("generation 1 serves; reloading"));
    let ready = world.wait_for_status(mark, "generation 1 serves; reloaded in place");
    assert!(ready.has("READY=1") && ready.field("MAINPID").is_none(), "{ready:?}");
    signal(first.pid, Signal::SIGHUP);
    until("the second one", || (notes(&world, first.pid) == ["in place 1"; 2]).then_some(()));
    load.finish();
    assert_eq!((world.who(), world.born().len()), (first, 1));
    assert!(world.log().contains("generation 1 was reloaded in place"));
    world.stop();
}

fn it_works_without_a_manager() {
    let world = in_place(World::without_manager(), Act::NoteBlocking);
    let first = world.start();
    assert_eq!(world.reload(), "InPlace");
    assert_eq!((world.who(), world.born().len()), (first, 1));
    world.stop();
}

fn its_failure_is_told_and_costs_nothing() {
    let world = in_place(World::new(), Act::Note);
    let (first, load) = (world.start(), world.load());
    fs::write(world.path("bad"), "line 3: no such colour").unwrap();
    let mark = world.manager().mark();
    let outcome = world.reload();
    let why = "was not started: the reload in place failed: line 3: no such colour";
    assert_eq!(outcome, format!("reload failed: generation 2 {why}"));
    assert!(world.wait_for_status(mark, &format!("generation 1 serves; {outcome}")).has("READY=1"));
    fs::remove_file(world.path("bad")).unwrap();
    assert_eq!(world.reload(), "InPlace");
    load.finish();
    assert_eq!((world.who(), world.born().len()), (first, 1));
    world.stop();
}

fn one_that_panics_or_hangs_fails() {
    let over = "was not over within 300ms";
    let broken = "panicked: the hook is broken";
    for (act, why) in [(Act::Panic, broken), (Act::PanicBlocking, broken), (Act::Hang, over), (Act::HangBlocking, over)]
    {
        let world = in_place(World::new(), act);
        let first = world.start();
        let outcome = world.reload();
        assert!(outcome.ends_with(&format!("the reload in place failed: {why}")), "{outcome}");
        assert_eq!(world.who(), first);
        world.stop();
    }
}

fn it_may_ask_for_a_new_generation() {
    let world = in_place(World::new(), Act::Note);
    let first = world.start();
    assert_eq!(world.reload(), "InPlace");
    fs::write(world.path("upgrade"), "").unwrap();
    let second = world.reload_to(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    fs::remove_file(world.path("upgrade")).unwrap();
    assert_eq!(world.reload(), "InPlace");
    assert_eq!(notes(&world, second.pid), ["in place 2"]);
    assert_eq!(world.who(), second);
    world.stop();
}

fn requests_meanwhile_are_one_more() {
    let world = in_place(World::new(), Act::Wait);
    let world = world.configured(|c| configured(c, |e| e.timeout = Some(Duration::from_secs(600))));
    let first = world.start();
    let mut asked = vec![world.ask_for_reload()];
    wait_for_note(&world, first.pid, "in place 1");
    for _ in 0..5 {
        asked.push(world.ask_for_reload());
    }
    world.go();
    for mut asked in asked {
        assert_eq!(asked.rest().unwrap(), "InPlace");
    }
    assert_eq!(notes(&world, first.pid), ["in place 1"; 2]);
    world.stop();
}

fn a_stop_does_not_wait_for_it() {
    let world = in_place(World::new(), Act::HangBlocking);
    let world = world.configured(|c| configured(c, |e| e.timeout = Some(Duration::from_secs(600))));
    let first = world.start();
    let _asked = world.ask_for_reload();
    signal(first.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.wait_for_nobody();
}
