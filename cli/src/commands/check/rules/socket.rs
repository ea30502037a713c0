//! HO2xx, first part: the .socket unit.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::{Pair, passes_listeners, reference};
use crate::commands::check::unit::{SERVICE, SOCKET, Setting, UNIT, Unit};
use crate::commands::check::value::{self, Span};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO201",
        name: "accept",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "Accept=yes",
        why: "systemd accepts, and starts an instance of the service for each connection: there is no listener to hand over.",
        remedy: "Accept=no, which is the default.",
        link: Link::Man("systemd.socket#Accept"),
        check: Check::Socket(|socket, _| Some(Finding::of(&socket.on(SOCKET, "Accept")?).set(SOCKET, "Accept", "no"))),
    },
    Rule {
        id: "HO202",
        name: "flush-pending",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "FlushPending=yes",
        why: "Connections that wait in the listener's queue while the service restarts are thrown away.",
        remedy: "FlushPending=no, which is the default.",
        link: Link::Man("systemd.socket#FlushPending"),
        check: Check::Socket(|socket, _| {
            Some(Finding::of(&socket.on(SOCKET, "FlushPending")?).set(SOCKET, "FlushPending", "no"))
        }),
    },
    Rule {
        id: "HO203",
        name: "remove-on-stop",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "RemoveOnStop=yes",
        why: "A restart of the .socket unit takes the path away from a generation that still holds its listener, and clients find nothing there meanwhile.",
        remedy: "RemoveOnStop=no, which is the default.",
        link: Link::Man("systemd.socket#RemoveOnStop"),
        check: Check::Socket(|socket, _| {
            Some(Finding::of(&socket.on(SOCKET, "RemoveOnStop")?).set(SOCKET, "RemoveOnStop", "no"))
        }),
    },
    Rule {
        id: "HO204",
        name: "reuse-port",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "ReusePort=yes",
        why: "The kernel spreads connections over all sockets of the port, and those in the queue of one that is closed are reset.",
        remedy: "ReusePort=no, which is the default: one listener is shared by the generations.",
        link: Link::Man("systemd.socket#ReusePort"),
        check: Check::Socket(|socket, _| {
            Some(Finding::of(&socket.on(SOCKET, "ReusePort")?).set(SOCKET, "ReusePort", "no"))
        }),
    },
    Rule {
        id: "HO205",
        name: "no-name",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "no FileDescriptorName=",
        why: "Sockets are taken by name, since their order is undefined; without one the name is the unit's, and renaming the unit breaks the service.",
        remedy: "FileDescriptorName= with the name that the program asks for.",
        link: Link::Man("systemd.socket#FileDescriptorName"),
        check: Check::Socket(no_name),
    },
    Rule {
        id: "HO206",
        name: "colon-name",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "a `:` in the name of the socket",
        why: "LISTEN_FDNAMES separates the names by `:`, so such a name is taken for two, or replaced by the default.",
        remedy: "FileDescriptorName= without a colon.",
        link: Link::Man("systemd.socket#FileDescriptorName"),
        check: Check::Socket(colon),
    },
    Rule {
        id: "HO207",
        name: "no-requires",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "the service does not require its socket",
        why: "Started by itself, the service comes up without the socket, and binds another one or fails.",
        remedy: "Requires= and After= with the .socket unit.",
        link: Link::Man("systemd.unit#Requires"),
        check: Check::ServiceAll(no_requires),
    },
    Rule {
        id: "HO208",
        name: "non-blocking-differs",
        severity: Severity::Warning,
        scope: Scope::Any,
        title: "services that share a socket differ in NonBlocking=",
        why: "O_NONBLOCK belongs to the socket and not to the process, so the service that starts last decides for all.",
        remedy: "The same NonBlocking= in all of them.",
        link: Link::Man("systemd.service#NonBlocking"),
        check: Check::Service(non_blocking),
    },
    Rule {
        id: "HO209",
        name: "trigger-limit",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "a tight TriggerLimit",
        why: "At the limit systemd fails the .socket unit and closes the listener, and clients are refused from then on.",
        remedy: "Remove TriggerLimitIntervalSec= and TriggerLimitBurst=: the defaults are 20 within 2 s.",
        link: Link::Man("systemd.socket#TriggerLimitIntervalSec"),
        check: Check::Socket(trigger_limit),
    },
    Rule {
        id: "HO210",
        name: "start-limit",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "a tight StartLimit",
        why: "At the limit the service is not restarted any more, and its socket is closed with it: a few crashes take the port away.",
        remedy: "Remove StartLimitIntervalSec= and StartLimitBurst= (the defaults are 5 within 10 s), or allow more.",
        link: Link::Man("systemd.unit#StartLimitIntervalSec"),
        check: Check::ServiceAll(start_limit),
    },
    Rule {
        id: "HO211",
        name: "max-connections",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "MaxConnections= is set",
        why: "It counts only connections that systemd accepts itself, so here it limits nothing.",
        remedy: "Remove it, and limit connections in the service.",
        link: Link::Man("systemd.socket#MaxConnections"),
        check: Check::Socket(max_connections),
    },
];

