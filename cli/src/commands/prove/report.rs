//! The result, as `--json` has it. The shape is an interface: fields are added, none is changed or
//! taken away while `format` is 1.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::commands::timeline::Brief;
use handover::supervise::proc::Stat;
use handover_load::{Percentiles, Turnover};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) handover: &'static str,
    pub(crate) verdict: Verdict,
    /// Why it could not be measured, or what went wrong besides lost requests.
    pub(crate) problems: Vec<String>,
    /// What the figures lack, and why.
    pub(crate) notes: Vec<String>,
    pub(crate) target: TargetRow,
    pub(crate) seed: u64,
    pub(crate) duration_s: f64,
    pub(crate) window_ms: f64,
    pub(crate) generation_told_by: Teller,
    pub(crate) total: KindRow,
    pub(crate) kinds: Vec<KindRow>,
    pub(crate) losses: Vec<LossRow>,
    /// Outside of all windows.
    pub(crate) quiet: Times,
    pub(crate) prober: ProberRow,
    pub(crate) summary: Summary,
    pub(crate) reloads: Vec<ReloadRow>,
    pub(crate) series: Series,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    NothingLost,
    Lost,
    NotMeasured,
}

/// How it is known who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Teller {
    /// A response header.
    Header,
    /// A part of the body.
    Body,
    /// The process that holds the server's end of the connection.
    Process,
    Nothing,
}

#[derive(Debug, Serialize)]
pub(crate) struct TargetRow {
    pub(crate) url: String,
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) reload: String,
}

/// Counts of one kind of client, or of all.
#[derive(Debug, Serialize)]
pub(crate) struct KindRow {
    pub(crate) kind: &'static str,
    pub(crate) clients: usize,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) handed_back: u64,
    pub(crate) lost: u64,
    /// In flight in a process that was killed on purpose, as the demo does: no loss.
    pub(crate) lost_to_kill: u64,
    /// Every cause, also those of 0.
    pub(crate) lost_by: BTreeMap<&'static str, u64>,
    pub(crate) closes_announced: u64,
    pub(crate) closes_unannounced: u64,
    #[serde(flatten)]
    pub(crate) turnover: TurnoverRow,
    /// Connections of the same clients that ended with a process that was killed on purpose, as the
    /// demo does, or later, up to the next reload.
    pub(crate) closed_by_kill: u64,
    /// From the beginning of a request, connecting included, to the end of its answer, but for the
    /// time that it takes by its nature.
    pub(crate) wait_ms: Option<Times>,
    /// The longest of those that met a kill, which are not among the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_over_kill_ms: Option<f64>,
}

/// Connections of clients that would have gone on with theirs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct TurnoverRow {
    /// By the server, in whichever way.
    pub(crate) closed: u64,
    /// Those of them that it had not announced: idle, or with a request that was lost with it.
    pub(crate) closed_unannounced: u64,
    /// By the clients, in the place of such a one.
    pub(crate) opened_anew: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// One cause in one kind, with one example.
#[derive(Debug, Serialize)]
pub(crate) struct LossRow {
    pub(crate) kind: &'static str,
    pub(crate) cause: &'static str,
    pub(crate) count: u64,
    pub(crate) example: String,
    /// Since the beginning of the load.
    pub(crate) first_at_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProberRow {
    /// How far apart its probes began.
    pub(crate) resolution_ms: Option<Times>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) reloads: usize,
    pub(crate) first_new_ms: Option<Spread>,
    pub(crate) asked_ms: Option<Spread>,
    pub(crate) longest_gap_ms: Option<Spread>,
    pub(crate) gap_before_ms: Option<Spread>,
    pub(crate) lost_per_reload: Option<Spread>,
    pub(crate) closed_per_reload: Option<Spread>,
    pub(crate) opened_anew_per_reload: Option<Spread>,
    /// Of the old processes that were seen to have ended before the load did.
    pub(crate) old_gone_ms: Option<Spread>,
    /// The others: they were replaced, and still there when the load ended.
    pub(crate) old_still_there: usize,
}

/// Of one number per reload. The p99 is the highest where there are fewer than 100.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// One reload. The run fills in what it sees until the window is over and somebody new has
/// answered; the rest is known at its end.
#[derive(Debug, Serialize)]
pub(crate) struct ReloadRow {
    pub(crate) n: u32,
    #[serde(skip)]
    pub(super) at: Instant,
    /// The same moment, by the clock that the journal goes by.
    #[serde(skip)]
    pub(super) wall: SystemTime,
    /// It failed as it was meant to: nobody new is to answer.
    #[serde(skip)]
    pub(super) refused: bool,
    /// How long somebody new was waited for in vain; of a reload that nobody need answer, not.
    #[serde(skip)]
    pub(super) unseen: Option<Unseen>,
    /// Since the beginning of the load.
    pub(crate) at_s: f64,
    /// How long the command took that asked for it; a signal takes none.
    pub(crate) asked_ms: f64,
    pub(crate) failed: Option<String>,
    /// From asking for the reload to the first whole answer of a new process to the prober. None
    /// was seen: null.
    pub(crate) first_new_ms: Option<f64>,
    /// To the last answer of an old one on a new connection; below 0: it came before.
    pub(crate) last_old_ms: Option<f64>,
    /// How far apart the prober's probes began at most, until the first answer of the new process.
    pub(crate) resolution_ms: f64,
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
    /// Afterwards: what systemd, --pid or --pidfile say.
    pub(crate) main_pid: Option<u32>,
    /// Requests lost between this reload and the next.
    pub(crate) lost: u64,
    /// What was closed between this reload and the next, and opened anew because of it, then or
    /// later.
    #[serde(flatten)]
    pub(crate) turnover: TurnoverRow,
    /// The process that is to be replaced.
    #[serde(skip)]
    pub(super) leaving: Option<Leaving>,
    /// From asking for the reload until the old process was gone. It is not known which one that
    /// is, or it was still there when the load ended: null.
    pub(crate) old_gone_ms: Option<f64>,
    /// Between two answers to the prober.
    pub(crate) longest_gap_ms: f64,
    pub(crate) gap_before_ms: f64,
    pub(crate) before: Option<WindowRow>,
    pub(crate) within: Option<WindowRow>,
    /// Answers per second within over before.
    pub(crate) throughput_ratio: Option<f64>,
    pub(crate) usage: Option<UsageRow>,
    /// What the journal says of it, with --unit.
    pub(crate) journal: Option<Brief>,
}

