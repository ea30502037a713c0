//! From what was seen to the report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::options::Options;
use super::preflight::Ready;
use super::prober::Teller;
use super::report::{
    KindRow, LossRow, ProberRow, ProcessPoint, ReloadRow, Report, Series, Spread, Summary, TargetRow, Times, UsageRow,
    Verdict, WindowRow, ms,
};
use super::run::{Record, Reloaded};
use super::usage::Point;
use handover_load::{Cause, Finished, Flow, Kind, Loss, Percentiles, Stats, Step, When};

/// Generations with a line of their own; those that answered least are one line, "others".
const MOST_GENERATIONS: usize = 2048;

/// What is taken from the preparation before the run consumes it.
pub(super) struct Header {
    target: TargetRow,
    teller: Teller,
    notes: Vec<String>,
}

impl Header {
    pub(super) fn new(options: &Options, ready: &Ready) -> Self {
        let protocol = match (options.http2, ready.target.tls.is_some()) {
            (false, false) => "HTTP/1.1",
            (false, true) => "HTTP/1.1 over TLS",
            (true, false) => "HTTP/2",
            (true, true) => "HTTP/2 over TLS",
        };
        let reload = ready.trigger.describe();
        let target = TargetRow { url: options.url.clone(), path: ready.path.clone(), protocol, reload };
        Self { target, teller: ready.teller, notes: ready.notes.clone() }
    }
}

pub(super) fn assemble(options: &Options, header: Header, record: Record) -> Report {
    let Record { stats, reloads, periods, points, mut problems, unread, took } = record;
    let Header { target, teller, mut notes } = header;
    let losses = stats.losses();
    let flow = stats.flow(Flowed::of).unwrap_or_default();
    let started = flow.started.unwrap_or_else(Instant::now);
    let kinds = kinds(options, &stats, &flow, &losses, &mut problems);
    let clients = options.clients.counts().iter().map(|(_, count)| count).sum();
    let total = KindRow::new("all", clients, &stats.summary().total, &by_cause(&losses));
    let rows: Vec<_> = reloads
        .iter()
        .enumerate()
        .map(|(n, one)| row(one, reloads.get(n + 1).map(|next| next.at), &flow, &losses, &stats))
        .collect();
    if reloads.iter().all(|r| r.pss_before.is_none()) && reloads.iter().any(|r| r.before.rss > 0) {
        notes.push("no PSS: of more than 256 MiB it would stall the server, or it may not be read".to_owned());
    }
    notes.extend(unread.map(|why| format!("no phases from the journal: {why}")));
    if periods.is_none() {
        problems.push("the prober's thread has panicked: a defect of handover prove, please report it".to_owned());
    }
    let verdict = match total.lost {
        0 if problems.is_empty() => Verdict::NothingLost,
        0 => Verdict::NotMeasured,
        _ => Verdict::Lost,
    };
    Report {
        format: 1,
        handover: env!("CARGO_PKG_VERSION"),
        verdict,
        problems,
        notes,
        target,
        seed: options.seed,
        duration_s: took.as_secs_f64(),
        window_ms: ms(options.window.min(options.every / 2)),
        generation_told_by: teller,
        total,
        kinds,
        losses: examples(&losses, started),
        quiet: flow.quiet.into(),
        prober: ProberRow { resolution_ms: periods.map(|periods| periods.percentiles().into()) },
        summary: spreads(&rows),
        reloads: rows,
        series: Series { processes: processes(&points, started), ..series(&flow, &stats) },
    }
}

/// What `Flow` has kept, taken out of its lock.
#[derive(Default)]
struct Flowed {
    started: Option<Instant>,
    parts: Vec<Finished>,
    quiet: Percentiles,
    waits: BTreeMap<Kind, Percentiles>,
    steps: Vec<Step>,
    step: Duration,
}

impl Flowed {
    fn of(flow: &mut Flow) -> Self {
        let (steps, step) = flow.finish();
        let steps = steps.to_vec();
        let waits = flow.kinds.iter().map(|(kind, waits)| (*kind, waits.percentiles())).collect();
        let (started, parts, quiet) = (Some(flow.started()), flow.parts.clone(), flow.quiet.percentiles());
        Self { started, parts, quiet, waits, steps, step }
    }

    fn part(&self, when: When) -> Option<WindowRow> {
        let part = self.parts.iter().find(|part| part.when == when)?;
        let answers_per_s = per_second(part.answered, part.took);
        Some(WindowRow { answers_per_s, wait_ms: part.waits.into() })
    }
}

fn kinds(options: &Options, stats: &Stats, flow: &Flowed, losses: &[Loss], problems: &mut Vec<String>) -> Vec<KindRow> {
    let summary = stats.summary();
    let clients = options.clients.counts().into_iter().chain([(Kind::Probe, 1)]);
    let mut rows = Vec::new();
    for (kind, number) in clients {
        let count = summary.counts.get(&kind).copied().unwrap_or_default();
        let lost = by_cause(losses.iter().filter(|loss| loss.kind == kind));
        let unasked = lost.get(&Cause::Unasked).copied().unwrap_or(0);
        let ended = count.answered + count.handed_back + count.lost;
        if count.sent > ended || count.sent + unasked < ended {
            let (name, sent) = (kind.slug(), count.sent);
            problems.push(format!("{name}: {sent} sent, {ended} ended: a defect of handover prove, please report it"));
        }
        let mut row = KindRow::new(kind.slug(), number, &count, &lost);
        row.wait_ms = flow.waits.get(&kind).map(|waits| Times::from(*waits));
        rows.push(row);
    }
    rows
}

