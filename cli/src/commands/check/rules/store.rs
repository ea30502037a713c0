//! HO22x: the fd store, and what must survive a crash.

use crate::commands::check::directives::INSTALL;
use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, SOCKET, Service, Setting, Socket, UNIT, Unit};
use crate::commands::check::value::is_off;

/// Entries beyond what is kept: while one is replaced, the old and the new one are in the store.
const SPARE: u64 = 1;

/// Where other file systems are mounted, and memory that a soft reboot clears away.
const MOUNTED: [&str; 5] = ["/mnt/", "/media/", "/run/media/", "/tmp/", "/var/tmp/"];

pub(super) const RULES: &[Row] = &[
    ("HO221", Service(off)),
    ("HO222", Service(small)),
    ("HO223", Service(preserve)),
    ("HO224", Service(unkept)),
    ("HO225", Service(unwanted)),
    ("HO226", Service(unmounted)),
    ("HO227", Socket(undeferred)),
];

fn room(pair: &Pair<'_>) -> u64 {
    let listeners = pair.listeners().map(|socket| socket.listens() as u64).sum::<u64>();
    listeners.max(1).saturating_add(pair.limits.stored.unwrap_or_default()).saturating_add(SPARE)
}

fn off(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    if service.stores().is_some() {
        return None;
    }
    let preserve = service.text(SERVICE, "FileDescriptorStorePreserve");
    let preserve = preserve.filter(|setting| matches!(setting.value(), "yes" | "restart" | "on-success"));
    let finding = match (preserve, pair.limits.stored) {
        (Some(setting), _) => Finding::of(&setting).but(", but the store has no room"),
        (None, Some(stored @ 1..)) => {
            let message = format!("{stored} entries are to be stored, but there is no FileDescriptorStoreMax=");
            Finding::missing(service, SERVICE, message)
        }
        _ if service.environment("HANDOVER_MIGRATE").as_deref() == Some("restart") => {
            let message = "connections are to wait for the next start, but there is no FileDescriptorStoreMax=";
            Finding::missing(service, SERVICE, message)
        }
        _ => return None,
    };
    Some(finding.set(SERVICE, "FileDescriptorStoreMax", room(pair).max(64)))
}

fn small(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let needed = room(pair);
    let (max, setting) = service.stores().filter(|(max, _)| *max < needed)?;
    let message = format!("FileDescriptorStoreMax={max}, but {needed} may be needed: listeners, states and one more");
    Some(Finding::at(&setting, message).instead(&needed.to_string()))
}

fn preserve(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let target = pair.limits.target_below(254)?;
    let setting = service.text(SERVICE, "FileDescriptorStorePreserve")?;
    Some(Finding::of(&setting).but(format!(", but the target is systemd {target}")))
}

fn unkept(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let kept = service.stores().is_some() || pair.listeners().next().is_some() || service.required_socket().is_some();
    let finding = || Finding::missing(service, SERVICE, "no .socket unit, and no FileDescriptorStoreMax=");
    (!kept).then(|| finding().set(SERVICE, "FileDescriptorStoreMax", room(pair).max(64)))
}

/// What is kept over a soft reboot, too.
fn preserved(service: &Unit) -> Option<Setting<'_>> {
    service.stores()?;
    service
        .text(SERVICE, "FileDescriptorStorePreserve")
        .filter(|setting| matches!(setting.value(), "yes" | "on-success"))
}

fn unwanted(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let setting = preserved(service)?;
    let wants =
        |unit: &Unit| ["WantedBy", "RequiredBy", "UpheldBy"].iter().any(|key| !unit.list(INSTALL, key).is_empty());
    // Its socket may be another file's, which is not known here.
    let elsewhere = service.required_socket().is_some() && pair.listeners().next().is_none();
    let wanted = wants(service) || elsewhere || pair.listeners().any(wants);
    (!wanted).then(|| Finding::of(&setting).but(", but after a soft reboot nothing wants the unit"))
}

fn unmounted(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    preserved(service)?;
    let commands = service.commands("ExecStart");
    let (exec, setting) = commands.iter().find(|(exec, _)| MOUNTED.iter().any(|at| exec.path.starts_with(at)))?;
    let message = format!("{} may not be there after a soft reboot", exec.path);
    Some(Finding::at(setting, message))
}

fn undeferred(socket: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    socket.text(UNIT, "DefaultDependencies").filter(|setting| is_off(setting.value()))?;
    let stays = socket.on(UNIT, "IgnoreOnIsolate")?;
    if let Some(target) = pair.limits.target_below(258) {
        let advice = "Leave IgnoreOnIsolate= away: systemd binds the socket anew after a soft reboot.";
        let message = format!(", but systemd {target} has no DeferTrigger=");
        return Some(Finding::of(&stays).but(message).advice(advice));
    }
    let defers = socket.text(SOCKET, "DeferTrigger").is_some_and(|setting| !is_off(setting.value()));
    (!defers).then(|| Finding::of(&stays).but(", but no DeferTrigger=").set(SOCKET, "DeferTrigger", "patient"))
}
