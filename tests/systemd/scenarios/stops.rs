//! Stops: what was accepted is finished, within the service's own timeouts.

use std::thread;
use std::time::{Duration, Instant};

use super::web::{Setup, UNIT, Web, within};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("stop_with_idle_connections", stop_with_idle_connections),
    Scenario::new("stop_finishes_what_is_in_flight", stop_finishes_what_is_in_flight),
    Scenario::new("stop_asks_for_more_time", stop_asks_for_more_time),
    Scenario::new("stop_during_a_drain", stop_during_a_drain),
    Scenario::new("stop_during_a_drain_hammers", stop_during_a_drain_hammers),
];

/// What a stop may take beyond what it waits for, on a machine with other work. One that waits for
/// what it must not takes 30 s.
const SLACK: Duration = Duration::from_secs(5);

fn stop_with_idle_connections(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut connection = web.connect()?;
        connection.pid()?;
        // A client closes when the server does; one that does not is given 2 s.
        clients.push(thread::spawn(|| connection.closed()));
    }
    let began = Instant::now();
    stop(&web)?;
    within(Duration::from_secs(1) + SLACK, began, "a stop with idle connections")?;
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    stopped_well(&web)
}

fn stop_finishes_what_is_in_flight(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let request = web.in_flight(8, Duration::from_millis(250))?;
    let client = thread::spawn(|| request.finish()?.closed());
    let began = Instant::now();
    stop(&web)?;
    client.join().map_err(|_| "the client panicked")??;
    within(Duration::from_secs(2) + Duration::from_secs(1) + SLACK, began, "a stop with 2 s in flight")?;
    stopped_well(&web)
}

/// systemd's own limit is far below what is in flight; the drain timeout is not.
fn stop_asks_for_more_time(lab: &Container) -> Outcome {
    let setup = Setup { command: "{dir}/web --drain-timeout 8s", lines: "TimeoutStopSec=1s", ..Setup::default() };
    let web = Web::start(lab, setup)?;
    let request = web.in_flight(12, Duration::from_millis(250))?;
    let began = Instant::now();
    stop(&web)?;
    assert!(began.elapsed() > Duration::from_secs(2), "nothing was in flight after all");
    request.finish()?;
    stopped_well(&web)
}

fn stop_during_a_drain(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --drain-timeout 10s", ..Setup::default() })?;
    let request = web.in_flight(8, Duration::from_millis(250))?;
    let new = web.reload()?;
    let began = Instant::now();
    stop(&web)?;
    within(Duration::from_secs(10), began, "a stop during a drain")?;
    request.finish()?;
    stopped_well(&web)?;
    assert_eq!(web.count_logged("generation 1 has drained and exits")?, 1);
    let last = web.logged("generation 2 has drained and exits")?;
    assert_eq!(last.get("_PID"), Some(new.to_string().into()));
    assert_eq!(web.count_logged("cut http: ")?, 0);
    Ok(())
}

fn stop_during_a_drain_hammers(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --drain-timeout 2s", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    let endless = web.in_flight(1000, Duration::from_millis(250))?;
    web.reload()?;
    let began = Instant::now();
    stop(&web)?;
    within(Duration::from_secs(2) + SLACK, began, "a stop with a drain timeout of 2 s")?;
    assert!(endless.ended_cut());
    stopped_well(&web)?;
    let words = web.logged("hammered; connections cut: 1")?;
    assert_eq!((words.get("_PID"), words.get("CUT").as_deref()), (Some(old.to_string().into()), Some("1")));
    // And whose it was.
    assert!(web.logged("cut http: ")?.message().contains("127.0.0.1"), "the peer is named");
    Ok(())
}

/// With its socket: otherwise the next connection would start it again.
fn stop(web: &Web<'_>) -> Outcome {
    web.lab.systemctl_ok(&["stop", "web.socket", UNIT]).map(drop)
}

fn stopped_well(web: &Web<'_>) -> Outcome {
    let state = web.state()?;
    assert_eq!((state.active.as_str(), state.result.as_str(), state.restarts), ("inactive", "success", 0), "{state:?}");
    assert_eq!(web.lab.show(UNIT, "ExecMainStatus")?, "0");
    assert!(web.lab.pids(UNIT)?.is_empty());
    Ok(())
}
