//! The result: the figures of the run, and what the script did to the service.

use serde::Serialize;

use super::supervisor::Reloaded;
use super::versions::Version;
use crate::commands::prove::{Report as Measured, closing, figures, json};
use crate::safe::terminal;
use crate::terminal::{Ink, Look};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    measured: Measured,
    demo: Demo,
}

#[derive(Debug, Serialize)]
struct Demo {
    supervisor: String,
    /// How many generations were main, one after the other.
    generations: usize,
    kill: Option<KillRow>,
    reloads: Vec<StepRow>,
}

/// What the script meant a reload to do, and what the supervisor heard of it.
#[derive(Debug, Serialize)]
pub(super) struct StepRow {
    pub(super) n: u32,
    pub(super) version: Version,
    #[serde(flatten)]
    pub(super) reloaded: Reloaded,
}

#[derive(Debug, Serialize)]
pub(super) struct KillRow {
    pub(super) pid: u32,
    pub(super) main: u32,
    /// From the signal until it was seen dead: requests written in that time count as in flight.
    pub(super) died_ms: f64,
    /// From the signal until the next main process was ready.
    pub(super) ready_ms: f64,
}

impl Report {
    pub(super) fn new(supervisor: String, measured: Measured, reloads: Vec<StepRow>, kill: Option<KillRow>) -> Self {
        let switched = reloads.iter().filter(|row| row.reloaded.has_switched()).count();
        let generations = 1 + usize::from(kill.is_some()) + switched;
        Self { measured, demo: Demo { supervisor, generations, kill, reloads } }
    }

    /// The pid that was killed on purpose.
    pub(super) fn killed(&self) -> Option<u32> {
        self.demo.kill.as_ref().map(|kill| kill.pid)
    }

    pub(super) fn add(&mut self, problems: Vec<String>) {
        self.measured.add(problems);
    }

    pub(super) fn is_good(&self) -> bool {
        self.measured.is_good()
    }

    pub(super) fn json(&self) -> String {
        json(self)
    }

    pub(super) fn text(&self, look: Look) -> String {
        let mut text = figures(&self.measured, look);
        let mut line = |words: &str| text = format!("{text}{}\n", look.line(words));
        if let Some(kill) = &self.demo.kill {
            line(&self.killed_text(kill));
        }
        for row in self.demo.reloads.iter().filter(|row| row.version != Version::Good) {
            let what = if row.version == Version::Exits { "exits at start" } else { "hangs" };
            let (ms, said) = (row.reloaded.ready_ms, terminal(&row.reloaded.status_text));
            line(&format!("reload {} to a version that {what}: rolled back after {ms:.1} ms: \"{said}\"", row.n));
        }
        line(&format!("{} generations were main, one after the other", self.demo.generations));
        let verdict = match self.measured.problems.len() + usize::from(self.measured.total.lost > 0) {
            0 => (Ink::Good, "No client noticed a reload.".to_owned()),
            1 => (Ink::Bad, "1 problem: this is not how it should be.".to_owned()),
            n => (Ink::Bad, format!("{n} problems: this is not how it should be.")),
        };
        text + "\n" + &closing(&self.measured, look, verdict)
    }

    fn killed_text(&self, KillRow { pid, main, died_ms, ready_ms }: &KillRow) -> String {
        let total = &self.measured.total;
        let in_flight = match total.lost_to_kill {
            0 => "nothing was in flight in it".to_owned(),
            n => format!("{n} requests were in flight in it"),
        };
        let wait = total.wait_over_kill_ms.map(|ms| format!("; the longest wait over it {ms:.1} ms"));
        format!(
            "SIGKILL of main process {pid}: dead after {died_ms:.1} ms, {in_flight}; pid {main} ready after \
             {ready_ms:.1} ms{}",
            wait.unwrap_or_default()
        )
    }
}
