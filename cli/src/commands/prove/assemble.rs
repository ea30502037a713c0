//! From what was seen to the report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::prober::Teller;
use super::record::{Asked, Record, Reloaded, Unseen};
use super::report::{
    KindRow, LossRow, ProberRow, ProcessPoint, ReloadRow, Report, Series, Spread, Summary, TargetRow, Times, UsageRow,
    Verdict, WindowRow, as_f64, ms,
};
use super::server::REMEDY;
use super::usage::Point;
use crate::commands::timeline::Brief;
use handover_load::{Cause, Finished, Flow, Kind, Loss, Percentiles, Stats, Step, When};

/// Generations with a line of their own; those that answered least are one line, "others".
const MOST_GENERATIONS: usize = 2048;

/// `how` the server was told to reload. `journal` has one row for each reload, or says why it has
/// none.
pub(crate) fn assemble(
    plan: &Plan,
    how: String,
    record: Record,
    journal: Result<Vec<Option<Brief>>, String>,
) -> Report {
    let Record { stats, teller, reloads, periods, points, mut problems, mut notes, took } = record;
    let losses = stats.losses();
    let flow = stats.flow(Flowed::of).unwrap_or_default();
    let started = flow.started.unwrap_or_else(Instant::now);
    let kinds = kinds(plan, &stats, &flow, &losses, &mut problems);
    let total = KindRow::new("all", plan.clients_in_all(), &stats.summary().total, &by_cause(&losses));
    let mut told = match journal {
        Ok(briefs) => briefs,
        Err(why) => {
            notes.push(format!("no phases from the journal: {why}"));
            Vec::new()
        }
    };
    told.resize(reloads.len(), None);
    let ends = reloads.iter().skip(1).map(|next| Some(next.watched.at)).chain([None]);
    let rows: Vec<_> = reloads
        .iter()
        .zip(told)
        .zip(ends)
        .map(|((one, brief), end)| ReloadRow { journal: brief, ..row(one, end, &flow, &losses, &stats) })
        .collect();
    problems.splice(0..0, reloads.iter().zip(&rows).filter_map(|(one, row)| problem(one, row, teller)));
    if reloads.iter().all(|r| r.watched.before.pss.is_none())
        && reloads.iter().any(|r| r.watched.before.usage.is_some())
    {
        notes.push("no PSS: of more than 256 MiB it would stall the server, or it may not be read".to_owned());
    }
    if periods.is_none() {
        problems.push("the prober's thread has panicked: a defect of handover prove, please report it".to_owned());
    }
    let verdict = match total.lost {
        0 if problems.is_empty() => Verdict::NothingLost,
        0 => Verdict::NotMeasured,
        _ => Verdict::Lost,
    };
    let (url, path, protocol) = (plan.url.clone(), plan.load.path.clone(), plan.protocol());
    Report {
        format: 1,
        handover: env!("CARGO_PKG_VERSION"),
        verdict,
        problems,
        notes,
        target: TargetRow { url, path, protocol, reload: how },
        seed: plan.seed,
        duration_s: took.as_secs_f64(),
        window_ms: ms(plan.window),
        generation_told_by: teller,
        total,
        kinds,
        losses: examples(&losses, started),
        quiet: flow.quiet.into(),
        prober: ProberRow { resolution_ms: periods.map(|periods| periods.percentiles().into()) },
        summary: spreads(&rows, &reloads),
        reloads: rows,
        series: Series { processes: processes(&points, started), ..series(&flow, &stats) },
    }
}

fn problem(one: &Reloaded, row: &ReloadRow, teller: Teller) -> Option<String> {
    let told = row.journal.as_ref().map(|brief| format!("; the journal: {}", brief.words())).unwrap_or_default();
    let (number, watched) = (row.n, &one.watched);
    match (&watched.asked, watched.unseen) {
        (Asked::Failed(why), _) => Some(format!("reload {number} failed: {why}{told}")),
        (_, Some(Unseen { waited, nobody })) => {
            let within = Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            let answers = row.old.as_deref().unwrap_or("somebody");
            let why = match teller {
                Teller::Process if nobody => format!("; pid {answers} serves on, and no process was started: {REMEDY}"),
                Teller::Process => format!("; pid {answers} serves on: {REMEDY}"),
                _ => format!("; {answers} serves on"),
            };
            Some(format!("reload {number}: no new process answered within {within:?}{told}{why}"))
        }
        _ => None,
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

fn kinds(plan: &Plan, stats: &Stats, flow: &Flowed, losses: &[Loss], problems: &mut Vec<String>) -> Vec<KindRow> {
    let summary = stats.summary();
    let clients = plan.clients.iter().copied().chain([(Kind::Probe, 1)]);
    let mut rows = Vec::new();
    for (kind, number) in clients {
        let count = summary.counts.get(&kind).copied().unwrap_or_default();
        let lost = by_cause(losses.iter().filter(|loss| loss.kind == kind));
        let unasked = lost.get(&Cause::Unasked).copied().unwrap_or(0);
        let ended = count.answered + count.handed_back + count.lost + count.lost_to_kill;
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

fn row(one: &Reloaded, end: Option<Instant>, flow: &Flowed, losses: &[Loss], stats: &Stats) -> ReloadRow {
    let Reloaded { watched, peak, main } = one;
    let (at, seen) = (watched.at, &watched.seen);
    let since = |time: Instant| if time >= at { ms(time - at) } else { -ms(at - time) };
    let (before, within) = (flow.part(When::Before(watched.number)), flow.part(When::Within(watched.number)));
    let ratio = match (&before, &within) {
        (Some(before), Some(within)) if before.answers_per_s > 0.0 => {
            Some(round(within.answers_per_s / before.answers_per_s))
        }
        _ => None,
    };
    let lost = losses.iter().filter(|loss| loss.failed >= at && end.is_none_or(|end| loss.failed < end));
    ReloadRow {
        n: watched.number,
        at_s: round((at - flow.started.unwrap_or(at)).as_secs_f64()),
        asked_ms: ms(watched.took),
        failed: watched.asked.failed().map(str::to_owned),
        first_new_ms: seen.first_new.map(|(answered, _)| since(answered)),
        last_old_ms: seen.first_new.and(seen.last_old).map(since),
        resolution_ms: ms(seen.resolution),
        old: seen.before.map(|tag| stats.name(tag)),
        new: seen.first_new.map(|(_, tag)| stats.name(tag)),
        main_pid: *main,
        lost: lost.count() as u64,
        longest_gap_ms: ms(seen.longest_gap),
        gap_before_ms: ms(seen.gap_before),
        before,
        within,
        throughput_ratio: ratio,
        usage: watched.before.usage.map(|before| UsageRow {
            before,
            peak: *peak,
            new: watched.after.usage,
            pss_before: watched.before.pss,
            pss_at_first_new: watched.after.pss,
        }),
        journal: None,
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

fn spreads(rows: &[ReloadRow], reloads: &[Reloaded]) -> Summary {
    // A refusal that was wanted takes the time that it was given.
    let wanted = |one: &Reloaded| matches!(one.watched.asked, Asked::Refused(_));
    let asked = reloads.iter().zip(rows).filter(|(one, _)| !wanted(one)).map(|(_, row)| row.asked_ms);
    Summary {
        reloads: rows.len(),
        first_new_ms: Spread::of(rows.iter().filter_map(|row| row.first_new_ms)),
        asked_ms: Spread::of(asked),
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
