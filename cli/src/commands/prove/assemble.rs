//! From what was seen to the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::report::{
    KindRow, LossRow, ProberRow, ProcessPoint, ReloadRow, Report, Series, Spread, Summary, TargetRow, Teller, Times,
    TurnoverRow, Unseen, Verdict, WindowRow, as_f64, ms, round, seconds,
};
use super::server::REMEDY;
use crate::commands::timeline::Brief;
use handover_load::{Cause, Count, Flow, Kind, Loss, Percentiles, Stats, Waits, When};

/// One point of the plots.
pub(super) const STEP: Duration = Duration::from_millis(50);
/// Generations with a line of their own; those that answered least are one line, "others".
const MOST_GENERATIONS: usize = 2048;

/// Everything that was seen.
pub(super) struct Record {
    pub(super) stats: Arc<Stats>,
    pub(super) teller: Teller,
    pub(super) reloads: Vec<ReloadRow>,
    /// `None`: the prober's thread has panicked.
    pub(super) periods: Option<Waits>,
    pub(super) processes: Vec<ProcessPoint>,
    /// When the old process was gone, by the number of the reload.
    pub(super) gone: BTreeMap<u32, Instant>,
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) took: Duration,
}

impl Record {
    /// `how` the server was told to reload. `journal` has one row for each reload, or says why it
    /// has none.
    pub(super) fn report(mut self, plan: &Plan, how: String, journal: Result<Vec<Option<Brief>>, String>) -> Report {
        let losses = self.stats.losses();
        let flow = self.stats.end_flow().unwrap_or_else(|| Flow::new(STEP));
        let kinds = self.kinds(plan, &flow, &losses);
        let summary = self.stats.summary();
        let total = kind("all", plan.clients_in_all(), &summary.total, &losses.iter().collect::<Vec<_>>());
        self.finish_reloads(&flow, &losses, journal);
        let failed: Vec<_> = self.reloads.iter().filter_map(|row| problem(row, self.teller)).collect();
        self.problems.splice(0..0, failed);
        let usages = || self.reloads.iter().filter_map(|row| row.usage);
        if usages().next().is_some() && usages().all(|usage| usage.pss_before.is_none()) {
            let why = "no PSS: of more than 256 MiB it would stall the server, or it may not be read";
            self.notes.push(why.to_owned());
        }
        if self.periods.is_none() {
            let why = "the prober's thread has panicked: a defect of handover prove, please report it";
            self.problems.push(why.to_owned());
        }
        let verdict = match total.lost {
            0 if self.problems.is_empty() => Verdict::NothingLost,
            0 => Verdict::NotMeasured,
            _ => Verdict::Lost,
        };
        let (url, path, protocol) = (plan.url.clone(), plan.load.path.clone(), plan.protocol());
        Report {
            format: 1,
            handover: env!("CARGO_PKG_VERSION"),
            verdict,
            target: TargetRow { url, path, protocol, reload: how },
            seed: plan.seed,
            duration_s: self.took.as_secs_f64(),
            window_ms: ms(plan.window),
            generation_told_by: self.teller,
            total,
            kinds,
            losses: examples(&losses, flow.started()),
            quiet: flow.quiet.percentiles().into(),
            prober: ProberRow { resolution_ms: self.periods.as_ref().map(|periods| periods.percentiles().into()) },
            summary: spreads(&self.reloads),
            series: self.series(&flow),
            problems: self.problems,
            notes: self.notes,
            reloads: self.reloads,
        }
    }

    fn kinds(&mut self, plan: &Plan, flow: &Flow, losses: &[Loss]) -> Vec<KindRow> {
        let summary = self.stats.summary();
        let mut rows = Vec::new();
        for (of, clients) in plan.clients.iter().copied().chain([(Kind::Probe, 1)]) {
            let count = summary.counts.get(&of).copied().unwrap_or_default();
            let lost: Vec<&Loss> = losses.iter().filter(|loss| loss.kind == of).collect();
            let wait_ms = flow.kinds.get(&of).map(|waits| Times::from(waits.percentiles()));
            let row = KindRow { wait_ms, ..kind(of.slug(), clients, &count, &lost) };
            let (name, sent, unasked) = (row.kind, count.sent, row.lost_by[Cause::Unasked.slug()]);
            let ended = count.answered + count.handed_back + count.lost + count.lost_to_kill;
            if sent > ended || sent + unasked < ended {
                let why = format!("{name}: {sent} sent, {ended} ended: a defect of handover prove, please report it");
                self.problems.push(why);
            }
            rows.push(row);
        }
        rows
    }

