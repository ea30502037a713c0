//! The results as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::clients::PAUSE;
use super::trial::{Reload, Trial};
use super::{Plan, Results};
use crate::peer::Peer;

/// What one trial says of itself.
pub(crate) fn line(trial: &Trial) -> String {
    let [median, most] = trial.gone();
    let [before, after] = trial.p99().map(ms);
    format!(
        "closed {:.1} and lost {:.1} per reload, old process gone after {} s ({}), p99 {before} and {after} ms, \
         {:.1} ms of processor time",
        trial.closed_per_reload(),
        trial.lost_per_reload(),
        seconds(median),
        seconds(most),
        trial.cpu_per_reload() / 1e3,
    )
}

pub(crate) fn markdown(plan: &Plan, results: &Results, machine: &str) -> String {
    let mut text = String::new();
    let mut versions: Vec<String> = plan.peers.iter().filter_map(|peer| peer.version()).collect();
    versions.dedup();
    let [shortest, longest] = PAUSE;
    let _ = writeln!(text, "{machine}\n\n{}.\n", versions.join(", "));
    let _ = writeln!(
        text,
        "Passes: {}, each in a random order of its own; reloads in each: {}. Every client pauses for {shortest:?} to {longest:?} between two requests, \
         on a logarithmic scale, and opens a closed connection anew within 2 s.\n",
        plan.passes, plan.reloads
    );
    for line in &plan.missing {
        let _ = writeln!(text, "**{}**\n", line.replace('\n', " "));
    }
    let _ = writeln!(
        text,
        "| | connections | closed per reload (announced) | requests lost per reload (in all) | old process gone, s: median (most) | \
         p99 in the second before and after, ms (ratio) | µs of processor time per connection | MiB before, at most |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for peer in &plan.peers {
        let own = results.iter().filter(|(of, count, _)| of == peer && *count > 0);
        let mut own: Vec<(usize, &Trial)> = own.map(|(_, count, trial)| (*count, trial)).collect();
        own.sort_by_key(|(count, _)| *count);
        for (count, trial) in own {
            let _ =
                writeln!(text, "| {} | {count} | {} |", peer.name(), cells(*peer, count, trial, results).join(" | "));
        }
    }
    let _ = writeln!(
        text,
        "\nA reload with nobody connected:\n\n| | ms of processor time | old process gone, s: median (most) |\n|---|---|---|"
    );
    for (peer, _, trial) in in_order(plan, results).filter(|(_, count, _)| *count == 0) {
        let [median, most] = trial.gone().map(seconds);
        let _ = writeln!(text, "| {} | {:.1} | {median} ({most}) |", peer.name(), trial.cpu_per_reload() / 1e3);
    }
    text.push('\n');
    for (peer, count, trial) in in_order(plan, results) {
        for remark in remarks(trial) {
            let _ = writeln!(text, "- {}, {count} connections: {remark}", peer.name());
        }
    }
    text
}

fn in_order<'a>(plan: &'a Plan, results: &'a Results) -> impl Iterator<Item = (Peer, usize, &'a Trial)> {
    let visits = plan.peers.iter().flat_map(move |peer| plan.connections.iter().map(move |count| (*peer, *count)));
    visits.filter_map(move |(peer, count)| {
        let found = results.iter().find(|(a, b, _)| (*a, *b) == (peer, count))?;
        Some((peer, count, &found.2))
    })
}

fn cells(peer: Peer, count: usize, trial: &Trial, results: &Results) -> [String; 6] {
    let [median, most] = trial.gone().map(seconds);
    let p99 = trial.p99();
    let ratio = match p99 {
        [Some(before), Some(after)] => format!(" ({:.1})", after / before),
        _ => String::new(),
    };
    let [before, after] = p99.map(ms);
    let [usual, peak] = trial.memory();
    [
        format!("{} ({})", number(trial.closed_per_reload()), number(trial.announced_per_reload())),
        format!("{} ({} of {})", number(trial.lost_per_reload()), trial.lost, trial.sent),
        format!("{median} ({most})"),
        format!("{before}, {after}{ratio}"),
        cpu_per_connection(peer, count, trial, results).map_or_else(|| "–".into(), |us| format!("{us:.1}")),
        format!("{usual:.0}, {peak:.0}"),
    ]
}

