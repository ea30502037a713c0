//! HO14x: times of systemd that must be longer than those of the service.

use std::time::Duration;

use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, ServiceAll, Set, Setting, UNIT, Unit, When};
use crate::commands::check::value::{INFINITY, span};

/// The longest that a handover takes on a slow machine; measured are 11 to 38 ms.
const HANDOVER: Duration = Duration::from_millis(500);
/// `DefaultTimeoutStartSec=` and `DefaultTimeoutStopSec=`, where nobody changed them.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);
/// On top of a time that the service needs.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) const RULES: &[Row] = &[
    ("HO141", Service(start)),
    ("HO142", Service(stop)),
    ("HO143", Service(watchdog_short)),
    ("HO144", Service(watchdog_unanswered)),
    ("HO145", When(SERVICE, "RuntimeMaxSec", |time| span(time) != Some(INFINITY), Set("infinity"))),
    ("HO146", ServiceAll(job)),
];

/// A timeout, where it is not what it should be, or its default is not.
fn unfit(service: &Unit, key: &str, needed: Duration, why: impl Fn(Duration) -> Option<String>) -> Option<Finding> {
    // `TimeoutSec=` is short for both: which of the two comes later counts.
    let (own, both) = (service.read(SERVICE, key, span), service.read(SERVICE, "TimeoutSec", span));
    let place = |found: &(Duration, Setting<'_>)| service.all().position(|other| other.is(&found.1));
    let finding = match own.into_iter().chain(both).max_by_key(place) {
        Some((time, setting)) => Finding::of(&setting).but(why(if time.is_zero() { INFINITY } else { time })?),
        None => {
            let message = format!("the default of {DEFAULT_TIMEOUT:?}{}", why(DEFAULT_TIMEOUT)?);
            Finding::missing(service, SERVICE, message)
        }
    };
    Some(finding.set(SERVICE, key, needed.saturating_add(MARGIN).as_secs()))
}

fn start(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.warm_up();
    unfit(service, "TimeoutStartSec", needed, |time| match time {
        INFINITY => Some(" has no end".to_owned()),
        _ => (time < needed).then(|| format!(" is below the warm-up of {needed:?}")),
    })
}

fn stop(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = pair.limits.drain_timeout();
    let short = |time| time <= needed && time != INFINITY;
    let why = format!(" is not above the drain timeout of {needed:?}");
    unfit(service, "TimeoutStopSec", needed, |time| short(time).then(|| why.clone()))
}

fn watchdog_short(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (_, setting) = service.time(SERVICE, "WatchdogSec").filter(|(time, _)| *time < HANDOVER * 2)?;
    Some(Finding::of(&setting).but(format!(" is below {:?}", HANDOVER * 2)).instead("10"))
}

fn watchdog_unanswered(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (_, setting) = service.time(SERVICE, "WatchdogSec")?;
    let needed = ["WATCHDOG_USEC", "WATCHDOG_PID", "NOTIFY_SOCKET"];
    let unset = service.words(SERVICE, "UnsetEnvironment").into_iter().find(|name| needed.contains(&name.as_str()));
    let starts = service.commands("ExecStart");
    // A shell that does not make way for the program keeps its pid, and WATCHDOG_PID names it.
    let wrapped = starts.iter().any(|(e, _)| e.is_shell() && !e.script().is_some_and(|s| s.contains("exec ")));
    let reason = match unset {
        _ if !service.notifies() => "the service is no notify type".to_owned(),
        Some(name) => format!("UnsetEnvironment= takes {name} away"),
        None if wrapped => "the main process is a shell".to_owned(),
        None => return None,
    };
    let advice = "Let the program be the main process (`exec` in a script) of Type=notify; or remove WatchdogSec=.";
    Some(Finding::of(&setting).but(format!(", but {reason}")).advice(advice))
}

fn job(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let needed = pair.limits.warm_up().saturating_add(HANDOVER);
    let short = ["JobTimeoutSec", "JobRunningTimeoutSec"].into_iter().filter_map(|key| {
        let (_, setting) = service.time(UNIT, key).filter(|(time, _)| *time < needed)?;
        let more = format!(" is below what a reload may take, {needed:?}");
        Some(Finding::of(&setting).but(more).instead("infinity"))
    });
    short.collect()
}
