//! The main process is killed: what was in flight in it is lost, and nothing else.

use std::time::{Duration, Instant};

use super::web::{DEADLINE, Setup, UNIT, Web, within};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Clients, Kill, Kind, Stats};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("main_is_killed", main_is_killed),
    Scenario::new("new_main_is_killed_while_the_old_one_drains", new_main_is_killed_while_the_old_one_drains),
    Scenario::new("main_is_killed_in_probation", main_is_killed_in_probation),
    Scenario::new("drainer_is_killed", drainer_is_killed),
    Scenario::new("main_is_killed_that_bound_its_port", main_is_killed_that_bound_its_port),
];

/// A restart that waits for the drain takes 10 s or more. This is no measure of speed: three
/// containers share two processors here, and `prove` says how long a quiet machine takes.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const CLIENTS: &Clients = &[(Kind::KeepAlive, 8), (Kind::Fresh, 8)];

fn main_is_killed(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        let main_since = Instant::now();
        let main = web.reload()?;
        web.until_only(&[main])?;
        for _ in 0..2 {
            let main = lab.main_pid(UNIT)?;
            kill_main(&web, stats, main, main_since)?;
        }
        Ok(())
    })?;
    load::lost_only_to_kill(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.status.as_str()), (2, "generation 1 serves"));
    assert_eq!(lab.show("web.socket", "ActiveState")?, "active");
    Ok(())
}

/// No .socket unit: the listening socket is in the fd store, and so is its queue.
fn main_is_killed_that_bound_its_port(lab: &Container) -> Outcome {
    let setup = Setup { command: "{dir}/web --listen {address}", binds: true, ..Setup::default() };
    let web = Web::start(lab, setup)?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        for _ in 0..3 {
            let main_since = Instant::now();
            let main = web.reload()?;
            web.until_only(&[main])?;
            stored(&web, 1)?;
            kill_main(&web, stats, main, main_since)?;
        }
        Ok(())
    })?;
    load::lost_only_to_kill(&stats)?;
    stored(&web, 1)
}

fn stored(web: &Web<'_>, entries: u32) -> Outcome {
    let wanted = entries.to_string();
    web.lab.wait_until(DEADLINE, "the entries in the fd store", || {
        Ok((web.lab.show(UNIT, "NFileDescriptorStore")? == wanted).then_some(()))
    })
}

fn new_main_is_killed_while_the_old_one_drains(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --migrate never", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        // More than the hurry timeout leaves; and one that it leaves time for, on a connection that
        // lingers.
        let long = web.in_flight(100, Duration::from_millis(100))?;
        let mut lingering = web.connect()?;
        assert_eq!(lingering.pid()?, old);
        let main_since = Instant::now();
        let new = web.reload()?;
        let short = lingering.stream(10, Duration::from_millis(15))?;
        assert!(lab.pids(UNIT)?.contains(&old), "the old one drains");

        kill_main(&web, stats, new, main_since)?;
        short.finish()?;
        assert!(long.ended_cut(), "the restart would wait for it");
        let last_words = web.logged("hammered; connections cut: 1")?;
        assert_eq!(last_words.get("_PID"), Some(old.to_string().into()));
        let cut = web.logged("cut http: ")?;
        assert!(cut.message().contains("GET /stream"), "{}", cut.message());
        Ok(())
    })?;
    load::lost_only_to_kill(&stats)?;
    assert_eq!(web.state()?.restarts, 1);
    Ok(())
}

/// The one that is not main yet serves until systemd, which does not know it, has ended it for the
/// restart.
fn main_is_killed_in_probation(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --probation 10s", ..Setup::default() })?;
    let main = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        let main_since = Instant::now();
        lab.systemctl_ok(&["reload", "--no-block", UNIT])?;
        let next =
            lab.wait_until(DEADLINE, "the next generation answers", || Ok(Some(web.pid()?).filter(|p| *p != main)))?;
        kill_main(&web, stats, main, main_since)?;
        web.until_only(&[lab.main_pid(UNIT)?])?;
        assert_ne!(lab.main_pid(UNIT)?, next);
        Ok(())
    })?;
    load::lost_only_to_kill(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.status.as_str()), (1, "generation 1 serves"));
    Ok(())
}

fn drainer_is_killed(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        let main_since = Instant::now();
        let request = web.in_flight(100, Duration::from_millis(100))?;
        let new = web.reload()?;
        let at = Instant::now();
        lab.signal(old, "KILL")?;
        web.until_only(&[new])?;
        stats.killed(Kill { pid: old, main_since, at, dead: Instant::now(), over: Some(Instant::now()) });
        assert!(request.ended_cut());
        let next = web.reload()?;
        web.until_only(&[next])
    })?;
    load::lost_only_to_kill(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.status.as_str(), state.result.as_str()), (0, "generation 3 serves", "success"));
    Ok(())
}

/// Kills it, and waits until there is another one; what was in flight in it is told to `stats`.
fn kill_main(web: &Web<'_>, stats: &Stats, main: u32, main_since: Instant) -> Outcome {
    let (lab, restarts) = (web.lab, web.state()?.restarts);
    let at = Instant::now();
    lab.signal(main, "KILL")?;
    lab.wait_until(DEADLINE, "it is dead", || Ok(lab.proc_status(main, "State").is_err().then_some(())))?;
    let dead = Instant::now();
    stats.killed(Kill { pid: main, main_since, at, dead, over: None });
    assert_ne!(web.pid()?, main);
    within(BACK_WITHIN, at, "from the kill to an answer")?;
    let state = web.until("restarted", |s| s.is_running() && s.restarts > restarts)?;
    stats.restarted();
    assert_eq!(state.main, web.pid()?);
    Ok(())
}
