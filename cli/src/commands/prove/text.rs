//! The result for people.

use super::report::{KindRow, ReloadRow, Report, Spread, Teller, Verdict, as_f64, milliseconds};
use crate::commands::timeline::Brief;
use crate::safe::{short, terminal};
use crate::terminal::{Ink, Look, Table};

/// Characters of an example.
const EXAMPLE: usize = 160;

/// All that was measured.
pub(crate) fn figures(report: &Report, look: Look) -> String {
    let target = &report.target;
    let head = format!("{}, {}; reload: {}; seed {}", target.url, target.protocol, target.reload, report.seed);
    let mut text = format!("\n{}\n\n{}", look.line(&terminal(&head)), kinds(report).render(look));
    let mut line = |ink, words: &str| text = format!("{text}{}\n", look.lines(&[(ink, words)]));
    for loss in &report.losses {
        let example = short(&terminal(&loss.example), EXAMPLE);
        let (count, kind, cause, at) = (loss.count, loss.kind, loss.cause, loss.first_at_s);
        line(Ink::Bad, &format!("lost: {count} × {kind}: {cause} (first at {at:.3} s: {example})"));
    }
    if !report.reloads.is_empty() {
        text = format!("{text}\n{}", reloads(report).render(look));
    }
    text = format!("{text}{}\n", look.line(&connections(report)));
    let teller = match report.generation_told_by {
        Teller::Header => "a response header",
        Teller::Body => "the body",
        Teller::Process => "the process that holds the connection",
        Teller::Nothing => "nothing",
    };
    let apart = report.prober.resolution_ms.map(|apart| {
        let [median, p99, max] = [apart.p50, apart.p99, apart.max].map(milliseconds);
        format!("; probes {median} apart (p99 {p99}, max {max})")
    });
    let told = format!("who answers is told by {teller}{}", apart.unwrap_or_default());
    text + &look.line(&told) + "\n"
}

/// What reloads do to connections: the figures that say most.
pub(super) fn connections(report: &Report) -> String {
    let (total, summary) = (&report.total, &report.summary);
    let by_kill = match total.closed_by_kill {
        0 => String::new(),
        n => format!(" (besides {n} that ended with the killed process)"),
    };
    let turnover = total.turnover;
    let (closed, opened) = (turnover.closed, turnover.opened_anew);
    let mut text = format!("connections: {closed} closed by the server{by_kill}, {opened} opened anew");
    if let Some(gone) = summary.old_gone_ms {
        let [median, max] = [gone.median, gone.max].map(milliseconds);
        text += &format!("; the old process was gone after {median} (median), {max} at most");
    }
    match summary.old_still_there {
        0 => text,
        still => format!("{text}; {still} of {} old ones were there to the end", summary.reloads),
    }
}

