//! HO1xx, first part: what systemd takes the service for, and what it does when it ends.

use crate::commands::check::command::{Exec, RELOAD};
use crate::commands::check::pair::Trust;
use crate::commands::check::rule::{Finding, Pair, Remedy, Row, SERVICE, Service, ServiceAll, Set, UNIT, Unit, When};
use crate::commands::check::value::is_on;

pub(super) const RULES: &[Row] = &[
    ("HO101", Service(kind)),
    ("HO102", Service(too_new)),
    ("HO103", When(SERVICE, "PIDFile", |_| true, Set(""))),
    ("HO104", When(SERVICE, "KillMode", |mode| mode != "control-group", Set("control-group"))),
    ("HO105", When(SERVICE, "NotifyAccess", |access| access == "none", Set("main"))),
    ("HO106", When(SERVICE, "NotifyAccess", |access| access == "all", Set("main"))),
    ("HO107", When(SERVICE, "ExitType", |kind| kind == "cgroup", Set("main"))),
    ("HO108", When(SERVICE, "RemainAfterExit", is_on, Set("no"))),
    ("HO109", Service(no_restart)),
    ("HO110", When(SERVICE, "Restart", |restart| restart == "always", Remedy)),
    ("HO111", ServiceAll(stop_post)),
];

fn kind(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    if service.notifies() {
        return None;
    }
    let finding = match service.service_type() {
        (_, Some(setting)) => Finding::of(&setting),
        (default, None) => Finding::missing(service, SERVICE, format!("no Type=, so it is {default}")),
    };
    if pair.trust() == Trust::Told {
        return Some(finding.set(SERVICE, "Type", "notify"));
    }
    // One that never says that it is ready is killed at the end of the start timeout.
    let starts = service.commands("ExecStart");
    let program = starts.first().map_or("the program", |(exec, _)| exec.path.as_str());
    Some(finding.advice(format!(
        "Type=notify if {program} speaks sd_notify, which nothing here says; if not, `handover run` speaks it for it: ExecStart=/usr/bin/handover run -- {program} …"
    )))
}

fn too_new(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let target = pair.limits.target_below(253)?;
    let setting = service.text(SERVICE, "Type").filter(|s| s.value() == "notify-reload")?;
    let finding = Finding::of(&setting).but(format!(", but the target is systemd {target}"));
    Some(match service.commands("ExecReload").is_empty() {
        true => finding.lines(SERVICE, ["Type=notify".to_owned(), format!("ExecReload={RELOAD}")]),
        false => finding.instead("notify"),
    })
}

fn no_restart(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let finding = match service.text(SERVICE, "Restart") {
        // Meant, but in the wrong place: HO002 says so, and knows what was meant.
        None if service.text(UNIT, "Restart").is_some() => return None,
        None => Finding::missing(service, SERVICE, "no Restart=, so a crash is the end"),
        Some(setting) if matches!(setting.value(), "no" | "on-success") => Finding::of(&setting),
        Some(_) => return None,
    };
    Some(finding.set(SERVICE, "Restart", "on-failure"))
}

fn stop_post(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let deletes = |exec: &Exec| match exec.script() {
        Some(script) => {
            script.split([' ', ';', '&', '|']).any(|word| matches!(word, "rm" | "/bin/rm" | "unlink" | "-delete"))
        }
        None => matches!(exec.program(), "rm" | "unlink") || exec.has(&["-delete"]),
    };
    let all = service.commands("ExecStopPost").into_iter().filter(|(exec, _)| deletes(exec));
    all.map(|(_, setting)| Finding::of(&setting)).collect()
}
