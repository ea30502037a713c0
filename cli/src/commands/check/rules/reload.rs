//! HO13x: how a reload is asked for.

use handover::supervise::signal_name;
use std::collections::BTreeSet;

use super::signals;
use crate::commands::check::command::{Exec, RELOAD};
use crate::commands::check::name::UnitName;
use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, ServiceAll, Setting, UNIT, Unit};
use crate::commands::check::value::{boolean, words};

pub(super) const RULES: &[Row] = &[
    ("HO131", Service(no_reload)),
    ("HO132", ServiceAll(asynchronous)),
    ("HO133", ServiceAll(other_signal)),
    ("HO134", ServiceAll(double)),
    ("HO135", ServiceAll(privileged)),
    ("HO136", ServiceAll(propagation)),
    ("HO137", ServiceAll(unheeded)),
    ("HO138", ServiceAll(restarts)),
    ("HO139", Service(stale_credentials)),
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

fn asynchronous(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    // Of one that does not reload on it HO133 speaks.
    let is_right = pair.world.reload_signals(service).is_none_or(|told| told.contains("HUP"));
    let kills = |exec: &Exec| exec.kills_with().as_deref() == Some("HUP");
    let only_kills = |exec: &Exec| is_right && !service.reloads_by_notify() && kills(exec);
    reloads(service, only_kills, by_handover)
}

fn other_signal(service: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    if let Some(told) = pair.world.reload_signals(service) {
        return not_told(service, told);
    }
    let is_other = |signal: &str| !signals::reloads(service, signal);
    let mut findings = reloads(service, |exec| exec.kills_with().is_some_and(|signal| is_other(&signal)), by_handover);
    findings.extend(signals::bad(service, &[("ReloadSignal", "SIGHUP")], is_other));
    findings
}

/// By the word of the service that runs, which knows better than its unit.
fn not_told(service: &Unit, told: &BTreeSet<String>) -> Vec<Finding> {
    let is_other = |signal: &str| !told.contains(signal) && !signals::renews(service, signal);
    // SIGHUP is what `handover reload` sends to a service without a control interface.
    let right = told.get("HUP").or_else(|| told.first());
    let command = match right {
        Some(signal) if signal != "HUP" => format!("/bin/kill -{signal} $MAINPID"),
        _ => RELOAD.to_owned(),
    };
    let signal = format!("SIG{}", right.map_or("HUP", String::as_str));
    let kills = |exec: &Exec| exec.kills_with().is_some_and(|signal| is_other(&signal));
    let mut findings = reloads(service, kills, |_, setting| Finding::of(setting).anew(&command));
    findings.extend(signals::bad(service, &[("ReloadSignal", &signal)], is_other));
    let is_said = service.read(SERVICE, "ReloadSignal", signal_name).is_some();
    if service.reloads_by_notify() && !is_said && is_other("HUP") {
        let missing = Finding::missing(service, SERVICE, "no ReloadSignal=, which means SIGHUP");
        findings.push(missing.set(SERVICE, "ReloadSignal", &signal));
    }
    let all: Vec<_> = told.iter().map(|signal| format!("SIG{signal}")).collect();
    let reloads_on = if all.is_empty() { "no signal".to_owned() } else { all.join(" and ") };
    let findings = findings.into_iter().map(|f| f.but(format_args!("; the service that runs reloads on {reloads_on}")));
    let remedy = "Let the program map a signal to a reload, or ask for it by `handover reload`.";
    findings.map(|f| if told.is_empty() { f.advice(remedy) } else { f }).collect()
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

/// Where credentials of a service come from that may change while it runs.
const CREDENTIALS: [&str; 3] = ["LoadCredential", "LoadCredentialEncrypted", "ImportCredential"];
/// The first version that renews them at a reload.
const REFRESHES: u32 = 260;

fn stale_credentials(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let credential = CREDENTIALS.iter().find_map(|key| service.list(SERVICE, key).into_iter().next())?;
    match pair.limits.target {
        Some(target) if target < REFRESHES => {
            Some(Finding::of(&credential).but(format!(", and systemd {target} renews it at a restart alone")).advice(
                "A file of the program's own for what shall change without a restart, such as a certificate; \
                 else Ignore=HO139 under [X-Handover].",
            ))
        }
        _ if refreshes(service) => None,
        _ => Some(Finding::of(&credential).but(", and no RefreshOnReload=credentials").set(
            SERVICE,
            "RefreshOnReload",
            "yes",
        )),
    }
}

/// Whether a reload renews the credentials, by the last words of `RefreshOnReload=`.
fn refreshes(service: &Unit) -> bool {
    let mut credentials = false;
    for setting in service.list(SERVICE, "RefreshOnReload") {
        let text = setting.expanded();
        if let Some(all) = boolean(&text) {
            credentials = all;
            continue;
        }
        let (inverted, rest) = text.strip_prefix('~').map_or((false, text.as_str()), |rest| (true, rest));
        let named = words(rest).iter().any(|word| word == "credentials");
        credentials = if inverted { !named } else { credentials || named };
    }
    credentials
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::commands::check::limits::Limits;
    use crate::commands::check::pair::World;
    use crate::commands::check::unit::File;

    /// What HO132 and HO133 say of the lines of a service that runs and reloads on these signals.
    fn found(lines: &str, told: &[&str]) -> Vec<String> {
        let name = UnitName::parse("web.service").unwrap();
        let unit =
            Unit { name: name.clone(), files: vec![File::new("web", format!("[Service]\n{lines}\n").as_bytes())] };
        let mut world = World::new(BTreeSet::new(), vec![unit]);
        world.running(BTreeMap::from([(name, told.iter().map(|&signal| signal.to_owned()).collect())]));
        let (limits, mut found) = (Limits::default(), Vec::new());
        for pair in world.pairs(&limits, |_| true) {
            let service = pair.service.unwrap();
            for finding in asynchronous(service, &pair).into_iter().chain(other_signal(service, &pair)) {
                found.push(format!("{} -> {}", finding.message, finding.fix.map_or(String::new(), |fix| fix.text())));
            }
        }
        found
    }

    #[test]
    fn the_service_that_runs_knows_better_than_its_unit() {
        let kill = |signal: &str| format!("ExecReload=/bin/kill -{signal} $MAINPID");
        assert_eq!(found(&kill("USR1"), &["USR1"]), [""; 0]);
        assert_eq!(
            found(&format!("{}\n[X-Handover]\nReloadSignal=SIGUSR1", kill("USR1")), &["HUP"]),
            [format!(
                "{}; the service that runs reloads on SIGHUP -> [Service] ExecReload= ExecReload={RELOAD}",
                kill("USR1")
            )]
        );
        assert_eq!(
            found(&kill("HUP"), &["USR1", "USR2"]),
            [format!(
                "{}; the service that runs reloads on SIGUSR1 and SIGUSR2 -> [Service] ExecReload= {}",
                kill("HUP"),
                kill("USR1")
            )]
        );
        let on = "; the service that runs reloads on SIGUSR1 -> [Service] ReloadSignal=SIGUSR1";
        assert_eq!(found("Type=notify-reload\nReloadSignal=SIGUSR2", &["USR1"]), [format!("ReloadSignal=SIGUSR2{on}")]);
        assert_eq!(found("Type=notify-reload", &["USR1"]), [format!("no ReloadSignal=, which means SIGHUP{on}")]);
        assert!(found("Type=notify-reload", &[])[0].contains("reloads on no signal -> Let the program map"));
        let renews = format!("ExecStart=/usr/bin/handover run -- /usr/bin/web\n{}", kill("USR2"));
        assert_eq!(found(&renews, &["HUP"]), [""; 0]);
    }
}