/// The old process of a reload, and how it is known to be that.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leaving {
    /// It answered the prober before the reload.
    Answered(Stat),
    /// It was the main process before the reload.
    WasMain(Stat),
}

/// Nobody new answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unseen {
    pub(super) waited: Duration,
    /// No process had been started, either.
    pub(super) nobody: bool,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct WindowRow {
    pub(crate) answers_per_s: f64,
    /// Of keep-alive and one-request-per-connection clients.
    pub(crate) wait_ms: Times,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct UsageRow {
    pub(crate) before: Usage,
    /// The highest of each until the next reload.
    pub(crate) peak: Usage,
    /// The new process just after its first answer.
    pub(crate) new: Option<Usage>,
    /// Shared pages counted once; null where it would stall the server or may not be read.
    pub(crate) pss_before: Option<u64>,
    pub(crate) pss_at_first_new: Option<u64>,
}

/// Sums over processes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) processes: u64,
    /// Bytes; pages that several processes share count in each.
    pub(crate) rss: u64,
    pub(crate) fds: u64,
}

/// What the plots show.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Series {
    pub(crate) step_ms: f64,
    /// Answers in each step by whom; "unknown" where that is not known.
    pub(crate) answers: BTreeMap<String, Vec<u64>>,
    pub(crate) lost: Vec<u64>,
    pub(crate) p50_ms: Vec<f64>,
    pub(crate) p99_ms: Vec<f64>,
    pub(crate) max_ms: Vec<f64>,
    pub(crate) processes: Vec<ProcessPoint>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProcessPoint {
    pub(crate) at_s: f64,
    pub(crate) fds: BTreeMap<u32, u64>,
    pub(crate) rss: BTreeMap<u32, u64>,
}

impl From<Percentiles> for Times {
    fn from(p: Percentiles) -> Self {
        Self { count: p.count, p50: ms(p.p50), p99: ms(p.p99), p999: ms(p.p999), max: ms(p.max) }
    }
}

impl From<Turnover> for TurnoverRow {
    fn from(turnover: Turnover) -> Self {
        let Turnover { closed, unannounced: closed_unannounced, opened_anew } = turnover;
        Self { closed, closed_unannounced, opened_anew }
    }
}

impl Leaving {
    pub(super) fn process(self) -> Stat {
        match self {
            Self::Answered(process) | Self::WasMain(process) => process,
        }
    }
}

impl ReloadRow {
    /// Whether the reload has put another process in the place of the one that was to be replaced.
    pub(super) fn has_replaced(&self) -> bool {
        match self.leaving {
            Some(Leaving::Answered(_)) => self.first_new_ms.is_some(),
            Some(Leaving::WasMain(process)) => self.main_pid.is_some_and(|main| main != process.pid),
            None => false,
        }
    }
}

impl Usage {
    pub(super) fn with(self, other: Self, both: fn(u64, u64) -> u64) -> Self {
        let [processes, rss, fds] =
            [(self.processes, other.processes), (self.rss, other.rss), (self.fds, other.fds)].map(|(a, b)| both(a, b));
        Self { processes, rss, fds }
    }
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
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
    /// What went wrong beside the run.
    pub(crate) fn add(&mut self, problems: Vec<String>) {
        self.problems.extend(problems);
        if !self.problems.is_empty() && self.verdict == Verdict::NothingLost {
            self.verdict = Verdict::NotMeasured;
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.verdict == Verdict::NothingLost
    }
}

pub(crate) fn json(report: &impl Serialize) -> String {
    // Strings, numbers and lists of them: there is nothing here that JSON cannot hold.
    serde_json::to_string_pretty(report).unwrap_or_else(|e| format!("{{\"problems\":[\"{e}\"]}}"))
}

/// Microseconds are the last digits.
pub(crate) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Milliseconds are the last digits.
pub(crate) fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64())
}

pub(crate) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// With as many digits as tell something.
pub(crate) fn milliseconds(ms: f64) -> String {
    let digits = if ms.abs() < 10.0 { 2 } else { usize::from(ms.abs() < 100.0) };
    format!("{ms:.digits$} ms")
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
