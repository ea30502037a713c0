//! HO13x: how a reload is asked for.

use super::lifecycle::service_type;
use super::{Check, Link, Rule, Scope};
use crate::commands::check::command::{Exec, commands};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, Setting, UNIT, Unit};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO131",
        name: "no-reload",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "Type=notify without ExecReload=",
        why: "`systemctl reload` refuses a unit that does not say how it is reloaded.",
        remedy: "ExecReload=/usr/bin/handover reload $MAINPID; or from systemd 253 on Type=notify-reload.",
        link: Link::Man("systemd.service#ExecReload"),
        check: Check::Service(no_reload),
    },
    Rule {
        id: "HO132",
        name: "asynchronous-reload",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "ExecReload= only sends a signal",
        why: "`kill` does not wait for the answer: `systemctl reload` may return early, and succeeds although the new version failed.",
        remedy: "ExecReload=/usr/bin/handover reload $MAINPID waits and fails with the reason; Type=notify-reload (253) at least waits.",
        link: Link::Docs("traps"),
        check: Check::ServiceAll(asynchronous),
    },
    Rule {
        id: "HO133",
        name: "reload-signal",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "a reload is asked for by another signal than SIGHUP",
        why: "handover reloads on SIGHUP; any other signal that the program has no handler for ends it.",
        remedy: "Send SIGHUP, unless the program maps that signal to a reload itself.",
        link: Link::Man("systemd.service#ReloadSignal"),
        check: Check::ServiceAll(other_signal),
    },
    Rule {
        id: "HO134",
        name: "double-reload",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "Type=notify-reload and an ExecReload= that asks again",
        why: "systemd sends the signal itself and runs ExecReload= too, so each reload is made twice.",
        remedy: "Remove ExecReload=.",
        link: Link::Man("systemd.service#Type"),
        check: Check::ServiceAll(double),
    },
    Rule {
        id: "HO135",
        name: "privileged-reload",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "ExecReload=+ runs the service's own code",
        why: "With `+` or `!` it runs as root and outside of the sandbox, and whoever can change that program or its input has root.",
        remedy: "Remove the prefix, or run nothing but /bin/kill or handover reload with it.",
        link: Link::Man("systemd.service#ExecReload"),
        check: Check::ServiceAll(privileged),
    },
    Rule {
        id: "HO136",
        name: "reload-loop",
        severity: Severity::Warning,
        scope: Scope::Any,
        title: "PropagatesReloadTo= leads back",
        why: "A reload of either unit asks for one of the other, and systemd drops jobs to get out of the circle.",
        remedy: "Remove one direction.",
        link: Link::Man("systemd.unit#PropagatesReloadTo"),
        check: Check::ServiceAll(propagation),
    },
];

/// The command that waits for the outcome and fails with the reason.
const WAITING: &str = "/usr/bin/handover reload $MAINPID";

pub(super) fn reload_line() -> String {
    format!("ExecReload={WAITING}")
}

fn no_reload(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    // Of another type HO101 speaks; what it proposes needs this as well.
    let missing = service_type(service).0 != "notify-reload" && commands(service, "ExecReload").is_empty();
    missing.then(|| Finding::missing(service, SERVICE, "no ExecReload=").lines(SERVICE, vec![reload_line()]))
}

fn asynchronous(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    if service_type(service).0 == "notify-reload" {
        return Vec::new();
    }
    let only_kills =
        commands(service, "ExecReload").into_iter().filter(|(exec, _)| exec.kills_with().is_some_and(|s| s == "HUP"));
    only_kills.map(|(_, s)| Finding::of(&s).replace(SERVICE, "ExecReload", WAITING)).collect()
}

fn other_signal(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let setting = service.signal(SERVICE, "ReloadSignal").filter(|(signal, _)| signal != "HUP");
    let setting = setting.map(|(_, s)| Finding::of(&s).set(SERVICE, "ReloadSignal", "SIGHUP"));
    let kills =
        commands(service, "ExecReload").into_iter().filter(|(exec, _)| exec.kills_with().is_some_and(|s| s != "HUP"));
    let kills = kills.map(|(_, s)| Finding::of(&s).replace(SERVICE, "ExecReload", WAITING));
    setting.into_iter().chain(kills).collect()
}

fn double(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    if service_type(service).0 != "notify-reload" {
        return Vec::new();
    }
    let asks = |exec: &Exec| exec.is_handover_reload() || exec.kills_with().is_some();
    let asking = commands(service, "ExecReload").into_iter().filter(|(exec, _)| asks(exec));
    asking.map(|(_, setting)| Finding::of(&setting).reset(SERVICE, "ExecReload")).collect()
}

fn privileged(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let harmless = |exec: &Exec| match exec.script() {
        Some(_) => false,
        None => {
            matches!(exec.program(), "kill" | "true" | "sleep" | "systemctl" | "busctl") || exec.is_handover_reload()
        }
    };
    let all = commands(service, "ExecReload").into_iter();
    let all = all.filter(|(exec, _)| exec.prefixes.contains(['+', '!']) && !harmless(exec));
    all.map(|(exec, setting)| {
        let message = format!("ExecReload= runs {} with `{}`", exec.path, exec.prefixes);
        Finding::at(&setting, message).advice("Remove the prefix, or run only /bin/kill or handover reload with it.")
    })
    .collect()
}

/// Whom a reload of this one is passed on to, by either unit's word.
fn reloads<'a>(unit: &'a Unit, pair: &'a Pair<'_>) -> Vec<&'a Unit> {
    let words = |u: &Unit, key: &str| -> Vec<String> { u.list(UNIT, key).iter().flat_map(Setting::words).collect() };
    let named = words(unit, "PropagatesReloadTo");
    let own = unit.name.to_string();
    let all = pair.world.units.iter();
    all.filter(|u| named.contains(&u.name.to_string()) || words(u, "ReloadPropagatedFrom").contains(&own)).collect()
}

fn propagation(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for setting in service.list(UNIT, "PropagatesReloadTo") {
        let names = setting.words();
        for next in pair.world.units.iter().filter(|u| names.contains(&u.name.to_string())) {
            let (mut open, mut seen) = (vec![next], vec![&next.name]);
            while let Some(unit) = open.pop().filter(|u| u.name != service.name) {
                for further in reloads(unit, pair) {
                    if !seen.contains(&&further.name) {
                        seen.push(&further.name);
                        open.push(further);
                    }
                }
            }
            if seen.contains(&&service.name) {
                let message = format!("a reload goes to {} and back to {}", next.name, service.name);
                findings.push(Finding::at(&setting, message).advice("Remove one direction."));
            }
        }
    }
    findings
}
