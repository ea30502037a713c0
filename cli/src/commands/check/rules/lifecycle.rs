//! HO1xx, first part: what systemd takes the service for, and what it does when it ends.

use crate::commands::check::command::{Exec, RELOAD};
use crate::commands::check::pair::Trust;
use crate::commands::check::rule::{Error, Finding, Info, Pair, Remedy, Rule, SERVICE, Set, UNIT, Unit, Warning};
use crate::commands::check::value::is_on;

pub(super) const RULES: &[Rule] = &[
    Rule::rolling("HO101", "type", Error, "Type= is neither notify nor notify-reload")
        .why("Only by the notify protocol can a service tell systemd that another process is its main process now.")
        .remedy("Type=notify, or Type=notify-reload from systemd 253 on.")
        .link("systemd.service#Type")
        .service(kind),
    Rule::any("HO102", "notify-reload-too-new", Error, "Type=notify-reload for a systemd older than 253")
        .why("systemd before 253 does not know the type, ignores the line and takes the service for Type=simple.")
        .remedy("Type=notify, with an ExecReload=.")
        .link("systemd.service#Type")
        .service(too_new),
    Rule::rolling("HO103", "pid-file", Error, "PIDFile= is set")
        .why("systemd reads the file again after ExecReload=, and a stale one makes the old process main again.")
        .remedy("Remove PIDFile=: the notify protocol names the main process.")
        .link("traps")
        .when(SERVICE, "PIDFile", |_| true, Set("")),
    Rule::rolling("HO104", "kill-mode", Error, "KillMode= is not control-group")
        .why("An old generation drains beside the main process: `mixed` kills it the moment main exits, `process` and `none` leave it behind.")
        .remedy("KillMode=control-group, which is the default.")
        .link("systemd.kill#KillMode")
        .when(SERVICE, "KillMode", |mode| mode != "control-group", Set("control-group")),
    Rule::rolling("HO105", "notify-access-none", Error, "NotifyAccess=none")
        .why("Messages of the service are not listened to, or systemd overrules the line silently where Type= or WatchdogSec= need them.")
        .remedy("NotifyAccess=main.")
        .link("systemd.service#NotifyAccess")
        .when(SERVICE, "NotifyAccess", |access| access == "none", Set("main")),
    Rule::rolling("HO106", "notify-access-all", Warning, "NotifyAccess=all")
        .why("Every process of the service, a job's child too, could say that it is main, ready or stopping; handover needs only `main`.")
        .remedy("NotifyAccess=main.")
        .link("systemd.service#NotifyAccess")
        .when(SERVICE, "NotifyAccess", |access| access == "all", Set("main")),
    Rule::rolling("HO107", "exit-type", Warning, "ExitType=cgroup")
        .why("The crash of the main process goes unnoticed for as long as an old generation drains.")
        .remedy("ExitType=main, which is the default.")
        .link("systemd.service#ExitType")
        .when(SERVICE, "ExitType", |kind| kind == "cgroup", Set("main")),
    Rule::rolling("HO108", "remain-after-exit", Error, "RemainAfterExit=yes")
        .why("After its main process has gone the unit still counts as active, and nothing starts it again.")
        .remedy("RemainAfterExit=no, which is the default.")
        .link("systemd.service#RemainAfterExit")
        .when(SERVICE, "RemainAfterExit", is_on, Set("no")),
    Rule::rolling("HO109", "no-restart", Warning, "Restart= does not follow a crash")
        .why("A crash of the main process is survived only if systemd starts the service again; the sockets wait meanwhile.")
        .remedy("Restart=on-failure.")
        .link("systemd.service#Restart")
        .service(no_restart),
    Rule::rolling("HO110", "restart-always", Info, "Restart=always")
        .why("A main process that ends by mistake with exit code 0 is started again and looks healthy; on-failure shows it.")
        .remedy("Restart=on-failure, unless the service is meant to end and begin again.")
        .link("systemd.service#Restart")
        .when(SERVICE, "Restart", |restart| restart == "always", Remedy),
    Rule::rolling("HO111", "stop-post-deletes", Warning, "ExecStopPost= deletes files")
        .why("It runs between a crash and the restart too, and takes away the socket's path or the state that the next process needs.")
        .remedy("Leave the socket's path to the .socket unit, and state to StateDirectory= or RuntimeDirectory= with RuntimeDirectoryPreserve=restart.")
        .link("systemd.service#ExecStopPost")
        .service_all(stop_post),
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
