//! HO2xx, first part: the .socket unit.

use std::time::Duration;

use crate::commands::check::name::UnitName;
use crate::commands::check::rule::{Error, Finding, Pair, Rule, SERVICE, SOCKET, Set, Setting, UNIT, Unit, Warning};
use crate::commands::check::value::{count, is_on, span};

pub(super) const RULES: &[Rule] = &[
    Rule::rolling("HO201", "accept", Error, "Accept=yes")
        .why("systemd accepts, and starts an instance of the service for each connection: there is no listener to hand over.")
        .remedy("Accept=no, which is the default.")
        .link("systemd.socket#Accept")
        .when(SOCKET, "Accept", is_on, Set("no")),
    Rule::rolling("HO202", "flush-pending", Error, "FlushPending=yes")
        .why("Connections that wait in the listener's queue while the service restarts are thrown away.")
        .remedy("FlushPending=no, which is the default.")
        .link("systemd.socket#FlushPending")
        .when(SOCKET, "FlushPending", is_on, Set("no")),
    Rule::rolling("HO203", "remove-on-stop", Warning, "RemoveOnStop=yes")
        .why("A restart of the .socket unit takes the path away from a generation that still holds its listener, and clients find nothing there meanwhile.")
        .remedy("RemoveOnStop=no, which is the default.")
        .link("systemd.socket#RemoveOnStop")
        .when(SOCKET, "RemoveOnStop", is_on, Set("no")),
    Rule::rolling("HO204", "reuse-port", Warning, "ReusePort=yes")
        .why("The kernel spreads connections over all sockets of the port, and those in the queue of one that is closed are reset.")
        .remedy("ReusePort=no, which is the default: one listener is shared by the generations.")
        .link("systemd.socket#ReusePort")
        .when(SOCKET, "ReusePort", is_on, Set("no")),
    Rule::rolling("HO205", "no-name", Warning, "no FileDescriptorName=")
        .why("Sockets are taken by name, since their order is undefined; without one the name is the unit's, and renaming the unit breaks the service.")
        .remedy("FileDescriptorName= with the name that the program asks for.")
        .link("systemd.socket#FileDescriptorName")
        .socket(no_name),
    Rule::rolling("HO206", "colon-name", Error, "a `:` in the name of the socket")
        .why("LISTEN_FDNAMES separates the names by `:`, so such a name is taken for two, or replaced by the default.")
        .remedy("FileDescriptorName= without a colon.")
        .link("systemd.socket#FileDescriptorName")
        .socket(colon),
    Rule::rolling("HO207", "no-requires", Warning, "the service does not require its socket")
        .why("Started by itself, the service comes up without the socket, and binds another one or fails.")
        .remedy("Requires= and After= with the .socket unit.")
        .link("systemd.unit#Requires")
        .service_all(no_requires),
    Rule::any("HO208", "non-blocking-differs", Warning, "services that share a socket differ in NonBlocking=")
        .why("O_NONBLOCK belongs to the socket and not to the process, so the service that starts last decides for all.")
        .remedy("The same NonBlocking= in all services that share the socket.")
        .link("systemd.service#NonBlocking")
        .service(non_blocking),
    Rule::rolling("HO209", "trigger-limit", Warning, "a tight TriggerLimit")
        .why("At the limit systemd fails the .socket unit and closes the listener, and clients are refused from then on.")
        .remedy("Remove TriggerLimitIntervalSec= and TriggerLimitBurst=: the defaults are 20 within 2 s.")
        .link("systemd.socket#TriggerLimitIntervalSec")
        .socket(trigger_limit),
    Rule::rolling("HO210", "start-limit", Warning, "a tight StartLimit")
        .why("At the limit the service is not restarted any more, and its socket is closed with it: a few crashes take the port away.")
        .remedy("Remove StartLimitIntervalSec= and StartLimitBurst= (the defaults are 5 within 10 s), or allow more.")
        .link("systemd.unit#StartLimitIntervalSec")
        .service(start_limit),
    Rule::rolling("HO211", "max-connections", Warning, "MaxConnections= is set")
        .why("It counts only connections that systemd accepts itself, so here it limits nothing.")
        .remedy("Remove it, and limit connections in the service.")
        .link("systemd.socket#MaxConnections")
        .socket(max_connections),
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
    Some(tight((interval, 10), (burst, 5))?.lines(UNIT, ["StartLimitIntervalSec=10", "StartLimitBurst=5"]))
}

fn max_connections(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let keys = ["MaxConnections", "MaxConnectionsPerSource"];
    // With Accept=yes it does what it says, and HO201 speaks.
    keys.iter().find_map(|key| socket.text(SOCKET, key)).filter(|_| socket.passes_listeners()).map(|s| Finding::of(&s))
}
