//! Pings, across generations, and only from whoever is main and healthy.

use std::fs;
use std::time::{Duration, Instant};

use crate::{Case, cases};
use handover_testing::manager::Datagram;
use handover_testing::processes::until;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] =
    cases![pings_come_in_time_from_whoever_is_main, the_unhealthy_are_not_vouched_for, no_watchdog_no_pings];

/// Of `WatchdogSec=`.
const INTERVAL: Duration = Duration::from_millis(500);

fn watched(world: &World) -> u32 {
    let program = world.program().env("WATCHDOG_USEC", INTERVAL.as_micros().to_string());
    world.started(program).pid
}

fn pings(world: &World, mark: usize) -> Vec<Datagram> {
    world.manager().all()[mark..].iter().filter(|d| d.text == "WATCHDOG=1").cloned().collect()
}

fn wait_for_pings(world: &World, mark: usize, count: usize, pid: u32) -> Vec<Datagram> {
    until("watchdog pings", || {
        let mut pings = pings(world, mark);
        pings.retain(|ping| ping.pid == pid);
        (pings.len() >= count).then_some(pings)
    })
}

fn pings_come_in_time_from_whoever_is_main() {
    let world = World::new();
    let first = watched(&world);
    let pings = wait_for_pings(&world, 0, 6, first);
    let mut gaps: Vec<Duration> = pings.windows(2).map(|two| two[1].at - two[0].at).collect();
    gaps.sort_unstable();
    // The usual gap, because the machine may be busy at one of them.
    assert!(gaps[gaps.len() / 2] < INTERVAL / 2, "{gaps:?}");

    let second = world.reload_to(2).pid;
    wait_for_pings(&world, 0, 4, second);
    let all = world.manager().all();
    let named = all.iter().position(|d| d.field("MAINPID") == Some(&second.to_string())).unwrap();
    let stray = |d: &Datagram, pid| d.text == "WATCHDOG=1" && d.pid == pid;
    assert!(!all[..named].iter().any(|d| stray(d, second)), "not main yet");
    assert!(!all[named..].iter().any(|d| stray(d, first)), "not main any more");
    let gap = pings_around(&all[..], named);
    assert!(gap < INTERVAL, "the watchdog would have bitten: {gap:?}");
    world.stop();
}

/// From the last ping before to the first ping after.
fn pings_around(all: &[Datagram], at: usize) -> Duration {
    let is_ping = |d: &&Datagram| d.text == "WATCHDOG=1";
    let (before, after) = (all[..at].iter().rfind(is_ping), all[at..].iter().find(is_ping));
    after.unwrap().at - before.unwrap().at
}

fn the_unhealthy_are_not_vouched_for() {
    let world = World::new().configured(|c| c.health = true);
    let main = watched(&world);
    wait_for_pings(&world, 0, 2, main);
    let mark = world.manager().mark();
    fs::write(world.path("unhealthy"), "").unwrap();
    world.wait_for_status(mark, "unhealthy: the sign is up");
    let mark = world.manager().mark();
    let until_then = Instant::now() + 2 * INTERVAL;
    until("the watchdog to bite", || (Instant::now() > until_then).then_some(()));
    assert!(pings(&world, mark).is_empty());
    assert!(world.log().contains("unhealthy: no watchdog pings"));
    fs::remove_file(world.path("unhealthy")).unwrap();
    wait_for_pings(&world, mark, 2, main);
    world.wait_for_status(mark, "generation 1 serves; healthy again");
    world.stop();
}

fn no_watchdog_no_pings() {
    let world = World::new().configured(|c| c.health = true);
    world.start();
    world.reload_to(2);
    assert!(pings(&world, 0).is_empty());
    world.stop();
}
