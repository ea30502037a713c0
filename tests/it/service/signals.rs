//! The signals of each preset, sent to real processes.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::extra::{Act, At, configured};
use crate::hooks::{notes, wait_for_note, with_hooks};
use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::processes::{End, signal, until};
use handover_testing::service::Step;
use handover_testing::world::{Who, World};

pub(crate) const CASES: &[Case] = cases![
    default_reloads_by_hup_and_cuts_by_quit,
    endless_forks_by_hup_and_hammers_by_usr2,
    endless_usr2_to_the_main_one_hammers_the_old_ones,
    grace_restarts_by_usr2,
    overseer_restarts_by_usr2,
    goframe_restarts_by_usr1_and_stops_by_quit,
    nginx_reloads_by_hup_and_usr2,
    nginx_winch_ends_the_linger_of_the_old_one,
    nginx_quit_finishes_however_often_it_comes,
    nginx_term_and_int_cut,
    nginx_usr1_opens_logs_anew,
    php_fpm_reloads_by_usr2_and_finishes_by_quit,
    php_fpm_term_cuts,
    one_of_the_settings_counts,
    one_of_ones_own,
    the_reload_signals_are_told,
    no_reload_signal_kills_who_cannot_handle_it_yet,
    hooks_are_called_before_and_after,
    a_reload_waits_for_the_hook_before_it_and_a_stop_does_not,
];

const FAR: Duration = Duration::from_secs(60);

fn preset(name: &str) -> World {
    World::new().configured(|c| {
        c.drain_timeout = FAR;
        configured(c, |e| e.preset = Some(name.into()));
    })
}

fn reloads(name: &str, signals: &[Signal]) {
    let world = preset(name);
    let (mut main, load) = (world.start(), world.load());
    for (generation, by) in (2..).zip(signals) {
        signal(main.pid, *by);
        let next = world.wait_for_generation(generation);
        assert_eq!(world.end_of(main.pid), End::Exited(0), "{by}");
        main = next;
    }
    load.finish();
    world.stop();
}

/// What is in flight is finished, although these come while it is.
fn finishes(name: &str, signals: &[Signal]) {
    let world = preset(name);
    let first = world.start();
    let (_, held) = world.hold();
    for by in signals {
        signal(first.pid, *by);
        world.wait_for_log("drains within");
        assert_eq!(world.processes(), [first.pid]);
        assert!(held.is_open(), "{by}");
    }
    drop(held);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert!(!world.log().contains("hammered"));
}

/// What is in flight is not finished.
fn cuts(name: &str, by: Signal) {
    let world = preset(name);
    let first = world.start();
    let (_, held) = world.hold();
    signal(first.pid, by);
    held.wait_for_end();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert!(world.log().contains("hammered; connections cut: 1"));
}

/// The first generation drains, and has a request in flight.
fn with_a_drainer(name: &str) -> (World, [Who; 2], Asked) {
    let world = preset(name);
    let first = world.start();
    let (_, held) = world.hold();
    let second = world.reload_to(2);
    world.manager().wait("generation 2", |d| d.text == "STATUS=generation 2 serves");
    (world, [first, second], held)
}

fn default_reloads_by_hup_and_cuts_by_quit() {
    reloads("default", &[Signal::SIGHUP]);
    finishes("default", &[Signal::SIGTERM]);
    finishes("default", &[Signal::SIGINT]);
    cuts("default", Signal::SIGQUIT);
}

fn endless_forks_by_hup_and_hammers_by_usr2() {
    reloads("endless", &[Signal::SIGHUP]);
    let (world, [first, second], held) = with_a_drainer("endless");
    // Ignored by who serves: but the older ones are hammered by the main one, so here it goes to
    // the old one alone.
    signal(first.pid, Signal::SIGUSR2);
    held.wait_for_end();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    signal(second.pid, Signal::SIGUSR2);
    signal(second.pid, Signal::SIGUSR1);
    world.wait_for_log("SIGUSR2; older generations that drain: 0");
    assert_eq!(world.who(), second);
    world.stop();
    finishes("endless", &[Signal::SIGTERM]);
}

fn endless_usr2_to_the_main_one_hammers_the_old_ones() {
    let (world, [first, second], held) = with_a_drainer("endless");
    signal(second.pid, Signal::SIGUSR2);
    held.wait_for_end();
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(world.who(), second);
    world.stop();
}

fn grace_restarts_by_usr2() {
    reloads("grace", &[Signal::SIGUSR2, Signal::SIGUSR2, Signal::SIGHUP]);
    finishes("grace", &[Signal::SIGTERM]);
}

fn overseer_restarts_by_usr2() {
    reloads("overseer", &[Signal::SIGUSR2, Signal::SIGUSR2]);
    finishes("overseer", &[Signal::SIGINT]);
}

fn goframe_restarts_by_usr1_and_stops_by_quit() {
    reloads("goframe", &[Signal::SIGUSR1, Signal::SIGUSR1]);
    finishes("goframe", &[Signal::SIGQUIT]);
}

