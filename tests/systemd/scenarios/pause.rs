//! `handover pause` and `handover resume`: clients wait, and nobody is lost.

use std::time::Duration;

use serde_json::Value;

use super::control::{start, tool, tool_ok};
use super::web::{Connection, DEADLINE, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Kind, Stats};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("pause_loses_nobody", loses_nobody)];

const LINES: &str = "RuntimeDirectory=handover-web\nExecReload=\nExecReload={handover} reload $MAINPID\n";
const CLIENTS: &load::Clients = &[(Kind::KeepAlive, 16), (Kind::Fresh, 4), (Kind::Upload, 2), (Kind::Pipelined, 2)];

/// Under load: a pause in which the service is reloaded, one that ends by itself, one that is given
/// up as somebody has a request in hand, and one that a crash ends.
fn loses_nobody(lab: &Container) -> Outcome {
    let web = start(lab, Type::Notify, LINES)?;
    let first = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, CLIENTS, |stats| {
        let said = tool_ok(lab, &format!("pause {UNIT} --for 1m"))?;
        assert!(said.contains("web.service is paused, for 1m at most, and has nothing in hand"), "{said}");
        let answered = settled(lab, stats)?;
        let waits = web.connect()?;
        lab.systemctl_ok(&["reload", UNIT])?;
        let second = lab.main_pid(UNIT)?;
        assert_ne!(first, second);
        let state = web.state()?;
        assert!(state.status.starts_with("generation 2 is paused, for "), "{state:?}");
        let paused = status(lab)?;
        assert_eq!((&paused["pid"], &paused["paused"]["in_hand"]), (&second.into(), &0.into()), "{paused}");
        assert!(paused["paused"]["left_ms"].as_u64().is_some_and(|left| (30_000..60_000).contains(&left)), "{paused}");
        lab.wait_until(DEADLINE, "two seconds of the pause", || {
            Ok(status(lab)?["paused"]["since_ms"].as_u64().filter(|since| *since >= 2000))
        })?;
        assert_eq!(stats.summary().total.answered, answered, "a request was handled in the pause");
        let text = tool_ok(lab, &format!("status {UNIT}"))?;
        assert!(text.contains("\nPaused\n  for "), "{text}");
        assert_eq!(tool_ok(lab, &format!("resume {UNIT}"))?.trim(), "web.service serves");
        let mut waits = waits;
        assert_eq!(waits.pid()?, second, "who connected in the pause");
        goes_on(lab, stats, answered)?;
        assert!(web.state()?.status.starts_with("generation 2 serves"), "{:?}", web.state()?);
        web.logged("generation 2 serves again: it was told to, after a pause of 2s")?;

        let slow = web.in_flight(12, Duration::from_millis(100))?;
        let refused = tool(lab, &format!("pause {UNIT} --timeout 300ms"))?;
        assert!(!refused.success() && refused.stderr.contains("it serves again"), "{refused:?}");
        assert!(refused.stderr.contains("GET /stream"), "{refused:?}");
        slow.finish()?;

        tool_ok(lab, &format!("pause {UNIT} --for 500ms --no-wait"))?;
        web.logged("serves again: nobody has ended its pause in time, after a pause of 500ms")?;
        goes_on(lab, stats, stats.summary().total.answered)
    })?;
    load::lost_nothing(&stats)?;
    ends_with_a_crash(&web)
}

fn ends_with_a_crash(web: &Web<'_>) -> Outcome {
    let lab = web.lab;
    tool_ok(lab, &format!("pause {UNIT} --no-wait"))?;
    let main = lab.main_pid(UNIT)?;
    let mut waits = web.connect()?;
    waits.send("/pid")?;
    lab.signal(main, "KILL")?;
    assert_ne!(waits.answered_pid()?, main);
    assert_eq!(status(lab)?["paused"], Value::Null);
    ends_with_a_stop(web, waits)
}

/// Who waits is answered before the service goes.
fn ends_with_a_stop(web: &Web<'_>, mut kept: Connection) -> Outcome {
    let lab = web.lab;
    tool_ok(lab, &format!("pause {UNIT}"))?;
    let main = lab.main_pid(UNIT)?;
    kept.send("/pid")?;
    lab.systemctl_ok(&["stop", UNIT])?;
    assert_eq!(kept.answered_pid()?, main);
    assert_eq!(web.state()?.result, "success");
    Ok(())
}

fn status(lab: &Container) -> Outcome<Value> {
    Ok(serde_json::from_str(&tool_ok(lab, &format!("status --json {UNIT}"))?)?)
}

/// What was answered before the pause has come to its clients; how much that is.
fn settled(lab: &Container, stats: &Stats) -> Outcome<u64> {
    let mut before = None;
    lab.wait_until(DEADLINE, "no more answers", || {
        let now = Some(stats.summary().total.answered);
        let same = before == now;
        before = now;
        Ok(now.filter(|_| same))
    })
}

fn goes_on(lab: &Container, stats: &Stats, answered: u64) -> Outcome {
    lab.wait_until(DEADLINE, "more answers", || Ok((stats.summary().total.answered > answered + 50).then_some(())))
}
