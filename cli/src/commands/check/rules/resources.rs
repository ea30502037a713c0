//! HO15x: two generations run at once, and each limit must hold both.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, Setting, Unit};
use crate::commands::check::value;

/// Threads of a tokio runtime at its limits: 512 for blocking work, and some for the rest. Two of
/// them.
const USUAL_TASKS: u64 = 2 * 600;
/// systemd's default soft limit of fds; what a service may have connections with that says nothing.
const DEFAULT_FDS: u64 = 1024;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO151",
        name: "oom-stop",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "OOMPolicy= is stop, which is the default",
        why: "When the kernel takes one process for want of memory, systemd stops the whole service, all generations of it.",
        remedy: "OOMPolicy=continue: if main was taken, Restart= applies.",
        link: Link::Man("systemd.service#OOMPolicy"),
        check: Check::Service(oom_stop),
    },
    Rule {
        id: "HO152",
        name: "oom-kill",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "OOMPolicy=kill",
        why: "When the kernel takes one process for want of memory, it takes all generations with it, at once.",
        remedy: "OOMPolicy=continue: if main was taken, Restart= applies.",
        link: Link::Man("systemd.service#OOMPolicy"),
        check: Check::Service(oom_kill),
    },
    Rule {
        id: "HO153",
        name: "memory",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "MemoryMax= may not hold two generations",
        why: "During a reload and the drain after it two generations run, and the limit is for both together.",
        remedy: "MemoryMax= of twice what one generation takes; say how much that is (--memory, Memory=).",
        link: Link::Man("systemd.resource-control#MemoryMax"),
        check: Check::Service(memory),
    },
    Rule {
        id: "HO154",
        name: "tasks",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "TasksMax= may not hold two generations",
        why: "The threads of two generations count together, and at the limit the next generation cannot start.",
        remedy: "TasksMax= of twice what one generation has; say how many that are (--tasks, Tasks=).",
        link: Link::Man("systemd.resource-control#TasksMax"),
        check: Check::Service(tasks),
    },
    Rule {
        id: "HO155",
        name: "processes",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "LimitNPROC= may not hold two generations",
        why: "It counts the threads of all processes of the user, both generations and other services included.",
        remedy: "Remove it and use TasksMax=, which counts per service; or set it to twice what one generation has (--tasks, Tasks=).",
        link: Link::Man("systemd.exec#LimitNPROC"),
        check: Check::Service(processes),
    },
    Rule {
        id: "HO156",
        name: "fds",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "LimitNOFILE= is below twice the connections",
        why: "Clients that reconnect during a reload come on top of those that stay, and a proxy needs two fds for each.",
        remedy: "LimitNOFILE= of at least twice the connections (--connections, Connections=).",
        link: Link::Man("systemd.exec#LimitNOFILE"),
        check: Check::Service(fds),
    },
];

fn oom_stop(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let finding = match service.text(SERVICE, "OOMPolicy") {
        // Where the service looks after its own cgroups the default is `continue`.
        None if delegates(service) => return None,
        None => Finding::missing(service, SERVICE, "no OOMPolicy=, so it is stop"),
        Some(setting) if setting.value() == "stop" => Finding::of(&setting),
        Some(_) => return None,
    };
    Some(finding.set(SERVICE, "OOMPolicy", "continue"))
}

fn oom_kill(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "OOMPolicy").filter(|s| s.value() == "kill")?;
    Some(Finding::of(&setting).set(SERVICE, "OOMPolicy", "continue"))
}

pub(super) fn delegates(service: &Unit) -> bool {
    service.text(SERVICE, "Delegate").is_some_and(|s| value::boolean(s.value()) != Some(false))
}

/// A limit that is a number; percentages and `infinity` depend on the machine, and are none here.
fn limit<'a>(service: &'a Unit, key: &'a str, read: impl Fn(&str) -> Option<u64>) -> Option<(u64, Setting<'a>)> {
    // `soft:hard`: only the soft one binds.
    let soft = |text: &str| text.split(':').next().unwrap_or_default().trim().to_owned();
    let unlimited = |text: &str| text == "infinity" || text.ends_with('%');
    let (found, setting) = service.read(SERVICE, key, |text| {
        let text = soft(text);
        if unlimited(&text) { Some(None) } else { read(&text).map(Some) }
    })?;
    Some((found?, setting))
}

fn memory(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let (max, setting) = limit(service, "MemoryMax", value::size)?;
    let Some(one) = pair.limits.memory else {
        let message = format!("MemoryMax={}, and nobody says what one generation takes", setting.value());
        let advice = "Make sure that it is twice what one generation takes, and say so: Memory= under [X-Handover], or --memory.";
        return Some(Finding::at(&setting, message).advice(advice));
    };
    let needed = one.saturating_mul(2);
    let message = format!("MemoryMax={} is below {needed} bytes, which two generations take", setting.value());
    (max < needed).then(|| Finding::at(&setting, message).set(SERVICE, "MemoryMax", &needed.to_string()))
}

fn tasks(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    few_tasks(service, pair, "TasksMax")
}

fn processes(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    few_tasks(service, pair, "LimitNPROC")
}

fn few_tasks(service: &Unit, pair: &Pair<'_>, key: &str) -> Option<Finding> {
    let (max, setting) = limit(service, key, value::count)?;
    let needed = pair.limits.tasks.map_or(USUAL_TASKS, |one| one.saturating_mul(2));
    let message = format!("{key}={} is below {needed}, which two generations may have", setting.value());
    (max < needed).then(|| Finding::at(&setting, message).set(SERVICE, key, &needed.to_string()))
}

fn fds(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.connections.unwrap_or(DEFAULT_FDS).saturating_mul(2);
    let found = service.text(SERVICE, "LimitNOFILE");
    let finding = match limit(service, "LimitNOFILE", value::count) {
        Some((max, setting)) if max < needed => {
            Finding::at(&setting, format!("LimitNOFILE={} is below {needed}, twice the connections", setting.value()))
        }
        // Only a number that somebody gave is worth a word about a default.
        None if found.is_none() && pair.limits.connections.is_some() && needed > DEFAULT_FDS => Finding::missing(
            service,
            SERVICE,
            format!("no LimitNOFILE=: {DEFAULT_FDS}, below {needed}, twice the connections"),
        ),
        _ => return None,
    };
    Some(finding.set(SERVICE, "LimitNOFILE", &needed.to_string()))
}
