//! HO22x: the fd store, and what must survive a crash.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::{Pair, passes_listeners, required_socket};
use crate::commands::check::unit::{SERVICE, SOCKET, Unit};

/// Entries beyond what is kept: while one is replaced, the old and the new one are in the store.
const SPARE: u64 = 1;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO221",
        name: "store-off",
        severity: Severity::Error,
        scope: Scope::Rolling,
        title: "the fd store is used, but FileDescriptorStoreMax= is 0",
        why: "systemd refuses every fd that the service wants kept, and says so only in its own log.",
        remedy: "FileDescriptorStoreMax= with room for the listeners, the states and one more.",
        link: Link::Man("systemd.service#FileDescriptorStoreMax"),
        check: Check::Service(off),
    },
    Rule {
        id: "HO222",
        name: "store-small",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "FileDescriptorStoreMax= is below what is kept",
        why: "On a full store even an entry that only replaces another one is refused.",
        remedy: "FileDescriptorStoreMax= of the listeners, the states (--stored, Stored=) and one more.",
        link: Link::Man("systemd.service#FileDescriptorStoreMax"),
        check: Check::Service(small),
    },
    Rule {
        id: "HO223",
        name: "store-preserve-ignored",
        severity: Severity::Info,
        scope: Scope::Any,
        title: "FileDescriptorStorePreserve= for a systemd older than 254",
        why: "systemd before 254 ignores the line: the store is kept over restarts and crashes, and not over a stop.",
        remedy: "Nothing, if a stop may lose what is in the store.",
        link: Link::Man("systemd.service#FileDescriptorStorePreserve"),
        check: Check::Service(preserve),
    },
    Rule {
        id: "HO224",
        name: "listener-unkept",
        severity: Severity::Warning,
        scope: Scope::Rolling,
        title: "neither a .socket unit nor an fd store keeps the listener",
        why: "When the main process crashes its port is closed, and clients are refused until the service is up again.",
        remedy: "A .socket unit for the service, or FileDescriptorStoreMax=.",
        link: Link::Docs("design"),
        check: Check::Service(unkept),
    },
];

fn listeners(pair: &Pair<'_>) -> u64 {
    let lines = |unit: &Unit| {
        let keys = [
            "ListenStream",
            "ListenDatagram",
            "ListenSequentialPacket",
            "ListenFIFO",
            "ListenNetlink",
            "ListenMessageQueue",
        ];
        keys.iter().map(|key| unit.list(SOCKET, key).len() as u64).sum::<u64>()
    };
    pair.sockets.iter().filter(|s| passes_listeners(s)).map(|s| lines(s)).sum()
}

fn room(pair: &Pair<'_>) -> u64 {
    listeners(pair).max(1).saturating_add(pair.limits.stored.unwrap_or_default()).saturating_add(SPARE)
}

fn off(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    if service.count(SERVICE, "FileDescriptorStoreMax").is_some_and(|(max, _)| max > 0) {
        return None;
    }
    let preserve =
        service.text(SERVICE, "FileDescriptorStorePreserve").filter(|s| matches!(s.value(), "yes" | "restart"));
    let finding = match (preserve, pair.limits.stored) {
        (Some(setting), _) => {
            Finding::at(&setting, format!("{}={}, but the store has no room", setting.key(), setting.value()))
        }
        (None, Some(stored)) if stored > 0 => Finding::missing(
            service,
            SERVICE,
            format!("{stored} entries are to be stored, but there is no FileDescriptorStoreMax="),
        ),
        _ => return None,
    };
    Some(finding.set(SERVICE, "FileDescriptorStoreMax", &room(pair).max(64).to_string()))
}

fn small(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let (max, setting) = service.count(SERVICE, "FileDescriptorStoreMax").filter(|(max, _)| *max > 0)?;
    let needed = room(pair);
    let message = format!("FileDescriptorStoreMax={max}, but {needed} may be needed: listeners, states and one more");
    (max < needed).then(|| Finding::at(&setting, message).set(SERVICE, "FileDescriptorStoreMax", &needed.to_string()))
}

fn preserve(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let target = pair.target_is_below(254)?;
    let setting = service.text(SERVICE, "FileDescriptorStorePreserve")?;
    let message = format!("{}={}, but the target is systemd {target}", setting.key(), setting.value());
    Some(Finding::at(&setting, message).advice("Nothing to do, if a stop may lose what is in the store."))
}

fn unkept(service: &Unit, pair: &Pair<'_>) -> Option<Finding> {
    let stores = service.count(SERVICE, "FileDescriptorStoreMax").is_some_and(|(max, _)| max > 0);
    if stores || pair.has_listeners() || required_socket(service).is_some() {
        return None;
    }
    let finding = Finding::missing(service, SERVICE, "no .socket unit, and no FileDescriptorStoreMax=");
    Some(finding.set(SERVICE, "FileDescriptorStoreMax", &room(pair).max(64).to_string()))
}
