//! HO13x: how a reload is asked for.

use std::collections::BTreeSet;

use super::signals;
use crate::commands::check::command::{Exec, RELOAD};
use crate::commands::check::name::UnitName;
use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, ServiceAll, Setting, UNIT, Unit};

pub(super) const RULES: &[Row] = &[
    ("HO131", Service(no_reload)),
    ("HO132", ServiceAll(asynchronous)),
    ("HO133", ServiceAll(other_signal)),
    ("HO134", ServiceAll(double)),
    ("HO135", ServiceAll(privileged)),
    ("HO136", ServiceAll(propagation)),
    ("HO137", ServiceAll(unheeded)),
    ("HO138", ServiceAll(restarts)),
];

/// What is found of the commands of `ExecReload=` for which that holds.
fn reloads(
    service: &Unit,
    holds: impl Fn(&Exec) -> bool,
    finding: impl Fn(&Exec, &Setting<'_>) -> Finding,
) -> Vec<Finding> {
    let all = service.commands("ExecReload").into_iter().filter(|(exec, _)| holds(exec));
    all.map(|(exec, setting)| finding(&exec, &setting)).collect()
}

/// Instead of such a command comes the one that waits for the outcome and fails with the reason.
fn by_handover(_: &Exec, setting: &Setting<'_>) -> Finding {
    Finding::of(setting).anew(RELOAD)
}

/// Whether it asks the service itself for a reload.
fn asks(exec: &Exec) -> bool {
    exec.is_handover_reload() || exec.kills_with().is_some()
}

fn no_reload(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    // Of another type HO101 speaks; what it proposes needs this as well.
    let missing = !service.reloads_by_notify() && service.commands("ExecReload").is_empty();
    missing.then(|| Finding::missing(service, SERVICE, "no ExecReload=").set(SERVICE, "ExecReload", RELOAD))
}

fn asynchronous(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let only_kills = |exec: &Exec| !service.reloads_by_notify() && exec.kills_with().as_deref() == Some("HUP");
    reloads(service, only_kills, by_handover)
}

fn other_signal(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let is_other = |signal: &str| !signals::reloads(service, signal);
    let mut findings = reloads(service, |exec| exec.kills_with().is_some_and(|signal| is_other(&signal)), by_handover);
    findings.extend(signals::bad(service, &[("ReloadSignal", "SIGHUP")], is_other));
    findings
}

fn unheeded(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    // Of several commands some may fail: those that ask for the reload may not.
    let alone = service.commands("ExecReload").len() == 1;
    let unheeded = |exec: &Exec| exec.prefixes.contains('-') && (alone || asks(exec));
    reloads(service, unheeded, |_, setting| match alone {
        true => Finding::of(setting).anew(&setting.value().replacen('-', "", 1)),
        false => Finding::of(setting),
    })
}

fn restarts(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    reloads(service, |exec| exec.simple().iter().any(|exec| asks_manager(exec, service)), by_handover)
}

/// `systemctl restart` of the unit itself; `service NAME restart` as well.
fn asks_manager(exec: &Exec, service: &Unit) -> bool {
    let is_verb = |word: &String| {
        let verb = word == "stop" || word == "start" || word.contains("restart") || word.contains("reload");
        // daemon-reload is no job of a unit.
        verb && !word.starts_with('-') && !word.starts_with("daemon-")
    };
    matches!(exec.program(), "systemctl" | "service" | "invoke-rc.d")
        && exec.arguments.iter().any(is_verb)
        && exec.has(&[service.name.stem(), &service.name.to_string()])
}

fn double(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    reloads(service, |exec| service.reloads_by_notify() && asks(exec), |_, setting| Finding::of(setting).instead(""))
}

fn privileged(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let is_harmless = |exec: &Exec| {
        let known = matches!(exec.program(), "kill" | "true" | "sleep" | "systemctl" | "busctl");
        exec.script().is_none() && (known || exec.is_handover_reload())
    };
    let privileged = |exec: &Exec| exec.prefixes.contains(['+', '!']) && !is_harmless(exec);
    reloads(service, privileged, |exec, setting| {
        let message = format!("ExecReload= runs {} with `{}`", exec.path, exec.prefixes);
        Finding::at(setting, message).advice("Remove the prefix, or run only /bin/kill or handover reload with it.")
    })
}

fn propagation(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for setting in service.list(UNIT, "PropagatesReloadTo") {
        let names: BTreeSet<_> = setting.words().iter().filter_map(|word| UnitName::parse(word)).collect();
        for next in names.into_iter().filter(|next| pair.world.leads_back(&service.name, next)) {
            let message = format!("a reload goes to {next} and back to {}", service.name);
            findings.push(Finding::at(&setting, message));
        }
    }
    findings
}