/// In µs, without what a reload costs with nobody connected.
fn cpu_per_connection(peer: Peer, count: usize, trial: &Trial, results: &Results) -> Option<f64> {
    let (_, _, empty) = results.iter().find(|(of, count, _)| (*of, *count) == (peer, 0))?;
    Some((trial.cpu_per_reload() - empty.cpu_per_reload()) / count as f64)
}

/// What nobody shall overlook.
fn remarks(trial: &Trial) -> Vec<String> {
    let mut remarks = Vec::new();
    let count = |of: fn(&Reload) -> bool| trial.reloads.iter().filter(|reload| of(reload)).count();
    match count(|reload| !reload.renewed) {
        0 => {}
        failed => remarks.push(format!("{failed} of {} reloads had no new process", trial.reloads.len())),
    }
    match count(|reload| reload.gone.is_none()) {
        0 => {}
        stayed => remarks.push(format!("in {stayed} reloads the old process was still there after 20 s")),
    }
    match trial.closed_before {
        0 => {}
        closed => remarks.push(format!("the server closed {closed} connections before the first reload")),
    }
    let causes: Vec<String> = causes(trial).iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    if !causes.is_empty() {
        remarks.push(format!("lost: {}", causes.join(", ")));
    }
    remarks
}

fn causes(trial: &Trial) -> BTreeMap<&str, usize> {
    let mut causes = BTreeMap::new();
    for cause in trial.reloads.iter().flat_map(|reload| &reload.lost) {
        *causes.entry(cause.as_str()).or_default() += 1;
    }
    causes
}

pub(crate) fn json(plan: &Plan, results: &Results, machine: &str) -> Value {
    let trial = |(peer, count, trial): (Peer, usize, &Trial)| {
        let reload = |reload: &Reload| {
            json!({
                "renewed": reload.renewed,
                "gone_s": reload.gone.map(|gone| gone.as_secs_f64()),
                "closed": {"announced": reload.announced, "idle": reload.idle, "cut": reload.cut},
                "lost": reload.lost,
                "cpu_us": {"during": reload.cpu[0], "before": reload.cpu[1]},
                "requests": {"during": reload.requests[0], "before": reload.requests[1]},
                "memory_bytes": {"before": reload.memory[0], "most": reload.memory[1]},
            })
        };
        let [before, after] = trial.p99();
        json!({
            "peer": peer.name(),
            "version": peer.version(),
            "connections": count,
            "sent": trial.sent,
            "lost": trial.lost,
            "causes": causes(trial),
            "closed_before": trial.closed_before,
            "closed_per_reload": trial.closed_per_reload(),
            "lost_per_reload": trial.lost_per_reload(),
            "gone_s": {"median": trial.gone()[0], "most": trial.gone()[1]},
            "p99_ms": {"before": before, "after": after},
            "cpu_us_per_reload": trial.cpu_per_reload(),
            "cpu_us_per_connection": (count > 0).then(|| cpu_per_connection(peer, count, trial, results)).flatten(),
            "memory_mib": {"before": trial.memory()[0], "most": trial.memory()[1]},
            "reloads": trial.reloads.iter().map(reload).collect::<Vec<_>>(),
        })
    };
    json!({
        "machine": machine,
        "seed": plan.seed,
        "passes": plan.passes,
        "reloads": plan.reloads,
        "remarks": plan.missing,
        "trials": in_order(plan, results).map(trial).collect::<Vec<_>>(),
    })
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |ms| format!("{ms:.1}"))
}

fn seconds(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { "more than 20".into() }
}

/// A whole number without a fraction.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") }
}
