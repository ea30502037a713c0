//! The time between switch and handover: the next generation serves, and the old one is still main.

use std::time::{Duration, Instant};

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Kill};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("next_dies_in_probation", next_dies_in_probation)];

fn next_dies_in_probation(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --probation 1500ms", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |stats| {
        lab.systemctl_ok(&["reload", "--no-block", UNIT])?;
        let main_since = Instant::now();
        let next =
            lab.wait_until(DEADLINE, "the next generation answers", || Ok(Some(web.pid()?).filter(|p| *p != old)))?;
        // In 262 a Type=notify unit is "running" again once its ExecReload= has exited, RELOADING=1
        // or not.
        let state = web.state()?;
        assert_eq!(state.main, old, "{state:?}");
        assert!(lab.version() > 257 || state.active == "reloading", "{state:?}");

        let at = Instant::now();
        lab.signal(next, "KILL")?;
        lab.wait_until(DEADLINE, "it is dead", || Ok((!lab.pids(UNIT)?.contains(&next)).then_some(())))?;
        stats.killed(Kill { pid: next, main_since, at, dead: Instant::now(), over: None });
        let state = web.until("rolled back", |s| s.is_running() && s.status.contains("reload failed"))?;
        stats.restarted();
        assert_eq!(state.main, old);
        assert!(state.status.contains("generation 2 was killed by SIGKILL"), "{}", state.status);
        assert_eq!(web.pid()?, old);

        // And one that lives through it becomes main.
        let began = Instant::now();
        let new = web.reload()?;
        assert!(began.elapsed() >= Duration::from_millis(1500), "main after {:?}", began.elapsed());
        assert_eq!(web.pid()?, new);
        web.until_only(&[new])
    })?;
    load::lost_only_to_kill(&stats)?;
    assert_eq!(web.state()?.restarts, 0);
    Ok(())
}
