//! HO12x: signals that mean something else to the service than to systemd.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, Unit};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO121",
        name: "stop-by-hup",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "SendSIGHUP=yes or KillSignal=SIGHUP",
        why: "SIGHUP asks this service for a reload, so every stop would begin with one.",
        remedy: "KillSignal=SIGTERM and SendSIGHUP=no, which are the defaults.",
        link: Link::Man("systemd.kill#KillSignal"),
        check: Check::ServiceAll(stop_by_hup),
    },
    Rule {
        id: "HO122",
        name: "reload-signal-clash",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "WatchdogSignal= or RestartKillSignal= is the reload signal",
        why: "A hung service would be asked to reload instead of being ended, and stays hung.",
        remedy: "Remove the line: the defaults are SIGABRT and SIGTERM.",
        link: Link::Man("systemd.kill#RestartKillSignal"),
        check: Check::ServiceAll(clash),
    },
    Rule {
        id: "HO123",
        name: "no-sigkill",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "SendSIGKILL=no",
        why: "A generation that hangs is never ended, and the next start of the service runs beside it.",
        remedy: "SendSIGKILL=yes, which is the default, with a TimeoutStopSec= above the drain timeout.",
        link: Link::Man("systemd.kill#SendSIGKILL"),
        check: Check::Service(no_sigkill),
    },
];

/// What asks the service for a reload.
pub(super) fn reload_signal(service: &Unit) -> String {
    service.signal(SERVICE, "ReloadSignal").map_or_else(|| "HUP".to_owned(), |(signal, _)| signal)
}

fn stop_by_hup(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let send = service.on(SERVICE, "SendSIGHUP").map(|s| Finding::of(&s).set(SERVICE, "SendSIGHUP", "no"));
    let kill = service.signal(SERVICE, "KillSignal").filter(|(signal, _)| signal == "HUP");
    let kill = kill.map(|(_, s)| Finding::of(&s).set(SERVICE, "KillSignal", "SIGTERM"));
    send.into_iter().chain(kill).collect()
}

fn clash(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let reload = reload_signal(service);
    let defaults = [("WatchdogSignal", "SIGABRT"), ("RestartKillSignal", "SIGTERM")];
    let clashes = defaults.into_iter().filter_map(|(key, default)| {
        let (signal, setting) = service.signal(SERVICE, key)?;
        (signal == reload).then(|| Finding::of(&setting).set(SERVICE, key, default))
    });
    clashes.collect()
}

fn no_sigkill(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (_, setting) = service.boolean(SERVICE, "SendSIGKILL").filter(|(send, _)| !send)?;
    Some(Finding::of(&setting).set(SERVICE, "SendSIGKILL", "yes"))
}
