//! HO13x: how a reload is asked for.

use std::collections::BTreeSet;

use super::lifecycle::service_type;
use super::{Check, Link, Rule, Scope, signals};
use crate::commands::check::command::{Exec, commands};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::name::UnitName;
use crate::commands::check::pair::Pair;
use crate::commands::check::unit::{SERVICE, UNIT, Unit};

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
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "a reload is asked for by a signal that is not the service's reload signal",
        why: "handover reloads on SIGHUP; a signal that the program has no handler for ends it, and `systemctl reload` says success.",
        remedy: "Send SIGHUP; or say what the program maps, by Environment=HANDOVER_SIGNALS= or ReloadSignal= under [X-Handover].",
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
    Rule {
        id: "HO137",
        name: "reload-unheeded",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "ExecReload=- does not care whether the reload succeeds",
        why: "With `-` before the command a reload that failed is one that succeeded: `systemctl reload` ends with exit code 0.",
        remedy: "Remove the `-`.",
        link: Link::Man("systemd.service#ExecStart"),
        check: Check::ServiceAll(unheeded),
    },
    Rule {
        id: "HO138",
        name: "reload-restarts",
        severity: Severity::Error,
        scope: Scope::Any,
        title: "ExecReload= asks systemd for a restart, or a reload, of its own unit",
        why: "That job waits for the reload which waits for it, until it times out; or it ends the service that was to be reloaded.",
        remedy: "ExecReload= with what the program itself reloads on; none, if it cannot reload.",
        link: Link::Man("systemd.service#ExecReload"),
        check: Check::ServiceAll(restarts),
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
    let is_other = |signal: &str| !signals::reloads(service, signal);
    let setting = service.signal(SERVICE, "ReloadSignal").filter(|(signal, _)| is_other(signal));
    let setting = setting.map(|(_, s)| Finding::of(&s).set(SERVICE, "ReloadSignal", "SIGHUP"));
    let kills =
        commands(service, "ExecReload").into_iter().filter(|(exec, _)| exec.kills_with().is_some_and(|s| is_other(&s)));
    let kills = kills.map(|(_, s)| Finding::of(&s).replace(SERVICE, "ExecReload", WAITING));
    setting.into_iter().chain(kills).collect()
}

fn unheeded(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let all = commands(service, "ExecReload");
    let alone = all.len() == 1;
    // Of several commands some may fail: those that ask for the reload may not.
    let asks = |exec: &Exec| alone || exec.is_handover_reload() || exec.kills_with().is_some();
    let unheeded = all.iter().filter(|(exec, _)| exec.prefixes.contains('-') && asks(exec));
    let findings = unheeded.map(|(_, setting)| match alone {
        true => Finding::of(setting).replace(SERVICE, "ExecReload", &setting.value().replacen('-', "", 1)),
        false => Finding::of(setting),
    });
    findings.collect()
}

fn restarts(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let all = commands(service, "ExecReload").into_iter().filter(|(exec, _)| asks_manager(exec, service));
    all.map(|(_, s)| Finding::of(&s).replace(SERVICE, "ExecReload", WAITING)).collect()
}

/// `systemctl restart` of the unit itself, also in a shell's script; `service NAME restart` as
/// well.
fn asks_manager(exec: &Exec, service: &Unit) -> bool {
    if let Some(script) = exec.script() {
        let separated = script.replace([';', '&', '|', '\n'], " ; ");
        return Exec::parse(&separated).iter().any(|exec| exec.script().is_none() && asks_manager(exec, service));
    }
    if !matches!(exec.program(), "systemctl" | "service" | "invoke-rc.d") {
        return false;
    }
    let (stem, name) = (service.name.stem().to_owned(), service.name.to_string());
    let is_verb =
        |word: &String| word == "stop" || word == "start" || word.contains("restart") || word.contains("reload");
    // daemon-reload is no job of a unit.
    let verb =
        exec.arguments.iter().any(|word| is_verb(word) && !word.starts_with('-') && !word.starts_with("daemon-"));
    verb && exec.arguments.iter().any(|word| *word == stem || *word == name)
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

fn propagation(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for setting in service.list(UNIT, "PropagatesReloadTo") {
        let names: BTreeSet<_> = setting.words().iter().filter_map(|word| UnitName::parse(word)).collect();
        for next in names.into_iter().filter(|next| pair.world.leads_back(&service.name, next)) {
            let message = format!("a reload goes to {next} and back to {}", service.name);
            findings.push(Finding::at(&setting, message).advice("Remove one direction."));
        }
    }
    findings
}