    /// Adds what is known only at the end.
    fn finish_reloads(&mut self, flow: &Flow, losses: &[Loss], journal: Result<Vec<Option<Brief>>, String>) {
        let told = journal.unwrap_or_else(|why| {
            self.notes.push(format!("no phases from the journal: {why}"));
            Vec::new()
        });
        let part = |when| {
            let part = flow.parts.iter().find(|part| part.when == when)?;
            let took = part.took.as_secs_f64();
            let answers_per_s = if took > 0.0 { round(as_f64(part.answered) / took) } else { 0.0 };
            Some(WindowRow { answers_per_s, wait_ms: part.waits.into() })
        };
        let ends: Vec<_> = self.reloads.iter().skip(1).map(|next| Some(next.at)).chain([None]).collect();
        let told = told.into_iter().chain(std::iter::repeat(None));
        let turnovers = self.stats.turnovers();
        for ((row, end), brief) in self.reloads.iter_mut().zip(ends).zip(told) {
            (row.before, row.within, row.journal) = (part(When::Before(row.n)), part(When::Within(row.n)), brief);
            if let (Some(before), Some(within)) = (row.before, row.within)
                && before.answers_per_s > 0.0
            {
                row.throughput_ratio = Some(round(within.answers_per_s / before.answers_per_s));
            }
            let lost = losses.iter().filter(|loss| loss.failed >= row.at && end.is_none_or(|end| loss.failed < end));
            row.lost = lost.count() as u64;
            row.turnover = turnovers.get(&row.n).copied().unwrap_or_default().into();
            let gone = self.gone.get(&row.n).filter(|_| row.has_replaced());
            row.old_gone_ms = gone.map(|gone| ms(gone.saturating_duration_since(row.at)));
        }
    }

    fn series(&mut self, flow: &Flow) -> Series {
        let mut most: BTreeMap<u32, u64> = BTreeMap::new();
        for (tag, count) in flow.steps.iter().flat_map(|step| &step.answered) {
            *most.entry(*tag).or_default() += count;
        }
        let mut most: Vec<(u32, u64)> = most.into_iter().collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let name = |tag: u32| if tag == 0 { "unknown".to_owned() } else { self.stats.name(tag) };
        let shown: BTreeMap<_, _> = most.iter().take(MOST_GENERATIONS).map(|(tag, _)| (*tag, name(*tag))).collect();
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
            processes: std::mem::take(&mut self.processes),
        }
    }
}

fn problem(row: &ReloadRow, teller: Teller) -> Option<String> {
    let told = row.journal.as_ref().map(|brief| format!("; the journal: {}", brief.words())).unwrap_or_default();
    if let Some(why) = row.failed.as_ref().filter(|_| !row.refused) {
        return Some(format!("reload {} failed: {why}{told}", row.n));
    }
    let Unseen { waited, nobody } = row.unseen?;
    let within = Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    let answers = row.old.as_deref().unwrap_or("somebody");
    let why = match teller {
        Teller::Process if nobody => format!("; pid {answers} serves on, and no process was started: {REMEDY}"),
        Teller::Process => format!("; pid {answers} serves on: {REMEDY}"),
        _ => format!("; {answers} serves on"),
    };
    Some(format!("reload {}: no new process answered within {within:?}{told}{why}", row.n))
}

fn kind(kind: &'static str, clients: usize, count: &Count, losses: &[&Loss]) -> KindRow {
    let lost_by = |cause: Cause| losses.iter().filter(|loss| loss.cause == cause).count() as u64;
    KindRow {
        kind,
        clients,
        sent: count.sent,
        answered: count.answered,
        handed_back: count.handed_back,
        lost: count.lost,
        lost_to_kill: count.lost_to_kill,
        lost_by: Cause::ALL.iter().map(|cause| (cause.slug(), lost_by(*cause))).collect(),
        closes_announced: count.announced,
        closes_unannounced: count.idle_closed,
        turnover: TurnoverRow::from(count.turnover),
        closed_by_kill: count.closed_by_kill,
        wait_ms: None,
        wait_over_kill_ms: (!count.longest_over_kill.is_zero()).then(|| ms(count.longest_over_kill)),
    }
}

fn examples(losses: &[Loss], started: Instant) -> Vec<LossRow> {
    let mut rows: BTreeMap<(Kind, Cause), LossRow> = BTreeMap::new();
    for loss in losses {
        let row = rows.entry((loss.kind, loss.cause)).or_insert_with(|| LossRow {
            kind: loss.kind.slug(),
            cause: loss.cause.slug(),
            count: 0,
            example: loss.describe(&[]),
            first_at_s: seconds(loss.failed - started),
        });
        row.count += 1;
    }
    rows.into_values().collect()
}

fn spreads(rows: &[ReloadRow]) -> Summary {
    Summary {
        reloads: rows.len(),
        first_new_ms: Spread::of(rows.iter().filter_map(|row| row.first_new_ms)),
        // A refusal that was wanted takes the time that it was given.
        asked_ms: Spread::of(rows.iter().filter(|row| !row.refused).map(|row| row.asked_ms)),
        longest_gap_ms: Spread::of(rows.iter().map(|row| row.longest_gap_ms)),
        gap_before_ms: Spread::of(rows.iter().map(|row| row.gap_before_ms)),
        lost_per_reload: Spread::of(rows.iter().map(|row| as_f64(row.lost))),
        closed_per_reload: Spread::of(rows.iter().map(|row| as_f64(row.turnover.closed))),
        opened_anew_per_reload: Spread::of(rows.iter().map(|row| as_f64(row.turnover.opened_anew))),
        old_gone_ms: Spread::of(rows.iter().filter_map(|row| row.old_gone_ms)),
        old_still_there: rows.iter().filter(|row| row.has_replaced() && row.old_gone_ms.is_none()).count(),
    }
}
