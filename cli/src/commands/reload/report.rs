//! What became of a reload, for programs.

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::safe;

/// Grows when a field changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

/// Filled while the reload goes on: also of one that fails, what is known of it is in here.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    format: u32,
    outcome: &'static str,
    /// Why it failed.
    reason: Option<String>,
    before: Generation,
    /// Who serves after it: of a reload that failed, the same as before.
    after: Generation,
    phases: Phases,
}

/// Who serves. What has no control interface tells no number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Generation {
    generation: Option<u64>,
    pid: Option<u64>,
}

impl Generation {
    pub(super) fn new(generation: &Value, pid: &Value) -> Self {
        Self { generation: generation.as_u64(), pid: pid.as_u64() }
    }

    pub(super) fn of_pid(pid: u32) -> Self {
        Self { generation: None, pid: (pid != 0).then(|| pid.into()) }
    }
}

/// One after the other, in milliseconds, as `handover timeline` has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Phases {
    spawn_ms: Option<u64>,
    ready_ms: Option<u64>,
    switch_ms: Option<u64>,
    handover_ms: Option<u64>,
    /// From the request until the outcome was known.
    reload_ms: Option<u64>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            format: FORMAT,
            outcome: "unknown",
            reason: None,
            before: Generation::default(),
            after: Generation::default(),
            phases: Phases::default(),
        }
    }
}

impl Report {
    /// Takes a step that the service tells.
    pub(super) fn step(&mut self, step: &Value) {
        let Some(at) = step["reload_ms"].as_u64() else { return };
        let phases = &mut self.phases;
        let ended = |before: &[Option<u64>]| Some(at.saturating_sub(before.iter().flatten().sum()));
        match step["what"].as_str() {
            Some("reloading") => {
                self.before = Generation::new(&step["generation"], &step["pid"]);
                *phases = Phases::default();
                return;
            }
            Some("started") => phases.spawn_ms = Some(at),
            Some("ready") => phases.ready_ms = ended(&[phases.spawn_ms]),
            Some("switched") => phases.switch_ms = ended(&[phases.spawn_ms, phases.ready_ms]),
            Some("handed_over") => {
                phases.handover_ms = ended(&[phases.spawn_ms, phases.ready_ms, phases.switch_ms]);
            }
            Some("in_place" | "rolled_back") => {}
            _ => return,
        }
        phases.reload_ms = Some(at);
    }

    pub(super) fn before(&mut self, generation: Generation) {
        self.before = generation;
    }

    /// It succeeded.
    pub(super) fn done(&mut self, outcome: &'static str, after: Generation) {
        (self.outcome, self.after) = (outcome, after);
    }

    /// It did not.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.outcome = failure.word();
        self.reason = Some(safe::terminal(&failure.to_string()));
        if failure.is_rolled_back() {
            self.after = self.before;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let mut report = Report::default();
        for (what, at) in [("reloading", 0), ("started", 3), ("ready", 40), ("switched", 41), ("handed_over", 45)] {
            report.step(&json!({"what": what, "generation": 1, "pid": 7, "next_pid": 9, "reload_ms": at}));
        }
        report.done("handed_over", Generation::new(&json!(2), &json!(9)));
        let phases = json!({"spawn_ms": 3, "ready_ms": 37, "switch_ms": 1, "handover_ms": 4, "reload_ms": 45});
        let told = serde_json::to_value(&report).unwrap();
        assert_eq!(told["phases"], phases);
        assert_eq!((&told["before"]["generation"], &told["after"]["generation"]), (&json!(1), &json!(2)));
    }

    #[test]
    fn who_served_serves_on_after_a_rollback() {
        let mut report = Report::default();
        report.step(&json!({"what": "reloading", "generation": 4, "pid": 7, "reload_ms": 0}));
        report.step(&json!({"what": "rolled_back", "generation": 4, "pid": 7, "reload_ms": 12}));
        report.failed(&Failure::rolled_back("generation 5 exited with status 7"));
        let told = serde_json::to_value(&report).unwrap();
        assert_eq!((&told["outcome"], &told["before"]), (&json!("rolled_back"), &told["after"]));
        assert_eq!((&told["phases"]["reload_ms"], &told["phases"]["ready_ms"]), (&json!(12), &Value::Null));
    }
}
