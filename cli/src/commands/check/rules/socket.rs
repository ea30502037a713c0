//! HO2xx, first part: the .socket unit.

use std::time::Duration;

use crate::commands::check::name::UnitName;
use crate::commands::check::rule::{
    Finding, Pair, Row, SERVICE, SOCKET, Service, ServiceAll, Set, Setting, Socket, UNIT, Unit, When,
};
use crate::commands::check::value::{count, is_on, span};

pub(super) const RULES: &[Row] = &[
    ("HO201", When(SOCKET, "Accept", is_on, Set("no"))),
    ("HO202", When(SOCKET, "FlushPending", is_on, Set("no"))),
    ("HO203", When(SOCKET, "RemoveOnStop", is_on, Set("no"))),
    ("HO204", When(SOCKET, "ReusePort", is_on, Set("no"))),
    ("HO205", Socket(no_name)),
    ("HO206", Socket(colon)),
    ("HO207", ServiceAll(no_requires)),
    ("HO208", Service(non_blocking)),
    ("HO209", Socket(trigger_limit)),
    ("HO210", Service(start_limit)),
    ("HO211", Socket(max_connections)),
];

fn no_name(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    if socket.text(SOCKET, "FileDescriptorName").is_some() || !socket.passes_listeners() {
        return None;
    }
    let message = format!("no FileDescriptorName=, so it is called {}", socket.name);
    let advice = format!("FileDescriptorName={}, or whatever name the program asks for.", socket.name.prefix());
    Some(Finding::missing(socket, SOCKET, message).advice(advice))
}

fn colon(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let finding = match socket.text(SOCKET, "FileDescriptorName") {
        Some(setting) if setting.expanded().contains(':') => Finding::of(&setting),
        None if socket.name.stem().contains(':') => {
            Finding::missing(socket, SOCKET, format!("no FileDescriptorName=, and {} has a colon in it", socket.name))
        }
        _ => return None,
    };
    Some(finding.advice("FileDescriptorName= without a colon, and the same name in the program."))
}

fn no_requires(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let words = ["Requires", "BindsTo", "Requisite"].iter().flat_map(|key| service.words(UNIT, key));
    let required: Vec<_> = words.filter_map(|word| UnitName::of_instance(&word)).collect();
    let missing = pair.listeners().filter(|socket| !required.contains(&socket.name)).map(|socket| {
        let name = socket.name.to_string().replace("@.", "@%i.");
        Finding::missing(service, UNIT, format!("no Requires={name}"))
            .lines(UNIT, [format!("Requires={name}"), format!("After={name}")])
    });
    missing.collect()
}

fn non_blocking(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let is_on = |unit: &Unit| unit.on(SERVICE, "NonBlocking").is_some();
    let mine = is_on(service);
    let mut sharing = pair.listeners().flat_map(|socket| pair.world.services_of(socket));
    let other = sharing.find(|other| other.name != service.name && is_on(other) != mine)?;
    let message = format!("NonBlocking={} here, but not in {}", if mine { "yes" } else { "no" }, other.name);
    let place = service.text(SERVICE, "NonBlocking").or_else(|| service.list(SERVICE, "Sockets").first().copied());
    Some(match place {
        Some(setting) => Finding::at(&setting, message),
        None => Finding::missing(service, SERVICE, message),
    })
}

/// Finds a limit of starts tight if it lets less, or more slowly, through than by default.
fn tight(
    (interval, usual_interval): (Option<(Duration, Setting<'_>)>, u32),
    (burst, usual_burst): (Option<(u64, Setting<'_>)>, u32),
) -> Option<Finding> {
    let setting = burst.map(|(_, setting)| setting).or(interval.map(|(_, setting)| setting))?;
    let within = interval.map_or(usual_interval.into(), |(time, _)| time.as_secs_f64());
    let starts = burst.map_or(usual_burst.into(), |(starts, _)| starts);
    #[expect(clippy::cast_precision_loss, reason = "a rate to compare")]
    let slower = starts as f64 / within < f64::from(usual_burst) / f64::from(usual_interval);
    // 0 turns the limit off.
    let tight = within > 0.0 && starts > 0 && (starts < usual_burst.into() || slower);
    tight.then(|| Finding::of(&setting))
}

fn trigger_limit(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let interval = socket.read(SOCKET, "TriggerLimitIntervalSec", span);
    let burst = socket.read(SOCKET, "TriggerLimitBurst", count);
    Some(tight((interval, 2), (burst, 20))?.lines(SOCKET, ["TriggerLimitIntervalSec=2", "TriggerLimitBurst=20"]))
}

fn start_limit(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    pair.listeners().next()?;
    // The old names stood in [Service], and still count.
    let intervals = [(UNIT, "StartLimitIntervalSec"), (UNIT, "StartLimitInterval"), (SERVICE, "StartLimitInterval")];
    let interval = intervals.iter().find_map(|(section, key)| service.read(section, key, span));
    let burst = [UNIT, SERVICE].iter().find_map(|section| service.read(section, "StartLimitBurst", count));
    let finding = match tight((interval, 10), (burst, 5)) {
        Some(finding) => finding,
        None => reached(service, interval, burst)?,
    };
    Some(finding.lines(UNIT, ["StartLimitIntervalSec=0"]))
}

/// Finds a limit that a service which cannot start comes to by its own restarts.
fn reached(
    service: &Unit,
    interval: Option<(Duration, Setting<'_>)>,
    burst: Option<(u64, Setting<'_>)>,
) -> Option<Finding> {
    let restarts = service.restarts();
    let within = interval.map_or(Duration::from_secs(10), |(time, _)| time);
    let starts = burst.map_or(5, |(starts, _)| starts);
    // 0 turns the limit off.
    if within.is_zero() || starts == 0 {
        return None;
    }
    let taken = restarts.take(starts, within)?;
    let message = format!("{starts} failed starts within {taken:?} are the last ones, and the port is closed");
    Some(match burst.map(|(_, setting)| setting).or(interval.map(|(_, setting)| setting)) {
        Some(setting) => Finding::of(&setting).but(format!(": {message}")),
        None => Finding::missing(service, UNIT, format!("the default start limit: {message}")),
    })
}

fn max_connections(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let keys = ["MaxConnections", "MaxConnectionsPerSource"];
    // With Accept=yes it does what it says, and HO201 speaks.
    keys.iter().find_map(|key| socket.text(SOCKET, key)).filter(|_| socket.passes_listeners()).map(|s| Finding::of(&s))
}
