//! A reload is never worse than none: units as they are found, and what a reload did to them.

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("faults_of_a_simple_service_refuses_reloads", a_simple_service_refuses_reloads)];

/// The commonest unit there is: `Type=simple`, and a signal for the reload.
fn a_simple_service_refuses_reloads(lab: &Container) -> Outcome {
    let web = Web::install(lab, Setup { binds: true, command: "{dir}/web --listen {address}", ..Setup::default() })?;
    let program = lab.dir().join("web");
    lab.write_unit(
        UNIT,
        &format!(
            "[Service]\nExecStart={} --listen {}\nExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure\n",
            program.display(),
            web.address
        ),
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", UNIT])?;
    web.logged("reloads are refused: ")?;
    let main = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let refused = web.logged("reload failed: ")?;
    assert!(refused.message().contains("write Type=notify in the [Service] section"), "{}", refused.message());
    assert_eq!((web.pid()?, lab.main_pid(UNIT)?), (main, main));
    web.until_only(&[main])
}
