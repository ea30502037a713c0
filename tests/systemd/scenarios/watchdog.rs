//! A short watchdog across reloads, and one that has to bite.

use std::time::Instant;

use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("watchdog_over_reloads", watchdog_over_reloads),
    Scenario::new("watchdog_over_reloads_notify_reload", watchdog_over_reloads_notify_reload).since(253),
    Scenario::new("watchdog_kills_what_hangs", watchdog_kills_what_hangs),
];

const SHORT_WATCHDOG: &str = "WatchdogSec=200ms";

fn watchdog_over_reloads(lab: &Container) -> Outcome {
    over_reloads(lab, Type::Notify)
}

fn watchdog_over_reloads_notify_reload(lab: &Container) -> Outcome {
    over_reloads(lab, Type::NotifyReload)
}

fn over_reloads(lab: &Container, kind: Type) -> Outcome {
    let web = Web::start(lab, Setup { kind, lines: SHORT_WATCHDOG, ..Setup::default() })?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        for _ in 0..20 {
            web.reload()?;
        }
        // The last one pings by itself, too: long enough for three that are missing.
        let pinged = || lab.show(UNIT, "WatchdogTimestampMonotonic");
        for _ in 0..5 {
            let before = pinged()?;
            lab.wait_until(DEADLINE, "another ping", || Ok((pinged()? != before).then_some(())))?;
        }
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.result.as_str(), state.status.as_str()), (0, "success", "generation 21 serves"));
    assert_eq!(web.count_logged("Watchdog timeout")?, 0);
    Ok(())
}

fn watchdog_kills_what_hangs(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: SHORT_WATCHDOG, ..Setup::default() })?;
    // Not the first one: the watchdog must be right for one that was reloaded into.
    let main = web.reload()?;
    web.until_only(&[main])?;
    let hung = Instant::now();
    lab.signal(main, "STOP")?;
    let client = web.connect()?;
    web.logged("Watchdog timeout")?;
    let state = web.until("restarted", |s| s.is_running() && s.main != main)?;
    super::web::within(DEADLINE / 4, hung, "from hanging to the restart")?;
    assert_eq!((state.restarts, state.status.as_str()), (1, "generation 1 serves"));
    // It waited in the backlog, or was accepted by the one that hung: nobody was refused.
    drop(client);
    assert_eq!(web.pid()?, state.main);
    Ok(())
}
