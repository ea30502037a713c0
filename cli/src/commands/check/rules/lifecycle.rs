//! HO1xx, first part: what systemd takes the service for, and what it does when it ends.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::command::{Exec, commands};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::{Pair, Trust};
use crate::commands::check::unit::{SERVICE, Setting, UNIT, Unit};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO101",
        name: "type",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "Type= is neither notify nor notify-reload",
        why: "Only by the notify protocol can a service tell systemd that another process is its main process now.",
        remedy: "Type=notify, or Type=notify-reload from systemd 253 on.",
        link: Link::Man("systemd.service#Type"),
        check: Check::Service(kind),
    },
    Rule {
        id: "HO102",
        name: "notify-reload-too-new",
        severity: Severity::Error,
        scope: Scope::Any,
        title: "Type=notify-reload for a systemd older than 253",
        why: "systemd before 253 does not know the type, ignores the line and takes the service for Type=simple.",
        remedy: "Type=notify, with an ExecReload=.",
        link: Link::Man("systemd.service#Type"),
        check: Check::Service(too_new),
    },
    Rule {
        id: "HO103",
        name: "pid-file",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "PIDFile= is set",
        why: "systemd reads the file again after ExecReload=, and a stale one makes the old process main again.",
        remedy: "Remove PIDFile=: the notify protocol names the main process.",
        link: Link::Docs("traps"),
        check: Check::Service(pid_file),
    },
    Rule {
        id: "HO104",
        name: "kill-mode",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "KillMode= is not control-group",
        why: "An old generation drains beside the main process: `mixed` kills it the moment main exits, `process` and `none` leave it behind.",
        remedy: "KillMode=control-group, which is the default.",
        link: Link::Man("systemd.kill#KillMode"),
        check: Check::Service(kill_mode),
    },
    Rule {
        id: "HO105",
        name: "notify-access-none",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "NotifyAccess=none",
        why: "Messages of the service are not listened to, or systemd overrules the line silently where Type= or WatchdogSec= need them.",
        remedy: "NotifyAccess=main.",
        link: Link::Man("systemd.service#NotifyAccess"),
        check: Check::Service(notify_none),
    },
    Rule {
        id: "HO106",
        name: "notify-access-all",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "NotifyAccess=all",
        why: "Every process of the service, a job's child too, could say that it is main, ready or stopping; handover needs only `main`.",
        remedy: "NotifyAccess=main.",
        link: Link::Man("systemd.service#NotifyAccess"),
        check: Check::Service(notify_all),
    },
    Rule {
        id: "HO107",
        name: "exit-type",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "ExitType=cgroup",
        why: "The crash of the main process goes unnoticed for as long as an old generation drains.",
        remedy: "ExitType=main, which is the default.",
        link: Link::Man("systemd.service#ExitType"),
        check: Check::Service(exit_type),
    },
    Rule {
        id: "HO108",
        name: "remain-after-exit",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "RemainAfterExit=yes",
        why: "After its main process has gone the unit still counts as active, and nothing starts it again.",
        remedy: "RemainAfterExit=no, which is the default.",
        link: Link::Man("systemd.service#RemainAfterExit"),
        check: Check::Service(remains),
    },
    Rule {
        id: "HO109",
        name: "no-restart",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "Restart= does not follow a crash",
        why: "A crash of the main process is survived only if systemd starts the service again; the sockets wait meanwhile.",
        remedy: "Restart=on-failure.",
        link: Link::Man("systemd.service#Restart"),
        check: Check::Service(no_restart),
    },
    Rule {
        id: "HO110",
        name: "restart-always",
        severity: Severity::Info,
        scope: Scope::Rolling,
        title: "Restart=always",
        why: "A main process that ends by mistake with exit code 0 is started again and looks healthy; on-failure shows it.",
        remedy: "Restart=on-failure, unless the service is meant to end and begin again.",
        link: Link::Man("systemd.service#Restart"),
        check: Check::Service(restart_always),
    },
    Rule {
        id: "HO111",
        name: "stop-post-deletes",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "ExecStopPost= deletes files",
        why: "It runs between a crash and the restart too, and takes away the socket's path or the state that the next process needs.",
        remedy: "Leave the socket's path to the .socket unit, and state to StateDirectory= or RuntimeDirectory= with RuntimeDirectoryPreserve=restart.",
        link: Link::Man("systemd.service#ExecStopPost"),
        check: Check::ServiceAll(stop_post),
    },
];

