//! HO1xx, third part: how systemd starts a service again.

use std::time::Duration;

use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, UNIT, Unit};

pub(super) const RULES: &[Row] =
    &[("HO114", Service(no_back_off)), ("HO115", Service(failure_untold)), ("HO117", Service(idle_restarted))];

/// Pauses of that length need not grow: they cost nobody anything.
const LONG_PAUSE: Duration = Duration::from_secs(5);

fn no_back_off(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    // Where it is not known that the target knows the lines, it may be that it does not.
    pair.limits.target.filter(|target| *target >= 254)?;
    let restarts = service.restarts();
    if restarts.grows() || restarts.first >= LONG_PAUSE {
        return None;
    }
    let message = "no RestartSteps= with RestartMaxDelaySec=, so a service that cannot start is started again at once";
    let finding = match service.text(SERVICE, "RestartSec") {
        Some(setting) => Finding::of(&setting).but(format!(", {message}")),
        None => Finding::missing(service, SERVICE, message),
    };
    // From no pause at all none grows.
    let first = restarts.first.is_zero().then_some("RestartSec=100ms");
    Some(finding.lines(SERVICE, first.into_iter().chain(["RestartSteps=8", "RestartMaxDelaySec=10s"])))
}

fn failure_untold(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let told = service.list(UNIT, "OnFailure").into_iter().next()?;
    let restarts = service.text(SERVICE, "Restart").is_some_and(|restart| restart.value() != "no");
    let direct = restarts && service.is(SERVICE, "RestartMode", "direct");
    direct.then(|| Finding::of(&told).but(", and RestartMode=direct"))
}

fn idle_restarted(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    service.environment("HANDOVER_EXIT_ON_IDLE").filter(|time| time != "never")?;
    let restart = service.text(SERVICE, "Restart").filter(|s| matches!(s.value(), "always" | "on-success"))?;
    Some(Finding::of(&restart).but(", and HANDOVER_EXIT_ON_IDLE= ends the service with success").instead("on-failure"))
}