/// What is to be said beside the figures, and last of all how it came out.
pub(crate) fn closing(report: &Report, look: Look, verdict: (Ink, String)) -> String {
    let notes = report.notes.iter().map(|note| (Ink::Plain, format!("note: {}", terminal(note))));
    let problems = report.problems.iter().map(|problem| (Ink::Bad, format!("problem: {}", terminal(problem))));
    let lines = notes.chain(problems).chain([verdict]).map(|(ink, text)| look.lines(&[(ink, &text)]));
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn verdict(report: &Report) -> (Ink, String) {
    let (answered, sent, lost) = (report.total.answered, report.total.sent, report.total.lost);
    match report.verdict {
        Verdict::NothingLost => (Ink::Good, format!("Nothing was lost: {answered} of {sent} requests answered.")),
        Verdict::Lost => (Ink::Bad, format!("{lost} of {sent} requests were lost.")),
        Verdict::NotMeasured => {
            (Ink::Bad, "Nothing was lost, but not everything could be measured: see the problems.".to_owned())
        }
    }
}

/// The numbers say which columns a narrow terminal does without first.
pub(super) fn kinds(report: &Report) -> Table {
    let killed = report.total.lost_to_kill > 0;
    let counts = [("requests", 0), ("clients", 6), ("sent", 1), ("answered", 4), ("handed back", 7), ("lost", 0)];
    let closes = [("closes announced", 9), ("unannounced", 8), ("closed", 2), ("opened anew", 8)];
    let waits = [("wait p50", 5), ("p99", 3), ("p99.9", 10), ("max", 2)];
    let at_the_kill = killed.then_some(("at the kill", 6));
    let mut table = Table::new(counts.into_iter().chain(at_the_kill).chain(closes).chain(waits));
    for row in report.kinds.iter().chain([&report.total]) {
        let KindRow { clients, sent, answered, handed_back, lost, .. } = row;
        let plain = |text: String| (Ink::Plain, text);
        let mut cells = vec![plain(row.kind.to_owned()), plain(clients.to_string())];
        cells.extend([sent, answered, handed_back].map(|n| plain(n.to_string())));
        cells.push((if *lost > 0 { Ink::Bad } else { Ink::Plain }, lost.to_string()));
        cells.extend(killed.then(|| plain(row.lost_to_kill.to_string())));
        let closes = [row.closes_announced, row.closes_unannounced, row.turnover.closed, row.turnover.opened_anew];
        cells.extend(closes.map(|n| plain(n.to_string())));
        let waits = row.wait_ms.map(|wait| [wait.p50, wait.p99, wait.p999, wait.max].map(milliseconds));
        cells.extend(waits.unwrap_or_default().map(plain));
        table.row(cells);
    }
    table
}

fn reloads(report: &Report) -> Table {
    use Ink::{Plain, Ready, Reload};
    let mut table = Table::new([("over all reloads", 0), ("median", 0), ("p99", 2), ("max", 1)]);
    let (summary, ms) = (&report.summary, milliseconds as fn(f64) -> String);
    let whole: fn(f64) -> String = |count| format!("{count:.0}");
    // Those are there in any case: that one is not known is told, too.
    for (name, spread, show) in [
        ("connections closed by the server", summary.closed_per_reload, whole),
        ("connections opened anew", summary.opened_anew_per_reload, whole),
        ("old process gone after", summary.old_gone_ms, ms),
    ] {
        let cells = spread.map(|spread| [spread.median, spread.p99, spread.max].map(show));
        let cells = cells.unwrap_or_else(|| ["-"; 3].map(str::to_owned));
        table.row([name.to_owned()].into_iter().chain(cells).map(|cell| (Plain, cell)));
    }
    let mut add = |ink, name: &str, spread: Option<Spread>, show: fn(f64) -> String| {
        let Some(spread) = spread else { return };
        let times = [spread.median, spread.p99, spread.max].map(|value| (ink, show(value)));
        table.row([(ink, name.to_owned())].into_iter().chain(times));
    };
    let each = |value: fn(&ReloadRow) -> Option<f64>| Spread::of(report.reloads.iter().filter_map(value));
    let told = |value: fn(&Brief) -> Option<u64>| {
        Spread::of(report.reloads.iter().filter_map(|row| value(row.journal.as_ref()?)).map(as_f64))
    };
    let percent: fn(f64) -> String = |ratio| format!("{:.0} %", ratio * 100.0);
    let mib: fn(f64) -> String = |bytes| format!("{:.1} MiB", bytes / 1_048_576.0);
    add(Ready, "reload to the first answer of the new process", summary.first_new_ms, ms);
    add(Reload, "the command that asks for it", summary.asked_ms, ms);
    add(Plain, "longest gap between answers to new connections", summary.longest_gap_ms, ms);
    add(Plain, "the same, just before", summary.gap_before_ms, ms);
    add(Plain, "last answer of the old one to a new connection", each(|row| row.last_old_ms), ms);
    add(Plain, "p99 of waits within the window", each(|row| row.within.map(|w| w.wait_ms.p99)), ms);
    add(Plain, "p99 of waits just before", each(|row| row.before.map(|w| w.wait_ms.p99)), ms);
    add(Plain, "longest wait within the window", each(|row| row.within.map(|w| w.wait_ms.max)), ms);
    add(Plain, "throughput within, of before", each(|row| row.throughput_ratio), percent);
    add(Plain, "resident before", each(|row| row.usage.map(|u| as_f64(u.before.rss))), mib);
    add(Plain, "resident at the peak", each(|row| row.usage.map(|u| as_f64(u.peak.rss))), mib);
    add(Plain, "resident, the new process", each(|row| row.usage?.new.map(|u| as_f64(u.rss))), mib);
    add(Plain, "open files at the peak", each(|row| row.usage.map(|u| as_f64(u.peak.fds))), whole);
    add(Plain, "journal: spawn", told(|brief| brief.spawn_ms), ms);
    add(Ready, "journal: until it is ready", told(|brief| brief.ready_ms), ms);
    add(Plain, "journal: switch", told(|brief| brief.switch_ms), ms);
    add(Plain, "journal: handover", told(|brief| brief.handover_ms), ms);
    add(Reload, "journal: the whole reload", told(|brief| brief.reload_ms), ms);
    add(Plain, "journal: drain of the old one", told(|brief| brief.drain_ms), ms);
    add(Plain, "requests lost", summary.lost_per_reload, whole);
    table
}
