//! Reload requests at bad moments, and to the wrong process.

use std::time::Duration;

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("five_hups", five_hups), Scenario::new("hup_to_all", hup_to_all)];

fn five_hups(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        // The shell's own kill: five of them take microseconds, and the date tells.
        let took = lab.sh_ok(&format!(
            "read begun _ </proc/uptime; for i in 1 2 3 4 5; do kill -HUP {old}; done; read ended _ </proc/uptime; echo \"$begun $ended\""
        ))?;
        let (begun, ended) = took.split_once(' ').ok_or("no times")?;
        assert!(ended.parse::<f64>()? - begun.parse::<f64>()? < 0.015, "{took} (in steps of 10 ms)");
        // Whoever still has a reload before it has begun it when it became main: alone and running, there is none.
        lab.wait_until(super::web::DEADLINE, "one process that is main and runs, and not the old one", || {
            let state = web.state()?;
            Ok((state.is_running() && state.main != old && lab.pids(UNIT)? == [state.main]).then_some(()))
        })
    })?;
    load::lost_nothing(&stats)?;
    let (began, done) = (web.count_logged("reload: starting")?, web.count_logged("handed over to")?);
    assert!((1..=2).contains(&began) && began == done, "{began} reloads began, {done} are done");
    assert_eq!(web.state()?.status, format!("generation {} serves", 1 + began));
    assert_eq!(web.pid()?, lab.main_pid(UNIT)?);
    Ok(())
}

fn hup_to_all(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let first = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        let request = web.in_flight(12, Duration::from_millis(250))?;
        let second = web.reload()?;
        assert!(lab.pids(UNIT)?.contains(&first), "the first one drains");
        lab.systemctl_ok(&["kill", "-s", "HUP", UNIT])?;
        let third = web.until("a third one", |s| s.is_running() && s.main != second)?.main;
        assert!(lab.pids(UNIT)?.contains(&first), "the drainer lives on");
        request.finish()?;
        web.until_only(&[third])
    })?;
    load::lost_nothing(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.status.as_str()), (0, "generation 3 serves"));
    assert_eq!(web.count_logged("reload: starting")?, 2, "the drainer started nothing");
    Ok(())
}
