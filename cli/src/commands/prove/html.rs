//! As a page: plots, and every number in tables. Needs nothing else, and runs nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plot::{Line, Plot, STYLE};
use super::report::{LossRow, ProcessPoint, ReloadRow, Report, TurnoverRow, UsageRow, as_f64, milliseconds};
use super::text::{connections, kinds};
use crate::commands::timeline::Brief;
use crate::page::{page, table};
use crate::safe::markup;
use crate::terminal::Table;

pub(super) fn render(report: &Report) -> String {
    let lost = report.total.lost;
    let title = format!(
        "{}: {lost} of {} requests lost over {} reloads",
        report.target.url,
        report.total.sent,
        report.reloads.len()
    );
    let mut body = format!(
        "<style>{STYLE}</style><h1>{}</h1>\n<p>{}; reload: {}; seed {}</p>\n",
        markup(&title),
        report.target.protocol,
        markup(&report.target.reload),
        report.seed
    );
    let _ = writeln!(body, "<p>{}</p>", markup(&connections(report)));
    for problem in &report.problems {
        let _ = writeln!(body, "<p class=\"b\">{}</p>", markup(problem));
    }
    let marks: Vec<f64> = report.reloads.iter().map(|row| row.at_s).collect();
    for plot in plots(report, &marks) {
        body += &plot.svg();
        body.push('\n');
    }
    body += &table(&kinds(report), "");
    body += &table(&losses(report), "words");
    body += &table(&reloads(report), "words");
    for note in &report.notes {
        let _ = writeln!(body, "<p>{}</p>", markup(note));
    }
    page(&title, &body)
}

fn plots<'a>(report: &'a Report, marks: &'a [f64]) -> Vec<Plot<'a>> {
    let series = &report.series;
    let step = series.step_ms / 1000.0;
    let at = |n: usize| as_f64(n as u64) * step;
    let count = series.lost.len();
    let end = at(count).max(1e-3);
    let rate = |values: &[u64]| values.iter().enumerate().map(|(n, v)| (at(n), as_f64(*v) / step)).collect();
    let times = |values: &[f64]| values.iter().enumerate().map(|(n, v)| (at(n), *v)).collect();
    let line = |name: &str, points| Line { name: name.to_owned(), points };
    let lost_at = || series.lost.iter().enumerate().filter(|(_, lost)| **lost > 0).map(|(n, _)| at(n)).collect();
    let plot = |title, unit, lines, stacked, losses| Plot { title, unit, end, marks, lines, stacked, losses };
    let answers = series.answers.iter().map(|(name, values)| line(name, rate(values))).collect();
    let waits = [("max", &series.max_ms), ("p99", &series.p99_ms), ("p50", &series.p50_ms)];
    let waits = waits.map(|(name, values)| line(name, times(values))).into();
    let mut plots = vec![
        plot("Answers by generation", "1/s", answers, true, lost_at()),
        plot("Waits of short requests", "ms", waits, false, lost_at()),
    ];
    let pids: BTreeSet<u32> = series.processes.iter().flat_map(|point| point.fds.keys().copied()).collect();
    if !pids.is_empty() {
        let each = |of: &dyn Fn(&ProcessPoint, u32) -> f64| -> Vec<Line> {
            let points = |pid: u32| series.processes.iter().map(|point| (point.at_s, of(point, pid))).collect();
            pids.iter().map(|pid| line(&format!("pid {pid}"), points(*pid))).collect()
        };
        let fds = each(&|point, pid| as_f64(point.fds.get(&pid).copied().unwrap_or(0)));
        let rss = each(&|point, pid| as_f64(point.rss.get(&pid).copied().unwrap_or(0)) / 1_048_576.0);
        plots.push(plot("Open files by process: connections", "", fds, true, Vec::new()));
        plots.push(plot("Resident memory by process", "MiB", rss, true, Vec::new()));
    }
    plots
}

fn losses(report: &Report) -> Table {
    let mut table = Table::of(["lost", "kind", "cause", "first at", "for example"]);
    for LossRow { count, kind, cause, first_at_s, example } in &report.losses {
        let (kind, cause, at) = ((*kind).to_owned(), (*cause).to_owned(), format!("{first_at_s:.3} s"));
        table.line(true, [count.to_string(), kind, cause, at, example.clone()]);
    }
    table
}

/// Its name, and what it has of a reload.
type Column<'a> = (&'static str, &'a dyn Fn(&ReloadRow) -> String);

fn reloads(report: &Report) -> Table {
    let time = |value: Option<f64>| value.map(milliseconds).unwrap_or_default();
    let told = |row: &ReloadRow, of: fn(&Brief) -> Option<u64>| time(row.journal.as_ref().and_then(of).map(as_f64));
    let mib = |usage: UsageRow| format!("{:.1} MiB", as_f64(usage.peak.rss) / 1_048_576.0);
    let percent = |ratio: f64| format!("{:.0} %", ratio * 100.0);
    let closed = |turnover: TurnoverRow| match turnover {
        TurnoverRow { closed, closed_unannounced: 0, .. } => closed.to_string(),
        TurnoverRow { closed, closed_unannounced, .. } => format!("{closed} ({closed_unannounced} unannounced)"),
    };
    let columns: [Column<'_>; 23] = [
        ("reload", &|row| row.n.to_string()),
        ("at", &|row| format!("{:.3} s", row.at_s)),
        ("old", &|row| row.old.clone().unwrap_or_default()),
        ("new", &|row| row.new.clone().unwrap_or_default()),
        ("first answer of the new", &|row| time(row.first_new_ms)),
        ("last of the old", &|row| time(row.last_old_ms)),
        ("longest gap", &|row| milliseconds(row.longest_gap_ms)),
        ("before", &|row| milliseconds(row.gap_before_ms)),
        ("p99 within", &|row| time(row.within.map(|w| w.wait_ms.p99))),
        ("p99 before", &|row| time(row.before.map(|w| w.wait_ms.p99))),
        ("max within", &|row| time(row.within.map(|w| w.wait_ms.max))),
        ("throughput", &|row| row.throughput_ratio.map(percent).unwrap_or_default()),
        ("resident peak", &|row| row.usage.map(mib).unwrap_or_default()),
        ("lost", &|row| row.lost.to_string()),
        ("closed", &|row| closed(row.turnover)),
        ("opened anew", &|row| row.turnover.opened_anew.to_string()),
        ("old gone after", &|row| row.old_gone_ms.map_or_else(|| "-".to_owned(), milliseconds)),
        ("journal: ready", &|row| told(row, |brief| brief.ready_ms)),
        ("switch", &|row| told(row, |brief| brief.switch_ms)),
        ("handover", &|row| told(row, |brief| brief.handover_ms)),
        ("all", &|row| told(row, |brief| brief.reload_ms)),
        ("drain", &|row| told(row, |brief| brief.drain_ms)),
        ("", &|row| row.failed.clone().unwrap_or_default()),
    ];
    // What the journal says, where it was asked.
    let is_told = report.reloads.iter().any(|row| row.journal.is_some());
    let shown = || columns.iter().enumerate().filter(|(n, _)| is_told || !(17..22).contains(n)).map(|(_, of)| of);
    let mut table = Table::of(shown().map(|(name, _)| *name));
    for row in &report.reloads {
        table.line(row.lost > 0 || row.failed.is_some(), shown().map(|(_, cell)| cell(row)));
    }
    table
}
