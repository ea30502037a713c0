//! HO12x: signals that mean something else to the service than to systemd.

use handover::service::signals::{Response, Signal, SignalMap};

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::{Pair, environment, runs_by_handover};
use crate::commands::check::unit::{OURS, SERVICE, Unit};

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
    Rule {
        id: "HO124",
        name: "stop-cuts",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "KillSignal= or RestartKillSignal= is none that stops the service in order",
        why: "A signal that the service has no handler for, or takes for `at once`, ends it in the middle of what it has accepted.",
        remedy: "KillSignal=SIGTERM, which is the default; an order in Environment=HANDOVER_SIGNALS= is taken into account.",
        link: Link::Man("systemd.kill#KillSignal"),
        check: Check::ServiceAll(cuts),
    },
];

/// What a signal asks the service for: by default, or by the order of another tool that its
/// environment names. `None`: it ends it.
pub(super) fn response(service: &Unit, name: &str) -> Option<Response> {
    let signal = match name {
        "HUP" => Signal::Hup,
        "INT" => Signal::Int,
        "QUIT" => Signal::Quit,
        "USR1" => Signal::Usr1,
        "USR2" => Signal::Usr2,
        "TERM" => Signal::Term,
        "WINCH" => Signal::Winch,
        _ => return None,
    };
    let preset = environment(service, "HANDOVER_SIGNALS").and_then(|preset| SignalMap::preset(preset.trim()));
    preset.unwrap_or_default().get(signal)
}

/// Whether it is a signal that the service reloads on, as far as its unit tells.
pub(super) fn reloads(service: &Unit, name: &str) -> bool {
    let said = service.list(OURS, "ReloadSignal").into_iter().flat_map(|s| s.words());
    // `handover run` goes on as another build of itself; its program stays as it is.
    let renews = name == "USR2" && runs_by_handover(service);
    renews
        || response(service, name) == Some(Response::Reload)
        || said.filter_map(|word| crate::signals::name(&word)).any(|said| said == name)
}

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

fn cuts(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let cutting = ["KillSignal", "RestartKillSignal"].into_iter().filter_map(|key| {
        let (signal, setting) = service.signal(SERVICE, key)?;
        let orderly = matches!(response(service, &signal), Some(Response::Stop | Response::Finish));
        // Of a reload signal HO121 and HO122 speak.
        (!orderly && !reloads(service, &signal)).then(|| Finding::of(&setting).set(SERVICE, key, "SIGTERM"))
    });
    cutting.collect()
}

fn no_sigkill(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (_, setting) = service.boolean(SERVICE, "SendSIGKILL").filter(|(send, _)| !send)?;
    Some(Finding::of(&setting).set(SERVICE, "SendSIGKILL", "yes"))
}
