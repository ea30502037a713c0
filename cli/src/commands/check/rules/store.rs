//! HO22x: the fd store, and what must survive a crash.

use crate::commands::check::rule::{Error, Finding, Info, Pair, Rule, SERVICE, Unit, Warning};

/// Entries beyond what is kept: while one is replaced, the old and the new one are in the store.
const SPARE: u64 = 1;

pub(super) const RULES: &[Rule] = &[
    Rule::rolling("HO221", "store-off", Error, "the fd store is used, but FileDescriptorStoreMax= is 0")
        .why("systemd refuses every fd that the service wants kept, and says so only in its own log.")
        .remedy("FileDescriptorStoreMax= with room for the listeners, the states and one more.")
        .link("systemd.service#FileDescriptorStoreMax")
        .service(off),
    Rule::rolling("HO222", "store-small", Warning, "FileDescriptorStoreMax= is below what is kept")
        .why("On a full store even an entry that only replaces another one is refused.")
        .remedy("FileDescriptorStoreMax= of the listeners, the states (--stored, Stored=) and one more.")
        .link("systemd.service#FileDescriptorStoreMax")
        .service(small),
    Rule::any("HO223", "store-preserve-ignored", Info, "FileDescriptorStorePreserve= for a systemd older than 254")
        .why("systemd before 254 ignores the line: the store is kept over restarts and crashes, and not over a stop.")
        .remedy("Nothing, if a stop may lose what is in the store.")
        .link("systemd.service#FileDescriptorStorePreserve")
        .service(preserve),
    Rule::rolling("HO224", "listener-unkept", Warning, "neither a .socket unit nor an fd store keeps the listener")
        .why("When the main process crashes its port is closed, and clients are refused until the service is up again.")
        .remedy("A .socket unit for the service, or FileDescriptorStoreMax=.")
        .link("design")
        .service(unkept),
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
    let preserve = preserve.filter(|setting| matches!(setting.value(), "yes" | "restart"));
    let finding = match (preserve, pair.limits.stored) {
        (Some(setting), _) => Finding::of(&setting).but(", but the store has no room"),
        (None, Some(stored @ 1..)) => {
            let message = format!("{stored} entries are to be stored, but there is no FileDescriptorStoreMax=");
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
