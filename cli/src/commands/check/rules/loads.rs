//! What systemd 252 to 262 does not load, by `service_verify` and its like in its source.

use crate::commands::check::command::Exec;
use crate::commands::check::parse::Why;
use crate::commands::check::rule::{Finding, Pair, SERVICE, SOCKET, Setting, UNIT, Unit};
use crate::commands::check::value;
use crate::safe::short;

/// At most one finding: systemd does not go on either.
pub(super) fn refused(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let refusal = own_file(unit).or_else(|| if unit.name.is_socket() { socket(unit) } else { service(unit) });
    refusal.into_iter().collect()
}

fn own_file(unit: &Unit) -> Option<Finding> {
    // What is wrong in a drop-in is passed over with the rest of that drop-in.
    let mut read = unit.own().filter(|setting| [SERVICE, SOCKET].contains(&setting.at.section));
    let bad = |setting: &Setting<'_>| bad_command(setting).or_else(|| bad_value(setting));
    let first = read.find_map(|setting| Some((setting, bad(&setting)?)));
    match (unit.fatal(), first) {
        (fatal, Some((setting, reason))) if fatal.as_ref().is_none_or(|(place, _)| place.line > setting.at.line) => {
            let message = format!("bad-setting: {reason}, in {}={}", setting.key(), short(setting.value(), 200));
            Some(Finding::at(&setting, message).advice("Correct the line."))
        }
        (Some((place, ignored)), _) => {
            let what = match ignored.why {
                Why::BadHeader => "a line that begins with `[` is no [Section]",
                Why::NotUtf8 => "a line is not UTF-8",
                _ => "a line is longer than 1 MiB",
            };
            Some(Finding::on(place, format!("error: {what}")).advice("Correct or remove the line."))
        }
        _ => None,
    }
}

/// The few settings whose value is not passed over where it cannot be read: with them the service
/// would run less confined than is meant.
fn bad_value(setting: &Setting<'_>) -> Option<&'static str> {
    let value = setting.expanded();
    match setting.key() {
        "DynamicUser" => value::boolean(&value).is_none().then_some("neither yes nor no"),
        "WorkingDirectory" if value.starts_with('-') || value == "~" => None,
        "WorkingDirectory" | "RootDirectory" | "RootImage" | "RootVerity" => {
            (!value.is_empty() && !value.starts_with(['/', '%'])).then_some("no absolute path")
        }
        _ => None,
    }
}

/// Why systemd can make nothing of a command. With `-` before it, it is ignored.
fn bad_command(setting: &Setting<'_>) -> Option<&'static str> {
    if !setting.key().starts_with("Exec") || ["ExecPaths", "ExecSearchPath"].contains(&setting.key()) {
        return None;
    }
    let text = setting.expanded();
    let commands = Exec::parse(&text);
    // Which of several the quote is in is not looked into: one `-` counts for all.
    if commands.iter().any(|exec| exec.prefixes.contains('-')) {
        return None;
    }
    if value::has_open_quote(&text) {
        return Some("a quote is not closed");
    }
    commands.iter().find_map(|exec| match exec.path.as_str() {
        "" => Some("there is no path"),
        path if path.ends_with('/') => Some("the path is one of a directory"),
        path if path.contains('%') => None,
        path if !path.starts_with('/') && path.contains('/') => Some("the path is neither absolute nor a bare name"),
        "." | ".." => Some("that is no program"),
        _ => None,
    })
}

fn service(service: &Unit) -> Option<Finding> {
    let starts = service.commands("ExecStart");
    // One that says nothing, and has nothing to start, is taken for a job.
    let (kind, said) = match service.service_type() {
        ("simple", None) if starts.is_empty() => ("oneshot", None),
        other => other,
    };
    if starts.is_empty() {
        let succeeds = service.text(UNIT, "SuccessAction").is_some_and(|s| s.value() != "none");
        let reason = match () {
            () if kind != "oneshot" => "there is no ExecStart=, which only Type=oneshot may lack",
            () if succeeds => return None,
            () if service.commands("ExecStop").is_empty() => "there is neither ExecStart= nor ExecStop=",
            () if service.on(SERVICE, "RemainAfterExit").is_none() => {
                "there is no ExecStart=, and no RemainAfterExit=yes that ExecStop= would need"
            }
            () => return None,
        };
        return Some(Finding::missing(service, SERVICE, format!("bad-setting: {reason}")));
    }
    if let (false, Some((_, second))) = (kind == "oneshot", starts.get(1)) {
        let message = format!("bad-setting: a second ExecStart=, which only Type=oneshot may have, not {kind}");
        let advice = "One program in ExecStart=; what is to run before it in ExecStartPre=. In a drop-in an empty ExecStart= goes first.";
        return Some(Finding::at(second, message).advice(advice));
    }
    if kind == "oneshot" {
        if let Some(setting) = service.text(SERVICE, "Restart").filter(|s| matches!(s.value(), "always" | "on-success"))
        {
            let message = format!("bad-setting: Restart={} with Type=oneshot", setting.value());
            return Some(Finding::at(&setting, message).advice("Restart=on-failure, or no Restart=."));
        }
        if let Some(setting) = service.text(SERVICE, "ExitType").filter(|s| s.value() == "cgroup") {
            return Some(Finding::at(&setting, "bad-setting: ExitType=cgroup with Type=oneshot"));
        }
    }
    if let ("dbus", Some(setting), None) = (kind, said, service.text(SERVICE, "BusName")) {
        return Some(Finding::at(&setting, "bad-setting: Type=dbus without BusName="));
    }
    pam(service)
}

fn socket(socket: &Unit) -> Option<Finding> {
    let none = |keys: &[&str]| keys.iter().all(|key| socket.list(SOCKET, key).is_empty());
    if socket.listens() == 0 && none(&["ListenSpecial", "ListenUSBFunction"]) {
        let message = "bad-setting: there is no ListenStream= or other Listen setting";
        return Some(Finding::missing(socket, SOCKET, message));
    }
    if let Some(accept) = socket.on(SOCKET, "Accept") {
        if let Some(setting) = socket.text(SOCKET, "Service") {
            let message = "bad-setting: Service= with Accept=yes, which starts a template of the socket's own name";
            return Some(Finding::at(&setting, message).advice("Remove Service=, or Accept=yes."));
        }
        // Only what is connected to can be accepted from.
        if none(&["ListenStream", "ListenSequentialPacket"]) {
            return Some(Finding::at(&accept, "bad-setting: Accept=yes, but nothing that connections could come to"));
        }
    }
    pam(socket)
}

fn pam(unit: &Unit) -> Option<Finding> {
    unit.text(unit.own_section(), "PAMName")?;
    let mode = unit.text(unit.own_section(), "KillMode").filter(|s| matches!(s.value(), "none" | "process"))?;
    let message = format!("bad-setting: KillMode={} with PAMName=", mode.value());
    Some(Finding::at(&mode, message).instead("control-group"))
}
