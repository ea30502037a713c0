//! Every state × every event, written out, and compared with the published table.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Config, Event, LifeState, Machine, ReloadPhase};

const PUBLISHED: &str = include_str!("../docs/lifecycle.md");
const MARK: &str =
    "<!-- the table below is checked against the code: HANDOVER_BLESS=1 cargo test --lib lifecycle writes it -->\n";

pub(super) fn config() -> Config {
    Config {
        ready_timeout: Duration::from_secs(30),
        switch_timeout: Duration::from_secs(5),
        probation: Duration::ZERO,
        handover_timeout: Duration::from_secs(10),
        standby_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(30),
        hurry_timeout: Duration::from_millis(500),
        end_timeout: Duration::from_secs(5),
        linger: Duration::from_secs(5),
        stop_linger: Duration::from_secs(1),
        managed: true,
        successor: false,
    }
}

fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("started", Event::Started),
        ("reload", Event::Reload(2)),
        ("stop", Event::Stop),
        ("stop that is a restart", Event::Restart),
        ("settled", Event::Settled),
        ("connections kept", Event::Kept),
        ("quit", Event::Quit),
        ("next: ready", Event::NextReady),
        ("next: switched", Event::NextSwitched),
        ("next: failed or gone", Event::NextFailed("why".into())),
        ("reloaded in place", Event::ReloadedInPlace),
        ("gate shut", Event::GateShut),
        ("barrier", Event::Barrier),
        ("told: switch", Event::Switch),
        ("told: main", Event::Main { reload: false, stop: false }),
        ("told: main, reload once more", Event::Main { reload: true, stop: false }),
        ("told: main, stop", Event::Main { reload: false, stop: true }),
        ("told: not you", Event::Dismissed),
        ("predecessor gone", Event::PredecessorGone),
        ("successor gone", Event::SuccessorGone),
        ("told: hurry", Event::Hurry),
        ("drained", Event::Drained),
    ]
}

/// How to get a machine into each state, by the events that lead there.
fn states() -> Vec<(&'static str, Config, Vec<Event>)> {
    let first = config();
    let next = Config { successor: true, ..config() };
    let alone = Config { managed: false, ..next.clone() };
    let cautious = Config { probation: Duration::from_secs(10), ..config() };
    let main = Event::Main { reload: false, stop: false };
    let to_spawned = vec![Event::Started, Event::Reload(1)];
    let to_ready = [to_spawned.clone(), vec![Event::NextReady]].concat();
    let to_switched = [to_ready.clone(), vec![Event::NextSwitched]].concat();
    let to_probation = [to_switched.clone(), vec![Event::GateShut]].concat();
    let to_draining = [to_probation.clone(), vec![Event::Barrier]].concat();
    vec![
        ("starting, the first", first.clone(), vec![]),
        ("starting, a successor", next.clone(), vec![]),
        ("starting, a successor without a manager", alone.clone(), vec![]),
        ("standby", next.clone(), vec![Event::Started]),
        ("standby without a manager", alone, vec![Event::Started]),
        ("trial", next.clone(), vec![Event::Started, Event::Switch]),
        ("serving", next.clone(), vec![Event::Started, Event::Switch, main]),
        ("reloading: spawned", first.clone(), to_spawned),
        ("reloading: ready", first.clone(), to_ready),
        ("reloading: switched", first.clone(), to_switched.clone()),
        ("reloading: switched, with a probation", cautious.clone(), to_switched),
        ("reloading: probation", cautious, to_probation.clone()),
        ("handing over", first.clone(), to_probation),
        ("draining", first.clone(), to_draining.clone()),
        ("draining, told to hurry", first.clone(), [to_draining, vec![Event::Stop]].concat()),
        ("draining, stopped on trial", next, vec![Event::Started, Event::Switch, Event::Stop]),
        ("leaving", first.clone(), vec![Event::Started, Event::Restart]),
        ("stopping", first.clone(), vec![Event::Started, Event::Stop]),
        ("exited", first, vec![Event::Started, Event::Stop, Event::Drained]),
    ]
}

/// With the phase of a reload.
fn name(state: LifeState) -> &'static str {
    match state {
        LifeState::Reloading(ReloadPhase::Spawned) => "reloading: spawned",
        LifeState::Reloading(ReloadPhase::Ready) => "reloading: ready",
        LifeState::Reloading(ReloadPhase::Switched) => "reloading: switched",
        LifeState::Reloading(ReloadPhase::Probation) => "reloading: probation",
        other => other.name(),
    }
}

fn put(config: &Config, path: &[Event], now: Instant) -> Machine {
    let mut machine = Machine::new(config.clone());
    for event in path {
        let _actions = machine.handle(now, event.clone());
    }
    machine
}

fn render() -> String {
    let now = Instant::now();
    let mut text = String::new();
    for (title, config, path) in states() {
        let shown = name(put(&config, &path, now).state());
        assert!(title.starts_with(shown), "the path to {title:?} leads to {shown:?}");
        let _ = writeln!(text, "\n### {title}\n\n| event | becomes | does |\n|---|---|---|");
        let mut ignored = Vec::new();
        let timeout = put(&config, &path, now).deadline().map(|at| at - now);
        for (event_name, event) in events() {
            let mut machine = put(&config, &path, now);
            let (before, deadline) = (machine.state(), machine.deadline());
            let actions = machine.handle(now, event.clone());
            let quiet = actions.is_empty() && machine.state() == before && machine.deadline() == deadline;
            match (quiet, &event) {
                (true, Event::Reload(_)) => {
                    _ = writeln!(text, "| {event_name} | {} | kept: one more reload follows |", name(before))
                }
                (true, Event::Stop | Event::Restart) => {
                    _ = writeln!(text, "| {event_name} | {} | kept: passed on with the main role |", name(before))
                }
                (true, Event::PredecessorGone) if before == LifeState::Starting => {
                    _ = writeln!(text, "| {event_name} | {} | kept: starts as if it were the first |", name(before));
                }
                (true, _) => ignored.push(event_name),
                (false, _) => _ = writeln!(text, "| {event_name} | {} | {} |", name(machine.state()), list(&actions)),
            }
        }
        if let Some(after) = timeout {
            let mut machine = put(&config, &path, now);
            let actions = machine.timeout(now + after);
            let _ = writeln!(text, "| after {after:?} | {} | {} |", name(machine.state()), list(&actions));
        }
        let _ = writeln!(text, "\nNothing, on purpose: {}.", ignored.join(", "));
    }
    text
}

fn list(actions: &[super::Action]) -> String {
    let shown: Vec<String> = actions.iter().map(|a| format!("`{a:?}`").replace('|', "\\|")).collect();
    shown.join(", ")
}

#[test]
fn published_table_is_what_the_code_does() {
    let (head, table) = PUBLISHED.split_once(MARK).expect("docs/lifecycle.md has the mark");
    let now = render();
    if std::env::var_os("HANDOVER_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/lifecycle.md");
        std::fs::write(path, format!("{head}{MARK}{now}")).expect("docs/lifecycle.md can be written");
        return;
    }
    assert!(table == now, "docs/lifecycle.md is stale: HANDOVER_BLESS=1 cargo test --lib lifecycle");
}
