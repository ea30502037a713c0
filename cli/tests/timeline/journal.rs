//! Journals, written as `journalctl -o json` prints them.

use std::fmt::Write as _;

use handover::service::events;
use serde_json::{Map, Value};

pub(crate) const UNIT: &str = "web.service";
pub(crate) const RELOADING: &str = "d34d037fff1847e6ae669a370e694725";
pub(crate) const RELOADED: &str = "7b05ebc668384222baa8881179cfda54";
pub(crate) const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
pub(crate) const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
pub(crate) const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";

/// 2026-11-21 10:00:00 UTC.
pub(crate) const EPOCH_US: u64 = 1_795_255_200_000_000;

/// Grows in time.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) text: String,
    pub(crate) now_us: u64,
    pub(crate) unit: String,
}

/// One reload that succeeds, in milliseconds since its request; the drain since its own beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) spawn: u64,
    pub(crate) ready: u64,
    pub(crate) switch: u64,
    pub(crate) handover: u64,
    pub(crate) drain: u64,
}

impl Times {
    pub(crate) const USUAL: Self = Self { spawn: 6, ready: 48, switch: 52, handover: 58, drain: 5_010 };
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { text: String::new(), now_us: EPOCH_US, unit: UNIT.to_owned() }
    }

    pub(crate) fn wait_ms(&mut self, ms: u64) -> &mut Self {
        self.now_us += ms * 1000;
        self
    }

    fn entry(&mut self, at_us: u64, id: &str, fields: &[(&str, &str)]) {
        let mut entry = Map::new();
        let mut put = |name: &str, value: &str| entry.insert(name.to_owned(), Value::String(value.to_owned()));
        put("__REALTIME_TIMESTAMP", &at_us.to_string());
        put("MESSAGE_ID", id);
        for (name, value) in fields {
            put(name, value);
        }
        let _ = writeln!(self.text, "{}", Value::Object(entry));
    }

    /// Of the service manager.
    pub(crate) fn systemd(&mut self, id: &str, fields: &[(&str, &str)]) -> &mut Self {
        let unit = self.unit.clone();
        let own = [("UNIT", unit.as_str()), ("_PID", "1"), ("_SYSTEMD_UNIT", "init.scope")];
        self.entry(self.now_us, id, &[&own, fields].concat());
        self
    }

    /// Of a process of the service, so long after now.
    pub(crate) fn service(&mut self, after_ms: u64, id: &str, fields: &[(&str, &str)]) -> &mut Self {
        let unit = self.unit.clone();
        self.entry(self.now_us + after_ms * 1000, id, &[&[("_SYSTEMD_UNIT", unit.as_str())], fields].concat());
        self
    }

    /// From the generation to the next one, its drain included; time goes on by the reload alone.
    pub(crate) fn reload(&mut self, generation: u64, times: Times) -> &mut Self {
        let id = format!("{generation:032x}");
        let number = |n: u64| n.to_string();
        let (old, new) = (number(1000 + generation), number(1001 + generation));
        let (this, next) = (number(generation), number(generation + 1));
        let by_old: Vec<(&str, &str)> =
            vec![("HANDOVER_ID", &id), ("GENERATION", &this), ("OLD_PID", &old), ("NEW_PID", &new)];
        let by_new: Vec<(&str, &str)> =
            vec![("HANDOVER_ID", &id), ("GENERATION", &next), ("OLD_PID", &old), ("NEW_PID", &new)];
        let with = |fields: &[(&'static str, &str)]| -> Vec<(String, String)> {
            fields.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let steps = [
            (1, events::RELOAD_STARTED, with(&[])),
            (times.spawn, events::SPAWNED, with(&[("SPAWN_MS", &number(times.spawn))])),
            (times.ready, events::READY, with(&[("READY_MS", &number(times.ready))])),
            (times.switch, events::SWITCHED, with(&[("SWITCH_MS", &number(times.switch))])),
            (times.handover, events::HANDED_OVER, with(&[("HANDOVER_MS", &number(times.handover))])),
            (times.handover, events::DRAIN_STARTED, with(&[("CONNECTIONS", "12")])),
            (times.handover + times.drain, events::DRAINED, with(&[("DRAIN_MS", &number(times.drain))])),
        ];
        for (after, event, more) in &steps {
            let more: Vec<_> = more.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            // As the old generation of a reload that begins has no next one yet.
            let known = if *event == events::RELOAD_STARTED { &by_old[..3] } else { &by_old[..] };
            self.service(*after, event, &[known, &more].concat());
            if *event == events::HANDED_OVER {
                self.service(*after, events::MAIN, &by_new);
            }
        }
        self.wait_ms(times.handover)
    }

    /// The one that was told last moves its connections, so long after its handover.
    pub(crate) fn moved(&mut self, generation: u64, (moved, stayed): (u64, u64), after_ms: u64) -> &mut Self {
        let id = format!("{generation:032x}");
        let [this, old, new] = [generation, 1000 + generation, 1001 + generation].map(|n| n.to_string());
        let [moved, stayed, ms] = [moved, stayed, after_ms].map(|n| n.to_string());
        let own = [("HANDOVER_ID", id.as_str()), ("GENERATION", &this), ("OLD_PID", &old), ("NEW_PID", &new)];
        let counts = [("MOVED", moved.as_str()), ("STAYED", &stayed), ("MOVE_MS", &ms)];
        self.service(after_ms, events::MOVED, &[&own[..], &counts].concat());
        self
    }

    /// The next generation of this one fails.
    pub(crate) fn rolled_back(&mut self, generation: u64, after_ms: u64, reason: &str) -> &mut Self {
        let id = format!("{generation:030x}ff");
        let (this, old, ms) = (generation.to_string(), (1000 + generation).to_string(), after_ms.to_string());
        let own: [(&str, &str); 3] = [("HANDOVER_ID", &id), ("GENERATION", &this), ("OLD_PID", &old)];
        self.service(1, events::RELOAD_STARTED, &own);
        self.service(5, events::SPAWNED, &[&own[..], &[("SPAWN_MS", "5"), ("NEW_PID", "4000")]].concat());
        let failed = [("RELOAD_MS", ms.as_str()), ("REASON", reason), ("MESSAGE", "reload failed")];
        self.service(after_ms, events::RELOAD_FAILED, &[&own[..], &failed].concat());
        self.wait_ms(after_ms)
    }

    /// Around it, as `systemctl reload` has it.
    pub(crate) fn job(&mut self, id: u64, result: &str, during: impl FnOnce(&mut Self)) -> &mut Self {
        let id = id.to_string();
        self.systemd(RELOADING, &[("JOB_ID", &id), ("JOB_TYPE", "reload")]).wait_ms(3);
        during(self);
        self.wait_ms(1).systemd(RELOADED, &[("JOB_ID", &id), ("JOB_TYPE", "reload"), ("JOB_RESULT", result)])
    }

    /// 20 reloads, the eighth of them rolled back.
    pub(crate) fn twenty() -> Self {
        let mut journal = Self::new();
        journal.systemd(STARTED, &[("JOB_RESULT", "done"), ("MESSAGE", "Started web.service")]);
        let mut generation = 1;
        for n in 1..=20 {
            journal.wait_ms(7_300);
            if n == 8 {
                journal.job(n, "done", |j| {
                    j.rolled_back(generation, 23, "exited with status 7");
                });
                continue;
            }
            let late = n * 37 % 29;
            let times = Times {
                spawn: 5 + late % 4,
                ready: 40 + late,
                switch: 43 + late,
                handover: 47 + late + late % 5,
                drain: 5_000 + late,
            };
            journal.job(n, "done", |j| {
                j.reload(generation, times);
            });
            generation += 1;
        }
        journal.sorted()
    }

    /// As the journal has them: by time.
    pub(crate) fn sorted(&self) -> Self {
        let time = |line: &str| -> u64 {
            let entry: Value = serde_json::from_str(line).unwrap();
            entry["__REALTIME_TIMESTAMP"].as_str().unwrap().parse().unwrap()
        };
        let mut lines: Vec<_> = self.text.lines().collect();
        lines.sort_by_key(|line| time(line));
        Self { text: lines.into_iter().map(|line| format!("{line}\n")).collect(), ..self.clone() }
    }
}
