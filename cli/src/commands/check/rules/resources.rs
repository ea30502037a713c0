//! HO15x: two generations run at once, and each limit must hold both.

use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, Set, Setting, Unit, When};
use crate::commands::check::value::{count, size};

/// Threads of two tokio runtimes: 512 for blocking work, and some for the rest.
const USUAL_TASKS: u64 = 2 * 600;
/// systemd's default soft limit of fds; what a service may have connections with that says nothing.
const DEFAULT_FDS: u64 = 1024;

pub(super) const RULES: &[Row] = &[
    ("HO151", Service(oom_stop)),
    ("HO152", When(SERVICE, "OOMPolicy", |policy| policy == "kill", Set("continue"))),
    ("HO153", Service(memory)),
    ("HO154", Service(|service, pair| few_tasks(service, pair, "TasksMax"))),
    ("HO155", Service(|service, pair| few_tasks(service, pair, "LimitNPROC"))),
    ("HO156", Service(fds)),
];

fn oom_stop(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let finding = match service.text(SERVICE, "OOMPolicy") {
        // Where the service looks after its own cgroups the default is `continue`.
        None if service.not_off("Delegate").is_some() => return None,
        None => Finding::missing(service, SERVICE, "no OOMPolicy=, so it is stop"),
        Some(setting) if setting.value() == "stop" => Finding::of(&setting),
        Some(_) => return None,
    };
    Some(finding.set(SERVICE, "OOMPolicy", "continue"))
}

/// A limit that is a number; percentages and `infinity` depend on the machine, and are none here.
fn limit<'a>(service: &'a Unit, key: &'a str, read: impl Fn(&str) -> Option<u64>) -> Option<(u64, Setting<'a>)> {
    let (found, setting) = service.read(SERVICE, key, |text| {
        // `soft:hard`: only the soft one binds.
        let soft = text.split(':').next().unwrap_or_default().trim();
        if soft == "infinity" || soft.ends_with('%') { Some(None) } else { read(soft).map(Some) }
    })?;
    Some((found?, setting))
}

/// Finds a limit that is below what is needed.
fn below((max, setting): (u64, Setting<'_>), needed: u64, what: &str) -> Option<Finding> {
    let finding = || Finding::of(&setting).but(format!(" is below {needed}{what}")).instead(&needed.to_string());
    (max < needed).then(finding)
}

fn memory(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let limit = limit(service, "MemoryMax", size)?;
    if let Some(one) = pair.limits.memory {
        return below(limit, one.saturating_mul(2), " bytes, which two generations take");
    }
    let advice =
        "Make sure that it is twice what one generation takes, and say so: Memory= under [X-Handover], or --memory.";
    Some(Finding::of(&limit.1).but(", and nobody says what one generation takes").advice(advice))
}

fn few_tasks(service: &Unit, pair: &Pair<'_>, key: &str) -> Option<Finding> {
    let needed = pair.limits.tasks.map_or(USUAL_TASKS, |one| one.saturating_mul(2));
    below(limit(service, key, count)?, needed, ", which two generations may have")
}

fn fds(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.connections.unwrap_or(DEFAULT_FDS).saturating_mul(2);
    if let Some(limit) = limit(service, "LimitNOFILE", count) {
        return below(limit, needed, ", twice the connections");
    }
    // Only a number that somebody gave is worth a word about a default.
    let silent = service.text(SERVICE, "LimitNOFILE").is_some() || pair.limits.connections.is_none();
    let message = format!("no LimitNOFILE=: {DEFAULT_FDS}, below {needed}, twice the connections");
    let finding = || Finding::missing(service, SERVICE, message).set(SERVICE, "LimitNOFILE", needed);
    (!silent && needed > DEFAULT_FDS).then(finding)
}
