//! HO14x: times of systemd that must be longer than those of the service.

use std::time::Duration;

use super::lifecycle::notifies;
use super::{Check, Link, Rule, Scope};
use crate::commands::check::command::commands;
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, Setting, UNIT, Unit};
use crate::commands::check::value::Span;

/// The longest that a handover takes on a slow machine. Measured: 11 to 38 ms from the request to
/// `READY=1`.
const HANDOVER: Duration = Duration::from_millis(500);
/// `DefaultTimeoutStartSec=` and `DefaultTimeoutStopSec=`, where nobody changed them.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);
/// On top of a time that the service needs.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO141",
        name: "start-timeout",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "TimeoutStartSec= is infinite, or below the time that a generation needs to be ready",
        why: "It bounds the start and every reload: without end a hung start stays for ever, and too short a good one is killed.",
        remedy: "TimeoutStartSec= somewhat above the warm-up (--warm-up, WarmUp=).",
        link: Link::Man("systemd.service#TimeoutStartSec"),
        check: Check::Service(start),
    },
    Rule {
        id: "HO142",
        name: "stop-timeout",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "TimeoutStopSec= is not above the drain timeout",
        why: "systemd sends SIGKILL in the middle of the drain, and what was accepted is lost.",
        remedy: "TimeoutStopSec= somewhat above the drain timeout (--drain-timeout, DrainTimeout=).",
        link: Link::Man("systemd.service#TimeoutStopSec"),
        check: Check::Service(stop),
    },
    Rule {
        id: "HO143",
        name: "watchdog-short",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "WatchdogSec= is below twice the time of a handover",
        why: "The new main process has only what is left of the interval for its first ping.",
        remedy: "WatchdogSec= of 1 s or more; 10 s is usual.",
        link: Link::Man("systemd.service#WatchdogSec"),
        check: Check::Service(watchdog_short),
    },
    Rule {
        id: "HO144",
        name: "watchdog-unanswered",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "WatchdogSec= is set, but nothing pings",
        why: "systemd ends a service with SIGABRT that it has not heard from for that long.",
        remedy: "Let the program itself be the main process, with the notify protocol; or remove WatchdogSec=.",
        link: Link::Man("systemd.service#WatchdogSec"),
        check: Check::Service(watchdog_unanswered),
    },
    Rule {
        id: "HO145",
        name: "runtime-max",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "RuntimeMaxSec= is set",
        why: "It counts from the start of the unit, not of the generation, and ends the service however often it was reloaded.",
        remedy: "Remove it; to renew the process regularly, reload by a timer.",
        link: Link::Man("systemd.service#RuntimeMaxSec"),
        check: Check::Service(runtime_max),
    },
    Rule {
        id: "HO146",
        name: "job-timeout",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "JobTimeoutSec= is below the time of a reload",
        why: "systemd gives up the reload job while the new generation is still getting ready.",
        remedy: "Remove it, or set it above the warm-up.",
        link: Link::Man("systemd.unit#JobTimeoutSec"),
        check: Check::ServiceAll(job),
    },
];

fn seconds(time: Duration) -> String {
    time.saturating_add(MARGIN).as_secs().to_string()
}

/// `TimeoutSec=` is short for both: which of the two comes later counts.
fn timeout<'a>(service: &'a Unit, key: &'a str) -> Option<(Span, Setting<'a>)> {
    let (own, both) = (service.span(SERVICE, key), service.span(SERVICE, "TimeoutSec"));
    let later = |s: &Setting<'_>| service.all().position(|other| other.is(s));
    let found = match (own, both) {
        (Some(own), Some(both)) => Some(if later(&own.1) > later(&both.1) { own } else { both }),
        (own, both) => own.or(both),
    };
    found.map(|(span, setting)| (span.or_infinity(), setting))
}

fn start(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.warm_up;
    let finding = match timeout(service, "TimeoutStartSec") {
        Some((Span::Infinity, setting)) => {
            Finding::at(&setting, format!("{}={} has no end", setting.key(), setting.value()))
        }
        Some((span, s)) if span.is_below(needed) => {
            Finding::at(&s, format!("{}={} is below the warm-up of {needed:?}", s.key(), s.value()))
        }
        None if DEFAULT_TIMEOUT < needed => Finding::missing(
            service,
            SERVICE,
            format!("the default of {DEFAULT_TIMEOUT:?} is below the warm-up of {needed:?}"),
        ),
        _ => return None,
    };
    Some(finding.set(SERVICE, "TimeoutStartSec", &seconds(needed)))
}

fn stop(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.drain_timeout;
    let finding = match timeout(service, "TimeoutStopSec") {
        Some((span, s)) if span <= Span::Time(needed) => {
            Finding::at(&s, format!("{}={} is not above the drain timeout of {needed:?}", s.key(), s.value()))
        }
        None if DEFAULT_TIMEOUT <= needed => {
            let message = format!("the default of {DEFAULT_TIMEOUT:?} is not above the drain timeout of {needed:?}");
            Finding::missing(service, SERVICE, message)
        }
        _ => return None,
    };
    Some(finding.set(SERVICE, "TimeoutStopSec", &seconds(needed)))
}

fn watchdog_short(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (time, setting) = service.time(SERVICE, "WatchdogSec")?;
    let message = format!("WatchdogSec={} is below {:?}", setting.value(), HANDOVER * 2);
    (time < HANDOVER * 2).then(|| Finding::at(&setting, message).set(SERVICE, "WatchdogSec", "10"))
}

fn watchdog_unanswered(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (_, setting) = service.time(SERVICE, "WatchdogSec")?;
    let unset = service.list(SERVICE, "UnsetEnvironment").into_iter().flat_map(|s| s.words());
    let unset =
        unset.filter(|w| matches!(w.as_str(), "WATCHDOG_USEC" | "WATCHDOG_PID" | "NOTIFY_SOCKET")).collect::<Vec<_>>();
    let starts = commands(service, "ExecStart");
    // A shell that does not make way for the program keeps its pid, and WATCHDOG_PID names it.
    let wrapped = starts.iter().any(|(e, _)| e.is_shell() && !e.script().is_some_and(|s| s.contains("exec ")));
    let reason = if !notifies(service) {
        "the service is no notify type".to_owned()
    } else if let Some(name) = unset.first() {
        format!("UnsetEnvironment= takes {name} away")
    } else if wrapped {
        "the main process is a shell".to_owned()
    } else {
        return None;
    };
    let finding = Finding::at(&setting, format!("WatchdogSec={}, but {reason}", setting.value()));
    Some(
        finding
            .advice("Let the program be the main process (`exec` in a script) of Type=notify; or remove WatchdogSec=."),
    )
}

fn runtime_max(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (span, setting) = service.span(SERVICE, "RuntimeMaxSec")?;
    (span != Span::Infinity).then(|| Finding::of(&setting).set(SERVICE, "RuntimeMaxSec", "infinity"))
}

fn job(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let needed = pair.limits.warm_up.saturating_add(HANDOVER);
    let keys = ["JobTimeoutSec", "JobRunningTimeoutSec"].into_iter();
    let short = keys.filter_map(|key| Some((key, service.time(UNIT, key)?))).filter(|(_, (time, _))| *time < needed);
    short
        .map(|(key, (_, setting))| {
            let message = format!("{key}={} is below what a reload may take, {needed:?}", setting.value());
            Finding::at(&setting, message).set(UNIT, key, "infinity")
        })
        .collect()
}
