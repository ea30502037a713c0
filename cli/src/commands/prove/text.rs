//! The result for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::prober::Teller;
use super::report::{KindRow, Report, Spread, Verdict};
use crate::commands::timeline::Brief;
use crate::safe::{short, terminal};

/// Characters of an example.
const EXAMPLE: usize = 160;

pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "\n{}, {}; reload: {}; seed {}\n\n{}\n",
        terminal(&report.target.url),
        report.target.protocol,
        terminal(&report.target.reload),
        report.seed,
        kinds(report)
    );
    for loss in &report.losses {
        let example = short(&terminal(&loss.example), EXAMPLE);
        let (count, kind, cause, at) = (loss.count, loss.kind, loss.cause, loss.first_at_s);
        let _ = writeln!(text, "lost: {count} × {kind}: {cause} (first at {at:.3} s: {example})");
    }
    if !report.reloads.is_empty() {
        let _ = writeln!(text, "\n{}", reloads(report));
    }
    let teller = match report.generation_told_by {
        Teller::Header => "a response header",
        Teller::Body => "the body",
        Teller::Process => "the process that holds the connection",
        Teller::Nothing => "nothing",
    };
    let _ = write!(text, "who answers is told by {teller}");
    if let Some(resolution) = &report.prober.resolution_ms {
        let _ = write!(
            text,
            "; probes {} ms apart (p99 {}, max {})",
            number(resolution.p50),
            number(resolution.p99),
            number(resolution.max)
        );
    }
    text.push('\n');
    for note in &report.notes {
        let _ = writeln!(text, "note: {}", terminal(note));
    }
    for problem in &report.problems {
        let _ = writeln!(text, "problem: {}", terminal(problem));
    }
    let _ = match report.verdict {
        Verdict::NothingLost => {
            write!(text, "Nothing was lost: {} of {} requests answered.", report.total.answered, report.total.sent)
        }
        Verdict::Lost => write!(text, "{} of {} requests were lost.", report.total.lost, report.total.sent),
        Verdict::NotMeasured => {
            write!(text, "Nothing was lost, but not everything could be measured: see the problems.")
        }
    };
    text
}

fn kinds(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "requests",
        "clients",
        "sent",
        "answered",
        "handed back",
        "lost",
        "closes announced",
        "unannounced",
        "wait p50",
        "p99",
        "max",
    ]);
    let mut add = |row: &KindRow| {
        let counts = [row.sent, row.answered, row.handed_back, row.lost, row.closes_announced, row.closes_unannounced];
        let mut cells = vec![row.kind.to_owned(), row.clients.to_string()];
        cells.extend(counts.map(|n| n.to_string()));
        match &row.wait_ms {
            Some(wait) => cells.extend([wait.p50, wait.p99, wait.max].map(milliseconds)),
            None => cells.extend([String::new(), String::new(), String::new()]),
        }
        table.add_row(cells);
    };
    report.kinds.iter().for_each(&mut add);
    add(&report.total);
    right(&mut table, 1);
    table
}

fn reloads(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["over all reloads", "median", "p99", "max"]);
    let mut add = |name: &str, spread: Option<Spread>, show: fn(f64) -> String| {
        if let Some(spread) = spread {
            table.add_row([name.to_owned(), show(spread.median), show(spread.p99), show(spread.max)]);
        }
    };
    let summary = &report.summary;
    add("reload to the first answer of the new process", summary.first_new_ms, milliseconds);
    add("the command that asks for it", summary.asked_ms, milliseconds);
    add("longest gap between answers to new connections", summary.longest_gap_ms, milliseconds);
    add("the same, just before", summary.gap_before_ms, milliseconds);
    let column =
        |value: fn(&super::report::ReloadRow) -> Option<f64>| Spread::of(report.reloads.iter().filter_map(value));
    add("last answer of the old one to a new connection", column(|row| row.last_old_ms), milliseconds);
    add("p99 of waits within the window", column(|row| row.within.map(|w| w.wait_ms.p99)), milliseconds);
    add("p99 of waits just before", column(|row| row.before.map(|w| w.wait_ms.p99)), milliseconds);
    add("longest wait within the window", column(|row| row.within.map(|w| w.wait_ms.max)), milliseconds);
    add("throughput within, of before", column(|row| row.throughput_ratio), |ratio| format!("{:.0} %", ratio * 100.0));
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1_048_576.0);
    add("resident before", column(|row| row.usage.map(|u| super::assemble::as_f64(u.before.rss))), mib);
    add("resident at the peak", column(|row| row.usage.map(|u| super::assemble::as_f64(u.peak.rss))), mib);
    add("resident, the new process", column(|row| row.usage?.new.map(|u| super::assemble::as_f64(u.rss))), mib);
    add("open files at the peak", column(|row| row.usage.map(|u| super::assemble::as_f64(u.peak.fds))), |n| {
        format!("{n:.0}")
    });
    let told = |value: fn(&Brief) -> Option<u64>| {
        let told = report.reloads.iter().filter_map(|row| value(row.journal.as_ref()?));
        Spread::of(told.map(super::assemble::as_f64))
    };
    add("journal: spawn", told(|brief| brief.spawn_ms), milliseconds);
    add("journal: until it is ready", told(|brief| brief.ready_ms), milliseconds);
    add("journal: switch", told(|brief| brief.switch_ms), milliseconds);
    add("journal: handover", told(|brief| brief.handover_ms), milliseconds);
    add("journal: the whole reload", told(|brief| brief.reload_ms), milliseconds);
    add("journal: drain of the old one", told(|brief| brief.drain_ms), milliseconds);
    add("requests lost", summary.lost_per_reload, |n| format!("{n:.0}"));
    right(&mut table, 1);
    table
}

fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(super) fn milliseconds(ms: f64) -> String {
    format!("{} ms", number(ms))
}

fn number(ms: f64) -> String {
    match ms.abs() {
        n if n < 10.0 => format!("{ms:.2}"),
        n if n < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}
