//! The result: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};

use super::versions::Version;
use handover_load::{Cause, Count, Kind, Summary};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    supervisor: String,
    seed: u64,
    /// What makes this a bad result; empty is good.
    pub(super) problems: Vec<String>,
    requests: Vec<KindRow>,
    total: Count,
    lost: Vec<LostRow>,
    lost_to_kill: Vec<LostRow>,
    pub(super) reloads: Vec<ReloadRow>,
    pub(super) kill: Option<KillRow>,
    /// How many generations were main, one after the other.
    pub(super) generations: usize,
}

#[derive(Debug, Serialize)]
struct KindRow {
    kind: Kind,
    clients: usize,
    #[serde(flatten)]
    count: Count,
}

#[derive(Debug, Serialize)]
struct LostRow {
    kind: Kind,
    cause: Cause,
    count: u64,
    example: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReloadRow {
    pub(super) n: u32,
    pub(super) version: Version,
    pub(super) main_before: u32,
    pub(super) main: u32,
    /// From the request to `READY=1`.
    #[serde(serialize_with = "as_seconds")]
    pub(super) ready: Duration,
    /// From the request to the first answer of the new main process.
    #[serde(serialize_with = "as_optional_seconds")]
    pub(super) answered: Option<Duration>,
    pub(super) status_text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct KillRow {
    pub(super) pid: u32,
    pub(super) main: u32,
    /// From the signal until it was seen dead: requests written in that time count as in flight.
    #[serde(serialize_with = "as_seconds")]
    pub(super) died: Duration,
    /// From the signal until the next main process was ready.
    #[serde(serialize_with = "as_seconds")]
    pub(super) ready: Duration,
}

impl Report {
    pub(super) fn new(supervisor: String, seed: u64) -> Self {
        Self {
            supervisor,
            seed,
            problems: Vec::new(),
            requests: Vec::new(),
            total: Count::default(),
            lost: Vec::new(),
            lost_to_kill: Vec::new(),
            reloads: Vec::new(),
            kill: None,
            generations: 0,
        }
    }

    /// Takes over what the clients counted; `clients` tells how many there were of a kind.
    pub(super) fn count(&mut self, summary: &Summary, clients: impl Fn(Kind) -> usize) {
        self.requests =
            summary.counts.iter().map(|(&kind, &count)| KindRow { kind, clients: clients(kind), count }).collect();
        self.total = summary.total;
        let row = |(kind, cause): (Kind, Cause), count, example| LostRow { kind, cause, count, example };
        self.lost =
            summary.lost.iter().map(|(&key, (count, example))| row(key, *count, Some(example.clone()))).collect();
        self.lost_to_kill = summary.lost_to_kill.iter().map(|(&key, &count)| row(key, count, None)).collect();
        if self.total.lost > 0 {
            self.problems.insert(0, format!("{} requests were lost", self.total.lost));
        }
    }

    pub(super) fn json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing here that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_else(|e| format!("{{\"problems\":[\"{e}\"]}}"))
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.requests_table());
        for row in &self.lost {
            let example = row.example.as_deref().unwrap_or_default();
            let _ = writeln!(text, "lost: {} × {}: {} ({example})", row.count, row.kind, row.cause);
        }
        if let Some(kill) = &self.kill {
            let _ = writeln!(text, "SIGKILL of main process {}: {}", kill.pid, self.killed_text());
        }
        let _ = writeln!(text, "\n{}", self.reloads_table());
        let rolled_back = self.reloads.iter().filter(|row| row.version != Version::Good);
        for row in rolled_back {
            let what = if row.version == Version::Exits { "exits at start" } else { "hangs" };
            let _ = writeln!(text, "reload {} to a version that {what}: \"{}\"", row.n, row.status_text.escape_debug());
        }
        let _ = writeln!(text, "{} generations were main, one after the other; seed {}\n", self.generations, self.seed);
        for problem in &self.problems {
            let _ = writeln!(text, "problem: {problem}");
        }
        let verdict = match self.problems.len() {
            0 => "No client noticed a reload.".into(),
            n => format!("{n} {}: this is not how it should be.", if n == 1 { "problem" } else { "problems" }),
        };
        text + &verdict
    }

    fn requests_table(&self) -> Table {
        let mut table =
            table(&["requests", "clients", "answered", "lost", "in flight at the kill", "closed idle", "longest wait"]);
        let mut row = |name: String, clients: usize, count: &Count| {
            let clients = if clients == 0 { String::new() } else { clients.to_string() };
            let numbers = [count.answered, count.lost, count.lost_to_kill, count.idle_closed].map(|n| n.to_string());
            table.add_row([vec![name, clients], numbers.to_vec(), vec![milliseconds(count.longest)]].concat());
        };
        for kind in &self.requests {
            row(kind.kind.to_string(), kind.clients, &kind.count);
        }
        row("all".into(), self.requests.iter().map(|row| row.clients).sum(), &self.total);
        right(&mut table);
        table
    }

    fn killed_text(&self) -> String {
        let Some(kill) = &self.kill else { return String::new() };
        let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
        for row in &self.lost_to_kill {
            *causes.entry(row.cause).or_default() += row.count;
        }
        let causes: Vec<_> = causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        let in_flight = match causes.is_empty() {
            true => "nothing was in flight in it".into(),
            false => format!("in flight in it: {}", causes.join(", ")),
        };
        let (died, ready, wait) = (kill.died, kill.ready, self.total.longest_over_kill);
        format!(
            "dead after {}, {in_flight}; pid {} ready after {}; the longest wait over it {}",
            milliseconds(died),
            kill.main,
            milliseconds(ready),
            milliseconds(wait)
        )
    }

    fn reloads_table(&self) -> Table {
        let mut table = table(&["reloads", "count", "median", "max"]);
        let mut row = |name: &str, mut times: Vec<Duration>| {
            times.sort_unstable();
            if let Some(max) = times.last() {
                table.add_row([
                    name.to_owned(),
                    times.len().to_string(),
                    milliseconds(times[times.len() / 2]),
                    milliseconds(*max),
                ]);
            }
        };
        let good = || self.reloads.iter().filter(|row| row.version == Version::Good);
        row("request to READY=1", good().map(|row| row.ready).collect());
        row("request to the new process's first answer", good().filter_map(|row| row.answered).collect());
        let bad =
            |version| self.reloads.iter().filter(move |row| row.version == version).map(|row| row.ready).collect();
        row("rolled back, the version exits", bad(Version::Exits));
        row("rolled back, the version hangs", bad(Version::Hangs));
        right(&mut table);
        table
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// Numbers stand right.
fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn as_optional_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}