/// Of a service that says nothing: `dbus` with a BusName=, else `simple`.
pub(super) fn service_type<'a>(service: &'a Unit) -> (&'a str, Option<Setting<'a>>) {
    match service.text(SERVICE, "Type") {
        Some(setting) => (setting.value(), Some(setting)),
        None if service.text(SERVICE, "BusName").is_some() => ("dbus", None),
        None => ("simple", None),
    }
}

pub(in crate::commands::check) fn notifies(service: &Unit) -> bool {
    matches!(service_type(service).0, "notify" | "notify-reload")
}

fn kind(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    if notifies(service) {
        return None;
    }
    let finding = match service_type(service) {
        (_, Some(setting)) => Finding::of(&setting),
        (default, None) => Finding::missing(service, SERVICE, format!("no Type=, so it is {default}")),
    };
    if pair.trust() == Trust::Told {
        return Some(finding.set(SERVICE, "Type", "notify"));
    }
    // One that never says that it is ready is killed at the end of the start timeout.
    let program =
        commands(service, "ExecStart").first().map_or_else(|| "the program".to_owned(), |(exec, _)| exec.path.clone());
    Some(finding.advice(format!(
        "Type=notify if {program} speaks sd_notify, which nothing here says; if not, `handover run` speaks it for it: ExecStart=/usr/bin/handover run -- {program} …"
    )))
}

fn too_new(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let target = pair.target_is_below(253)?;
    let setting = service.text(SERVICE, "Type").filter(|s| s.value() == "notify-reload")?;
    let finding = Finding::at(&setting, format!("Type=notify-reload, but the target is systemd {target}"));
    Some(match commands(service, "ExecReload").is_empty() {
        true => finding.lines(SERVICE, vec!["Type=notify".to_owned(), super::reload::reload_line()]),
        false => finding.set(SERVICE, "Type", "notify"),
    })
}

fn pid_file(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    Some(Finding::of(&service.text(SERVICE, "PIDFile")?).reset(SERVICE, "PIDFile"))
}

fn kill_mode(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "KillMode").filter(|s| matches!(s.value(), "none" | "process" | "mixed"))?;
    Some(Finding::of(&setting).set(SERVICE, "KillMode", "control-group"))
}

fn notify_none(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "NotifyAccess").filter(|s| s.value() == "none")?;
    Some(Finding::of(&setting).set(SERVICE, "NotifyAccess", "main"))
}

fn notify_all(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "NotifyAccess").filter(|s| s.value() == "all")?;
    Some(Finding::of(&setting).set(SERVICE, "NotifyAccess", "main"))
}

fn exit_type(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "ExitType").filter(|s| s.value() == "cgroup")?;
    Some(Finding::of(&setting).set(SERVICE, "ExitType", "main"))
}

fn remains(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    Some(Finding::of(&service.on(SERVICE, "RemainAfterExit")?).set(SERVICE, "RemainAfterExit", "no"))
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

fn restart_always(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "Restart").filter(|s| s.value() == "always")?;
    Some(Finding::of(&setting).advice("Restart=on-failure, unless the service is meant to end and begin again."))
}

fn stop_post(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let deletes = |exec: &Exec| match exec.script() {
        Some(script) => {
            script.split([' ', ';', '&', '|']).any(|word| matches!(word, "rm" | "/bin/rm" | "unlink" | "-delete"))
        }
        None => matches!(exec.program(), "rm" | "unlink") || exec.arguments.iter().any(|a| a == "-delete"),
    };
    let all = commands(service, "ExecStopPost").into_iter().filter(|(exec, _)| deletes(exec));
    all.map(|(_, setting)| {
        Finding::of(&setting)
            .advice("Leave the path to the .socket unit, and state to RuntimeDirectory= or StateDirectory=.")
    })
    .collect()
}
