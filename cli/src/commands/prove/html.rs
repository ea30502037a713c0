//! As a page: plots, and every number in tables. Needs nothing else, and runs nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plot::{Line, Plot, STYLE};
use super::report::{Report, Times, as_f64, milliseconds};
use crate::commands::timeline::{Brief, page};
use crate::safe::markup;

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
    for problem in &report.problems {
        let _ = writeln!(body, "<p class=\"b\">{}</p>", markup(problem));
    }
    let marks: Vec<f64> = report.reloads.iter().map(|row| row.at_s).collect();
    for plot in plots(report, &marks) {
        body += &plot.svg();
        body.push('\n');
    }
    kinds(&mut body, report);
    losses(&mut body, report);
    reloads(&mut body, report);
    for note in &report.notes {
        let _ = writeln!(body, "<p>{}</p>", markup(note));
    }
    page(&markup(&title), &body)
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
    let answers = series.answers.iter().map(|(name, values)| line(name, rate(values))).collect();
    let waits = vec![
        line("max", times(&series.max_ms)),
        line("p99", times(&series.p99_ms)),
        line("p50", times(&series.p50_ms)),
    ];
    let mut plots = vec![
        Plot {
            title: "Answers by generation",
            unit: "1/s",
            end,
            marks,
            lines: answers,
            stacked: true,
            losses: lost_at(),
        },
        Plot {
            title: "Waits of short requests",
            unit: "ms",
            end,
            marks,
            lines: waits,
            stacked: false,
            losses: lost_at(),
        },
    ];
    let pids: BTreeSet<u32> = series.processes.iter().flat_map(|point| point.fds.keys().copied()).collect();
    if !pids.is_empty() {
        let each = |of: &dyn Fn(&super::report::ProcessPoint, u32) -> f64| -> Vec<Line> {
            let points = |pid: u32| series.processes.iter().map(|point| (point.at_s, of(point, pid))).collect();
            pids.iter().map(|pid| line(&format!("pid {pid}"), points(*pid))).collect()
        };
        let fds = each(&|point, pid| as_f64(point.fds.get(&pid).copied().unwrap_or(0)));
        let rss = each(&|point, pid| as_f64(point.rss.get(&pid).copied().unwrap_or(0)) / 1_048_576.0);
        plots.push(Plot {
            title: "Open files by process: connections",
            unit: "",
            end,
            marks,
            lines: fds,
            stacked: true,
            losses: Vec::new(),
        });
        plots.push(Plot {
            title: "Resident memory by process",
            unit: "MiB",
            end,
            marks,
            lines: rss,
            stacked: true,
            losses: Vec::new(),
        });
    }
    plots
}

fn kinds(body: &mut String, report: &Report) {
    *body += "<table><thead><tr><th>requests<th>clients<th>sent<th>answered<th>handed back<th>lost<th>closes announced\
              <th>unannounced<th>wait p50<th>p99<th>p99.9<th>max<th></tr></thead><tbody>\n";
    for row in report.kinds.iter().chain([&report.total]) {
        let class = if row.lost > 0 { " class=\"b\"" } else { "" };
        let _ = write!(
            body,
            "<tr{class}><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            row.kind,
            row.clients,
            row.sent,
            row.answered,
            row.handed_back,
            row.lost,
            row.closes_announced,
            row.closes_unannounced
        );
        match &row.wait_ms {
            Some(wait) => times(body, wait),
            None => *body += "<td><td><td><td>",
        }
        *body += "<td></tr>\n";
    }
    *body += "</tbody></table>\n";
}

fn times(body: &mut String, times: &Times) {
    for value in [times.p50, times.p99, times.p999, times.max] {
        let _ = write!(body, "<td>{}", milliseconds(value));
    }
}

fn losses(body: &mut String, report: &Report) {
    if report.losses.is_empty() {
        return;
    }
    *body += "<table><thead><tr><th>lost<th>kind<th>cause<th>first at<th>for example</tr></thead><tbody>\n";
    for loss in &report.losses {
        let _ = writeln!(
            body,
            "<tr class=\"b\"><td>{}<td>{}<td>{}<td>{:.3} s<td>{}</tr>",
            loss.count,
            loss.kind,
            loss.cause,
            loss.first_at_s,
            markup(&loss.example)
        );
    }
    *body += "</tbody></table>\n";
}

fn reloads(body: &mut String, report: &Report) {
    if report.reloads.is_empty() {
        return;
    }
    // What the journal says, where it was asked.
    let told = report.reloads.iter().any(|row| row.journal.is_some());
    let journal = if told { "<th>journal: ready<th>switch<th>handover<th>all<th>drain" } else { "" };
    *body += &format!(
        "<table><thead><tr><th>reload<th>at<th>old<th>new<th>first answer of the new<th>last of the old<th>longest gap<th>before\
              <th>p99 within<th>p99 before<th>max within<th>throughput<th>resident peak<th>lost{journal}<th></tr></thead><tbody>\n"
    );
    let time = |value: Option<f64>| value.map(milliseconds).unwrap_or_default();
    for row in &report.reloads {
        let class = if row.lost > 0 || row.failed.is_some() { " class=\"b\"" } else { "" };
        let name = |name: &Option<String>| markup(name.as_deref().unwrap_or_default());
        let _ = writeln!(
            body,
            "<tr{class}><td>{}<td>{:.3} s<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}{}<td>{}</tr>",
            row.n,
            row.at_s,
            name(&row.old),
            name(&row.new),
            time(row.first_new_ms),
            time(row.last_old_ms),
            milliseconds(row.longest_gap_ms),
            milliseconds(row.gap_before_ms),
            time(row.within.map(|w| w.wait_ms.p99)),
            time(row.before.map(|w| w.wait_ms.p99)),
            time(row.within.map(|w| w.wait_ms.max)),
            row.throughput_ratio.map(|ratio| format!("{:.0} %", ratio * 100.0)).unwrap_or_default(),
            row.usage.map(|u| format!("{:.1} MiB", as_f64(u.peak.rss) / 1_048_576.0)).unwrap_or_default(),
            row.lost,
            if told { phases(row.journal.as_ref()) } else { String::new() },
            markup(row.failed.as_deref().unwrap_or_default()),
        );
    }
    *body += "</tbody></table>\n";
}

fn phases(brief: Option<&Brief>) -> String {
    let cell = |value: fn(&Brief) -> Option<u64>| match brief.and_then(value) {
        Some(ms) => format!("<td>{}", milliseconds(as_f64(ms))),
        None => "<td>".to_owned(),
    };
    [
        cell(|brief| brief.ready_ms),
        cell(|brief| brief.switch_ms),
        cell(|brief| brief.handover_ms),
        cell(|brief| brief.reload_ms),
        cell(|brief| brief.drain_ms),
    ]
    .concat()
}
