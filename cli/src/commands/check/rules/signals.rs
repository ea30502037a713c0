//! HO12x: signals that mean something else to the service than to systemd.

use handover::service::signals::{Response, Signal, SignalMap};
use handover::supervise::signal_name;

use crate::commands::check::directives::OURS;
use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, ServiceAll, Set, Unit, When};
use crate::commands::check::value::is_off;

pub(super) const RULES: &[Row] = &[
    ("HO121", ServiceAll(stop_by_hup)),
    ("HO122", ServiceAll(clash)),
    ("HO123", When(SERVICE, "SendSIGKILL", is_off, Set("yes"))),
    ("HO124", ServiceAll(cuts)),
];

/// What a signal asks the service for: by default, or by the order of another tool that its
/// environment names. `None`: it ends it.
fn response(service: &Unit, name: &str) -> Option<Response> {
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
    let preset = service.environment("HANDOVER_SIGNALS").and_then(|preset| SignalMap::preset(preset.trim()));
    preset.unwrap_or_default().get(signal)
}

/// Whether it is the signal on which `handover run` goes on as another build of itself; its program
/// stays as it is.
pub(super) fn renews(service: &Unit, name: &str) -> bool {
    name == "USR2" && service.runs_by_handover()
}

/// Whether it is a signal that the service reloads on, as far as its unit tells.
pub(super) fn reloads(service: &Unit, name: &str) -> bool {
    let said = || service.words(OURS, "ReloadSignal").into_iter().filter_map(|word| signal_name(&word));
    renews(service, name) || response(service, name) == Some(Response::Reload) || said().any(|said| said == name)
}

/// The settings of these that are a signal for which that holds, with what is to be there instead.
pub(super) fn bad(service: &Unit, settings: &[(&str, &str)], is_bad: impl Fn(&str) -> bool) -> Vec<Finding> {
    let bad = settings.iter().filter_map(|(key, instead)| {
        let (_, setting) = service.read(SERVICE, key, signal_name).filter(|(signal, _)| is_bad(signal))?;
        Some(Finding::of(&setting).instead(instead))
    });
    bad.collect()
}

fn stop_by_hup(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let send = service.on(SERVICE, "SendSIGHUP").map(|setting| Finding::of(&setting).instead("no"));
    let kill = bad(service, &[("KillSignal", "SIGTERM")], |signal| signal == "HUP");
    send.into_iter().chain(kill).collect()
}

fn clash(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let reload = service.read(SERVICE, "ReloadSignal", signal_name);
    let reload = reload.map_or_else(|| "HUP".to_owned(), |(signal, _)| signal);
    let defaults = [("WatchdogSignal", "SIGABRT"), ("RestartKillSignal", "SIGTERM")];
    bad(service, &defaults, |signal| signal == reload)
}

fn cuts(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    bad(service, &[("KillSignal", "SIGTERM"), ("RestartKillSignal", "SIGTERM")], |signal| {
        let orderly = matches!(response(service, signal), Some(Response::Stop | Response::Finish));
        // Of a reload signal HO121 and HO122 speak.
        !orderly && !reloads(service, signal)
    })
}
