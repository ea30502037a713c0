//! A reload is never worse than none: what real services and their units got wrong.

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::processes::{signal, until};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![a_manager_that_is_not_told_keeps_the_main_process];

/// `Type=simple` with `ExecReload=/bin/kill -HUP $MAINPID`: systemd would take our exit for the
/// service's end.
fn a_manager_that_is_not_told_keeps_the_main_process() {
    let world = World::without_manager();
    let who = world.started(world.program().env("INVOCATION_ID", "0123456789abcdef0123456789abcdef"));
    let line = "write Type=notify";
    assert!(world.log().contains(line), "a warning at the start:\n{}", world.log());
    let outcome = world.reload();
    assert!(outcome.contains("NOTIFY_SOCKET") && outcome.contains(line), "{outcome}");
    signal(who.pid, Signal::SIGHUP);
    until("the refusal of the signal's reload", || (world.log().matches("reload failed").count() == 2).then_some(()));
    assert_eq!(world.who(), who);
    assert_eq!(world.born(), [who.pid]);
    world.stop();
}