fn row(one: &Reloaded, next: Option<Instant>, flow: &Flowed, losses: &[Loss], stats: &Stats) -> ReloadRow {
    let started = flow.started.unwrap_or(one.at);
    let seen = &one.seen;
    let (before, within) = (flow.part(When::Before(one.number)), flow.part(When::Within(one.number)));
    let ratio = match (&before, &within) {
        (Some(before), Some(within)) if before.answers_per_s > 0.0 => {
            Some(round(within.answers_per_s / before.answers_per_s))
        }
        _ => None,
    };
    let lost = losses.iter().filter(|loss| loss.failed >= one.at && next.is_none_or(|next| loss.failed < next));
    let last_old = seen.first_new.and(seen.last_old);
    ReloadRow {
        n: one.number,
        at_s: round((one.at - started).as_secs_f64()),
        asked_ms: ms(one.asked),
        failed: one.failed.clone(),
        first_new_ms: seen.first_new.map(|(at, _)| ms(at - one.at)),
        last_old_ms: last_old.map(|at| if at >= one.at { ms(at - one.at) } else { -ms(one.at - at) }),
        resolution_ms: ms(seen.resolution),
        old: seen.before.map(|tag| stats.name(tag)),
        new: seen.first_new.map(|(_, tag)| stats.name(tag)),
        main_pid: one.main,
        lost: lost.count() as u64,
        longest_gap_ms: ms(seen.longest_gap),
        gap_before_ms: ms(seen.gap_before),
        before,
        within,
        throughput_ratio: ratio,
        usage: (one.before.processes > 0).then_some(UsageRow {
            before: one.before,
            peak: one.peak,
            new: one.new,
            pss_before: one.pss_before,
            pss_at_first_new: one.pss_at_first_new,
        }),
        journal: one.journal.clone(),
    }
}

fn by_cause<'a>(losses: impl IntoIterator<Item = &'a Loss>) -> BTreeMap<Cause, u64> {
    let mut causes = BTreeMap::new();
    for loss in losses {
        *causes.entry(loss.cause).or_default() += 1;
    }
    causes
}

fn examples(losses: &[Loss], started: Instant) -> Vec<LossRow> {
    let mut rows: BTreeMap<(Kind, Cause), LossRow> = BTreeMap::new();
    for loss in losses {
        let row = rows.entry((loss.kind, loss.cause)).or_insert_with(|| LossRow {
            kind: loss.kind.slug(),
            cause: loss.cause.slug(),
            count: 0,
            example: loss.describe(&[]),
            first_at_s: round((loss.failed - started).as_secs_f64()),
        });
        row.count += 1;
    }
    rows.into_values().collect()
}

fn spreads(rows: &[ReloadRow]) -> Summary {
    Summary {
        reloads: rows.len(),
        first_new_ms: Spread::of(rows.iter().filter_map(|row| row.first_new_ms)),
        asked_ms: Spread::of(rows.iter().map(|row| row.asked_ms)),
        longest_gap_ms: Spread::of(rows.iter().map(|row| row.longest_gap_ms)),
        gap_before_ms: Spread::of(rows.iter().map(|row| row.gap_before_ms)),
        lost_per_reload: Spread::of(rows.iter().map(|row| as_f64(row.lost))),
    }
}

fn series(flow: &Flowed, stats: &Stats) -> Series {
    let mut most: BTreeMap<u32, u64> = BTreeMap::new();
    for (tag, count) in flow.steps.iter().flat_map(|step| &step.answered) {
        *most.entry(*tag).or_default() += count;
    }
    let mut most: Vec<(u32, u64)> = most.into_iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |tag: u32| if tag == 0 { "unknown".to_owned() } else { stats.name(tag) };
    let shown: BTreeMap<u32, String> = most.iter().take(MOST_GENERATIONS).map(|(tag, _)| (*tag, name(*tag))).collect();
    let mut answers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (n, step) in flow.steps.iter().enumerate() {
        for (tag, count) in &step.answered {
            let name = shown.get(tag).map_or("others", String::as_str).to_owned();
            answers.entry(name).or_insert_with(|| vec![0; flow.steps.len()])[n] += *count;
        }
    }
    let each = |value: fn(&Percentiles) -> Duration| flow.steps.iter().map(|step| ms(value(&step.waits))).collect();
    Series {
        step_ms: ms(flow.step),
        answers,
        lost: flow.steps.iter().map(|step| step.lost).collect(),
        p50_ms: each(|p| p.p50),
        p99_ms: each(|p| p.p99),
        max_ms: each(|p| p.max),
        processes: Vec::new(),
    }
}

fn processes(points: &[Point], started: Instant) -> Vec<ProcessPoint> {
    let point = |point: &Point| ProcessPoint {
        at_s: round(point.at.saturating_duration_since(started).as_secs_f64()),
        fds: point.by_process.iter().map(|(pid, usage)| (*pid, usage.fds)).collect(),
        rss: point.by_process.iter().map(|(pid, usage)| (*pid, usage.rss)).collect(),
    };
    points.iter().map(point).collect()
}

fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { round(as_f64(count) / took.as_secs_f64()) }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}
