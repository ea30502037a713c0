//! Settings of a running service: which hold, and what is said of them.

use nix::sys::signal::Signal;

use crate::extra::configured;
use crate::{Case, cases};
use handover_testing::processes::{End, signal};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    those_that_hold_are_logged_once_and_when_they_change,
    a_call_wins_over_a_file,
    the_environment_is_read_if_asked_for,
    what_is_odd_is_said_and_works,
];

fn lines(world: &World) -> Vec<String> {
    world.log().lines().filter_map(|l| Some(l.split_once("settings: ready_timeout=")?.1.to_owned())).collect()
}

fn those_that_hold_are_logged_once_and_when_they_change() {
    let mut world = World::new().configured(|c| configured(c, |e| e.settings = Some("hook_timeout = \"7s\"\n".into())));
    world.start();
    world.reload_to(2);
    let said = lines(&world);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("hook_timeout=\"7s\"") && said[0].contains("hurry_timeout=\"500ms\""), "{said:?}");
    world.configure(|c| configured(c, |e| e.settings = Some("hook_timeout = \"1m 8s\"\n".into())));
    world.reload_to(3);
    world.reload_to(4);
    let said = lines(&world);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("hook_timeout=\"1m 8s\""), "{said:?}");
    world.stop();
}

/// The service under test says its drain timeout by a call.
fn a_call_wins_over_a_file() {
    let text = "drain_timeout = \"11s\"\nhandover_timeout = \"12s\"\n";
    let world = World::new().configured(|c| configured(c, |e| e.settings = Some(text.into())));
    world.start();
    let said = lines(&world);
    assert!(said[0].contains("drain_timeout=\"30s\"") && said[0].contains(" handover_timeout=\"12s\""), "{said:?}");
    world.stop();
}

fn the_environment_is_read_if_asked_for() {
    for (asked, held) in [(true, "\"9s\""), (false, "\"10s\"")] {
        let world = World::new().configured(|c| configured(c, |e| e.settings_from_env = asked));
        world.started(world.program().env("HANDOVER_HOOK_TIMEOUT", "9s").env("HANDOVER_LINGRE", "1s"));
        assert!(lines(&world)[0].contains(&format!("hook_timeout={held}")));
        let warned = world.log().contains("settings: HANDOVER_LINGRE is no setting; is HANDOVER_LINGER meant?");
        assert_eq!(warned, asked);
        // It goes on to the next generation.
        world.reload_to(2);
        assert_eq!(lines(&world).len(), 1);
        world.stop();
    }
}

fn what_is_odd_is_said_and_works() {
    let text = "hook_timeout = \"90s\"\nstandby_timeout = \"2d\"\n";
    let world = World::new().configured(|c| configured(c, |e| e.settings = Some(text.into())));
    let first = world.started(world.program().env("WATCHDOG_USEC", "900000"));
    for odd in [
        "hook_timeout (1m 30s) is longer than ready_timeout (30s): the reload fails first",
        "standby_timeout is 2d, longer than a day",
        "WatchdogSec= is 900ms, below 1s",
    ] {
        assert!(world.log().contains(&format!("settings: {odd}")), "{odd}\n{}", world.log());
    }
    signal(first.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
}
