//! The result, as `--json` has it. The shape is an interface: fields are added, none is changed or taken away while `format` is 1.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::prober::Teller;
use super::usage::Usage;
use crate::commands::timeline::Brief;
use handover_load::{Cause, Count, Percentiles};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) format: u32,
    pub(super) handover: &'static str,
    pub(super) verdict: Verdict,
    /// Why it could not be measured, or what went wrong besides lost requests.
    pub(super) problems: Vec<String>,
    /// What the figures lack, and why.
    pub(super) notes: Vec<String>,
    pub(super) target: TargetRow,
    pub(super) seed: u64,
    pub(super) duration_s: f64,
    pub(super) window_ms: f64,
    pub(super) generation_told_by: Teller,
    pub(super) total: KindRow,
    pub(super) kinds: Vec<KindRow>,
    pub(super) losses: Vec<LossRow>,
    /// Outside of all windows.
    pub(super) quiet: Times,
    pub(super) prober: ProberRow,
    pub(super) summary: Summary,
    pub(super) reloads: Vec<ReloadRow>,
    pub(super) series: Series,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    NothingLost,
    Lost,
    NotMeasured,
}

#[derive(Debug, Serialize)]
pub(super) struct TargetRow {
    pub(super) url: String,
    pub(super) path: String,
    pub(super) protocol: &'static str,
    pub(super) reload: String,
}

/// Counts of one kind of client, or of all.
#[derive(Debug, Serialize)]
pub(super) struct KindRow {
    pub(super) kind: &'static str,
    pub(super) clients: usize,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) handed_back: u64,
    pub(super) lost: u64,
    /// Every cause, also those of 0.
    pub(super) lost_by: BTreeMap<&'static str, u64>,
    pub(super) closes_announced: u64,
    pub(super) closes_unannounced: u64,
    /// From the beginning of a request, connecting included, to the end of its answer, but for the time that it takes by its nature.
    pub(super) wait_ms: Option<Times>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// One cause in one kind, with one example.
#[derive(Debug, Serialize)]
pub(super) struct LossRow {
    pub(super) kind: &'static str,
    pub(super) cause: &'static str,
    pub(super) count: u64,
    pub(super) example: String,
    /// Since the beginning of the load.
    pub(super) first_at_s: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ProberRow {
    /// How far apart its probes began.
    pub(super) resolution_ms: Option<Times>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) reloads: usize,
    pub(super) first_new_ms: Option<Spread>,
    pub(super) asked_ms: Option<Spread>,
    pub(super) longest_gap_ms: Option<Spread>,
    pub(super) gap_before_ms: Option<Spread>,
    pub(super) lost_per_reload: Option<Spread>,
}

/// Of one number per reload. The p99 is the highest where there are fewer than 100.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ReloadRow {
    pub(super) n: u32,
    /// Since the beginning of the load.
    pub(super) at_s: f64,
    /// How long the command took that asked for it; a signal takes none.
    pub(super) asked_ms: f64,
    pub(super) failed: Option<String>,
    /// From asking for the reload to the first whole answer of a new process to the prober. None was seen: null.
    pub(super) first_new_ms: Option<f64>,
    /// To the last answer of an old one on a new connection; below 0: it came before.
    pub(super) last_old_ms: Option<f64>,
    /// How far apart the prober's probes began at most, until the first answer of the new process.
    pub(super) resolution_ms: f64,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
    /// Afterwards: what systemd, --pid or --pidfile say.
    pub(super) main_pid: Option<u32>,
    /// Requests lost between this reload and the next.
    pub(super) lost: u64,
    /// Between two answers to the prober.
    pub(super) longest_gap_ms: f64,
    pub(super) gap_before_ms: f64,
    pub(super) before: Option<WindowRow>,
    pub(super) within: Option<WindowRow>,
    /// Answers per second within over before.
    pub(super) throughput_ratio: Option<f64>,
    pub(super) usage: Option<UsageRow>,
    /// What the journal says of it, with --unit.
    pub(super) journal: Option<Brief>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct WindowRow {
    pub(super) answers_per_s: f64,
    /// Of keep-alive and one-request-per-connection clients.
    pub(super) wait_ms: Times,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct UsageRow {
    pub(super) before: Usage,
    /// The highest of each until the next reload.
    pub(super) peak: Usage,
    /// The new process just after its first answer.
    pub(super) new: Option<Usage>,
    /// Shared pages counted once; null where it would stall the server or may not be read.
    pub(super) pss_before: Option<u64>,
    pub(super) pss_at_first_new: Option<u64>,
}

/// What the plots show.
#[derive(Debug, Default, Serialize)]
pub(super) struct Series {
    pub(super) step_ms: f64,
    /// Answers in each step by whom; "unknown" where that is not known.
    pub(super) answers: BTreeMap<String, Vec<u64>>,
    pub(super) lost: Vec<u64>,
    pub(super) p50_ms: Vec<f64>,
    pub(super) p99_ms: Vec<f64>,
    pub(super) max_ms: Vec<f64>,
    pub(super) processes: Vec<ProcessPoint>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessPoint {
    pub(super) at_s: f64,
    pub(super) fds: BTreeMap<u32, u64>,
    pub(super) rss: BTreeMap<u32, u64>,
}

impl KindRow {
    pub(super) fn new(kind: &'static str, clients: usize, count: &Count, lost: &BTreeMap<Cause, u64>) -> Self {
        Self {
            kind,
            clients,
            sent: count.sent,
            answered: count.answered,
            handed_back: count.handed_back,
            lost: count.lost,
            lost_by: Cause::ALL.iter().map(|c| (c.slug(), lost.get(c).copied().unwrap_or(0))).collect(),
            closes_announced: count.announced,
            closes_unannounced: count.idle_closed,
            wait_ms: None,
        }
    }
}

impl From<Percentiles> for Times {
    fn from(p: Percentiles) -> Self {
        Self { count: p.count, p50: ms(p.p50), p99: ms(p.p99), p999: ms(p.p999), max: ms(p.max) }
    }
}

impl Spread {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        // The smallest that 99 % do not exceed.
        let p99 = values[(values.len() * 99).div_ceil(100) - 1];
        Some(Self { min, median, p99, max })
    }
}

impl Report {
    pub(super) fn json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing here that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_else(|e| format!("{{\"problems\":[\"{e}\"]}}"))
    }
}

/// Microseconds are the last digits.
pub(super) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.p99, spread.max), (1.0, 2.5, 10.0, 10.0));
        let spread = Spread::of((1..=200).map(f64::from)).unwrap();
        assert_eq!((spread.median, spread.p99, spread.max), (100.5, 198.0, 200.0));
        assert!(Spread::of([]).is_none());
    }
}
