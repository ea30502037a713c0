//! What a reload job of systemd's comes to: one that hangs, one in which the service stops, one
//! that is asked for too late.

use std::time::Duration;

use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("a_reload_that_hangs_notify", |lab| hangs(lab, Type::Notify)),
    Scenario::new("a_reload_that_hangs_notify_reload", |lab| hangs(lab, Type::NotifyReload)).since(253),
    Scenario::new("no_reload_after_stopping", no_reload_after_stopping),
    Scenario::new("a_stop_within_a_reload_notify", |lab| stops_within(lab, Type::Notify)),
    Scenario::new("a_stop_within_a_reload_notify_reload", |lab| stops_within(lab, Type::NotifyReload)).since(253),
    Scenario::new("only_main_says_stopping", only_main_says_stopping),
];

/// The main process stands still in the middle of a reload for longer than systemd waits for one.
/// Whatever systemd makes of its job, the reload is completed when the process goes on.
fn hangs(lab: &Container, kind: Type) -> Outcome {
    let web = Web::start(lab, Setup { kind, lines: "TimeoutStartSec=1\nWatchdogSec=0\n", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    slow_next(lab, 1)?;
    lab.systemctl_ok(&["reload", "--no-block", UNIT])?;
    web.logged("started generation 2")?;
    lab.signal(old, "STOP")?;
    // Up to 258 systemd says so once for each time that is over, and its job goes on. With the
    // packaged `Type=notify` it is over when /bin/kill has done its part, or goes on likewise if
    // RELOADING=1 was there before that: nothing is said of it.
    let given_up = lab.version() >= 259;
    match kind {
        Type::NotifyReload if given_up => drop(web.until("systemd gives up its job", |s| s.sub == "running")?),
        Type::Notify if given_up => {}
        _ => lab.wait_until(DEADLINE, "twice the time is over", || {
            Ok((web.count_logged("Reload operation timed out")? >= 2).then_some(()))
        })?,
    }
    if kind == Type::NotifyReload {
        let job = lab.show(UNIT, "Job")?;
        assert_eq!(job.is_empty(), given_up, "{job}");
    }
    lab.signal(old, "CONT")?;
    let state = web.until("another main process", |s| s.is_running() && s.main != old)?;
    assert_eq!((state.result.as_str(), state.restarts), ("success", 0), "{state:?}");
    assert_eq!(web.pid()?, state.main);
    web.until_only(&[state.main])?;
    let again = web.reload()?;
    assert_ne!(again, state.main);
    Ok(())
}

/// The next version takes so many seconds to get ready.
fn slow_next(lab: &Container, seconds: u32) -> Outcome {
    let dir = lab.dir().display();
    lab.write_file(&format!("{dir}/slow"), &format!("#!/bin/sh\nsleep {seconds}\nexec {dir}/real \"$@\"\n"))?;
    lab.sh_ok(&format!("cd {dir} && cp web real && chmod 755 slow && mv slow web")).map(drop)
}

/// Without a .socket unit: a client would start it again.
fn start(lab: &Container, kind: Type) -> Outcome<Web<'_>> {
    Web::start(lab, Setup { kind, command: "{dir}/web --listen {address}", binds: true, ..Setup::default() })
}

/// The service stops of itself, with a request in hand: a reload comes to nothing, and to no harm.
fn no_reload_after_stopping(lab: &Container) -> Outcome {
    let web = start(lab, Type::Notify)?;
    let main = lab.main_pid(UNIT)?;
    let request = web.in_flight(12, Duration::from_millis(100))?;
    lab.signal(main, "TERM")?;
    web.until("it is stopping", |s| s.active == "deactivating")?;
    let reload = lab.systemctl(&["reload", UNIT])?;
    println!("{}", reload.stderr);
    lab.signal(main, "HUP")?;
    request.finish()?;
    let state = web.until("inactive", |s| s.active == "inactive")?;
    assert_eq!((state.result.as_str(), state.restarts), ("success", 0), "{state:?}");
    assert!(!reload.success(), "{reload:?}");
    assert_eq!(web.count_logged("starting generation")?, 0);
    Ok(())
}

/// The service stops of itself while its next generation gets ready.
fn stops_within(lab: &Container, kind: Type) -> Outcome {
    let web = start(lab, kind)?;
    let main = lab.main_pid(UNIT)?;
    let request = web.in_flight(12, Duration::from_millis(100))?;
    slow_next(lab, 30)?;
    lab.systemctl_ok(&["reload", "--no-block", UNIT])?;
    web.logged("started generation 2")?;
    lab.signal(main, "TERM")?;
    request.finish()?;
    let state = web.until("inactive", |s| s.active == "inactive")?;
    assert_eq!((state.result.as_str(), state.restarts), ("success", 0), "{state:?}");
    assert!(lab.pids(UNIT)?.is_empty());
    Ok(())
}

/// `STOPPING=1` is about the service: who drains does not send it, also where anybody may.
fn only_main_says_stopping(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: "NotifyAccess=all\n", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    let request = web.in_flight(12, Duration::from_millis(100))?;
    let new = web.reload()?;
    lab.signal(old, "TERM")?;
    request.finish()?;
    web.until_only(&[new])?;
    let state = web.state()?;
    assert!(state.is_running() && state.main == new && state.restarts == 0, "{state:?}");
    assert_eq!(web.pid()?, new);
    let again = web.reload()?;
    assert_eq!(web.pid()?, again);
    Ok(())
}