fn nginx_reloads_by_hup_and_usr2() {
    reloads("nginx", &[Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGHUP]);
}

fn nginx_winch_ends_the_linger_of_the_old_one() {
    let world = preset("nginx").configured(|c| c.linger = FAR);
    let first = world.start();
    let mut idle = Asked::new(world.address(), "/who", "keep-alive").unwrap();
    idle.rest().unwrap();
    let second = world.reload_to(2);
    world.manager().wait("generation 2", |d| d.text == "STATUS=generation 2 serves");
    assert!(idle.is_open(), "it lingers");
    signal(second.pid, Signal::SIGWINCH);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(world.who(), second);
    // And sent to the old one itself, as with nginx.
    let mut idle = Asked::new(world.address(), "/who", "keep-alive").unwrap();
    idle.rest().unwrap();
    world.reload_to(3);
    world.manager().wait("generation 3", |d| d.text == "STATUS=generation 3 serves");
    assert!(idle.is_open(), "it lingers");
    signal(second.pid, Signal::SIGWINCH);
    assert_eq!(world.end_of(second.pid), End::Exited(0));
    world.stop();
}

fn nginx_quit_finishes_however_often_it_comes() {
    finishes("nginx", &[Signal::SIGQUIT; 3]);
}

fn nginx_term_and_int_cut() {
    cuts("nginx", Signal::SIGTERM);
    cuts("nginx", Signal::SIGINT);
}

fn nginx_usr1_opens_logs_anew() {
    let world = with_hooks(preset("nginx"), &[(At::BeforeSignal, Act::Note)]);
    let first = world.start();
    signal(first.pid, Signal::SIGUSR1);
    wait_for_note(&world, first.pid, "BeforeSignal SIGUSR1");
    assert_eq!(world.who(), first);
    world.stop();
}

fn php_fpm_reloads_by_usr2_and_finishes_by_quit() {
    reloads("php-fpm", &[Signal::SIGUSR2, Signal::SIGUSR2]);
    finishes("php-fpm", &[Signal::SIGQUIT; 2]);
}

fn php_fpm_term_cuts() {
    cuts("php-fpm", Signal::SIGTERM);
    cuts("php-fpm", Signal::SIGINT);
}

fn one_of_the_settings_counts() {
    let world = World::new().configured(|c| configured(c, |e| e.settings = Some("signals = \"grace\"\n".into())));
    let first = world.start();
    signal(first.pid, Signal::SIGUSR2);
    world.wait_for_generation(2);
    world.stop();
}

fn one_of_ones_own() {
    let world = preset("own");
    let first = world.start();
    signal(first.pid, Signal::SIGUSR1);
    let second = world.wait_for_generation(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    signal(second.pid, Signal::SIGQUIT);
    assert_eq!(world.end_of(second.pid), End::Killed(Signal::SIGQUIT), "what the system does by default");
}

fn no_reload_signal_kills_who_cannot_handle_it_yet() {
    let mut world = preset("nginx");
    let first = world.start();
    world.next(Step::Wait, Step::Go);
    let mut asked = world.ask_for_reload();
    let second = world.wait_for_birth(2);
    for by in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH] {
        signal(second, by);
    }
    world.go();
    assert_eq!(asked.rest().unwrap(), format!("HandedOver {{ generation: 2, pid: {second} }}"));
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn hooks_are_called_before_and_after() {
    let world = with_hooks(World::new(), &[(At::BeforeSignal, Act::Note), (At::AfterSignal, Act::NoteBlocking)]);
    let first = world.start();
    signal(first.pid, Signal::SIGHUP);
    let second = world.wait_for_generation(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    assert_eq!(notes(&world, first.pid), ["BeforeSignal SIGHUP", "AfterSignal SIGHUP"]);
    assert!(notes(&world, second.pid).is_empty());
    world.stop();
}

fn a_reload_waits_for_the_hook_before_it_and_a_stop_does_not() {
    let world = with_hooks(World::new(), &[(At::BeforeSignal, Act::Wait)]);
    let first = world.start();
    signal(first.pid, Signal::SIGHUP);
    wait_for_note(&world, first.pid, "BeforeSignal SIGHUP");
    assert_eq!(world.born().len(), 1);
    world.go();
    let second = world.wait_for_generation(2);
    world.manager().wait("generation 2", |d| d.text == "STATUS=generation 2 serves");
    std::fs::remove_file(world.path("go")).unwrap();
    signal(second.pid, Signal::SIGTERM);
    world.manager().wait("STOPPING=1", |d| d.pid == second.pid && d.has("STOPPING=1"));
    world.go();
    assert_eq!(world.end_of(second.pid), End::Exited(0));
}

/// For whoever writes `ExecReload=` or `ReloadSignal=`.
fn the_reload_signals_are_told() {
    let world = preset("own");
    world.start();
    assert!(world.log().contains("reload_signal=\"SIGHUP SIGUSR1\""), "{}", world.log());
    world.reload_to(2);
    until("the same of the new one", || (world.log().matches("SIGHUP SIGUSR1").count() == 2).then_some(()));
    world.stop();
}
