//! Reload requests at bad moments, and to the wrong process.

use std::time::Duration;

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("five_hups", five_hups), Scenario::new("hup_to_all", hup_to_all)];

/// What five requests are, in one moment. A machine that stops for longer between two of them has
/// sent them one by one.
const BURST: f64 = 0.015;
const BURSTS: usize = 20;

fn five_hups(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let (reloads, stats) = load::under(lab, web.address, load::SHORT, |_| {
        for _ in 0..BURSTS {
            let (before, old) = (web.count_logged("handed over to")?, lab.main_pid(UNIT)?);
            // The shell's own kill: five of them take microseconds, and the date tells.
            let took = lab.sh_ok(&format!(
                "read begun _ </proc/uptime; for i in 1 2 3 4 5; do kill -HUP {old}; done; read ended _ </proc/uptime; echo \"$begun $ended\""
            ))?;
            let (begun, ended) = took.split_once(' ').ok_or("no times")?;
            settled(&web, old)?;
            let reloads = web.count_logged("handed over to")? - before;
            assert!((1..=5).contains(&reloads), "{reloads} reloads for five requests");
            if ended.parse::<f64>()? - begun.parse::<f64>()? < BURST {
                return Ok(reloads);
            }
        }
        Err(format!("none of {BURSTS} bursts was sent within {BURST} s").into())
    })?;
    load::lost_nothing(&stats)?;
    assert!((1..=2).contains(&reloads), "{reloads} reloads for five requests in one moment");
    let (began, done) = (web.count_logged("reload: starting")?, web.count_logged("handed over to")?);
    assert_eq!(began, done, "every reload that began is done");
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
        web.until("a third one", |s| s.is_running() && s.main != second)?;
        assert!(lab.pids(UNIT)?.contains(&first), "the drainer lives on");
        request.finish()?;
        settled(&web, second)
    })?;
    load::lost_nothing(&stats)?;
    // One answers the signal to the second generation. While the manager still goes through the
    // processes, the third is born among them: then that one has got the signal, too, and does it
    // once more.
    let began = web.count_logged("reload: starting")?;
    assert!((2..=3).contains(&began), "{began} reloads in all: the drainer started one");
    let state = web.state()?;
    assert_eq!((state.restarts, state.status), (0, format!("generation {} serves", 1 + began)));
    Ok(())
}

/// Until no reload is under way or asked for, and another one than `old` is main: whoever is to
/// reload once more begins that in the moment that it becomes main, so one that is alone, and says
/// that it serves, has nothing of the kind before it.
fn settled(web: &Web<'_>, old: u32) -> Outcome {
    web.lab.wait_until(DEADLINE, "one process that is main, serves, and is not the old one", || {
        let state = web.state()?;
        let serves = state.is_running() && state.main != old && state.status.ends_with(" serves");
        Ok((serves && web.lab.pids(UNIT)? == [state.main]).then_some(()))
    })
}