fn no_name(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    if socket.text(SOCKET, "FileDescriptorName").is_some() || !passes_listeners(socket) {
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
    let keys = ["Requires", "BindsTo", "Requisite"];
    let words = keys.iter().flat_map(|key| service.list(UNIT, key)).flat_map(|s| s.words());
    let required: Vec<_> = words.filter_map(|word| reference(&word)).collect();
    let missing = pair.sockets.iter().filter(|s| passes_listeners(s) && !required.contains(&s.name));
    missing
        .map(|socket| {
            let name = socket.name.to_string().replace("@.", "@%i.");
            let lines = vec![format!("Requires={name}"), format!("After={name}")];
            Finding::missing(service, UNIT, format!("no Requires={name}")).lines(UNIT, lines)
        })
        .collect()
}

fn non_blocking(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let setting = |unit: &Unit| unit.on(SERVICE, "NonBlocking").is_some();
    let mine = setting(service);
    let sharing = pair.sockets.iter().filter(|s| passes_listeners(s)).flat_map(|s| pair.world.services_of(s));
    let other = sharing.filter(|other| other.name != service.name).find(|other| setting(other) != mine)?;
    let message = format!("NonBlocking={} here, but not in {}", if mine { "yes" } else { "no" }, other.name);
    let finding = match service.text(SERVICE, "NonBlocking") {
        Some(setting) => Finding::at(&setting, message),
        None => service.list(SERVICE, "Sockets").first().map_or_else(
            || Finding::missing(service, SERVICE, message.clone()),
            |sockets| Finding::at(sockets, message.clone()),
        ),
    };
    Some(finding.advice("The same NonBlocking= in all services that share the socket."))
}

/// Starts per second that are allowed, where a limit is set; `None`: no limit.
fn tight(interval: Span, burst: u64, default: (u64, f64)) -> bool {
    let (default_burst, default_interval) = default;
    let Span::Time(interval) = interval else { return burst > 0 };
    let interval = interval.as_secs_f64();
    // 0 turns the limit off.
    #[expect(clippy::cast_precision_loss, reason = "a rate to compare")]
    let (rate, usual) = (burst as f64 / interval, default_burst as f64 / default_interval);
    interval > 0.0 && burst > 0 && (burst < default_burst || rate < usual)
}

fn trigger_limit(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let (interval, burst) = (socket.span(SOCKET, "TriggerLimitIntervalSec"), socket.count(SOCKET, "TriggerLimitBurst"));
    let setting = burst.as_ref().map(|(_, s)| *s).or(interval.as_ref().map(|(_, s)| *s))?;
    let default = Span::Time(std::time::Duration::from_secs(2));
    let (interval, burst) = (interval.map_or(default, |(i, _)| i), burst.map_or(20, |(b, _)| b));
    let lines = vec!["TriggerLimitIntervalSec=2".to_owned(), "TriggerLimitBurst=20".to_owned()];
    tight(interval, burst, (20, 2.0)).then(|| Finding::of(&setting).lines(SOCKET, lines))
}

fn start_limit(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    if !pair.has_listeners() {
        return Vec::new();
    }
    // The old names stood in [Service], and still count.
    let spans = [(UNIT, "StartLimitIntervalSec"), (UNIT, "StartLimitInterval"), (SERVICE, "StartLimitInterval")];
    let interval = spans.iter().find_map(|(section, key)| service.read(section, key, value::span));
    let bursts = [UNIT, SERVICE];
    let burst = bursts.iter().find_map(|section| service.count(section, "StartLimitBurst"));
    let Some(setting) = burst.as_ref().map(|(_, s)| *s).or(interval.as_ref().map(|(_, s)| *s)) else {
        return Vec::new();
    };
    let default = Span::Time(std::time::Duration::from_secs(10));
    let (interval, burst) = (interval.map_or(default, |(i, _)| i), burst.map_or(5, |(b, _)| b));
    let lines = vec!["StartLimitIntervalSec=10".to_owned(), "StartLimitBurst=5".to_owned()];
    tight(interval, burst, (5, 10.0)).then(|| Finding::of(&setting).lines(UNIT, lines)).into_iter().collect()
}

fn max_connections(socket: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting: Setting<'_> =
        ["MaxConnections", "MaxConnectionsPerSource"].iter().find_map(|key| socket.text(SOCKET, key))?;
    // With Accept=yes it does what it says, and HO201 speaks.
    passes_listeners(socket).then(|| Finding::of(&setting).advice("Remove it, and limit connections in the service."))
}
