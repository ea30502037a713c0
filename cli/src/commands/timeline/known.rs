//! What each `MESSAGE_ID` means here: systemd's own, and ours.

use handover::service::events;

/// As far as a timeline cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours(&'static str),
    /// A job that reloads the unit has begun.
    Reloading,
    /// It is over; `JOB_RESULT` says how.
    Reloaded,
    Started,
    StartFailed,
    Stopping,
    Stopped,
    /// `Failed with result 'exit-code'.`
    Failed,
    /// Not logged of a process that ended well.
    ProcessExit,
    RestartScheduled,
    OutOfMemory,
}

/// From systemd's sd-messages.h; they never change.
const SYSTEMD: [(&str, Kind); 10] = [
    ("d34d037fff1847e6ae669a370e694725", Kind::Reloading),
    ("7b05ebc668384222baa8881179cfda54", Kind::Reloaded),
    ("39f53479d3a045ac8e11786248231fbf", Kind::Started),
    ("be02cf6855d2428ba40df7e9d022f03d", Kind::StartFailed),
    ("de5b426a63be47a7b6ac3eaac82e2f6f", Kind::Stopping),
    ("9d1aaa27d60140bd96365438aad20286", Kind::Stopped),
    ("d9b373ed55a64feb8242e02dbe79a49c", Kind::Failed),
    ("98e322203f7a4ed290d09fe03c09fe15", Kind::ProcessExit),
    ("5eb03494b6584870a536b337290809b3", Kind::RestartScheduled),
    ("fe6faa94e7774663a0da52717891d8ef", Kind::OutOfMemory),
];

pub(super) fn kind(message_id: &str) -> Option<Kind> {
    let systemds = SYSTEMD.iter().find(|(id, _)| *id == message_id).map(|(_, kind)| *kind);
    systemds.or_else(|| events::ALL.iter().find(|(_, id)| *id == message_id).map(|(_, id)| Kind::Ours(id)))
}

/// What stands among the reloads as a mark of its own: what that is called, and whether it is bad.
pub(super) fn mark(kind: Kind) -> Option<(&'static str, bool)> {
    Some(match kind {
        Kind::Ours(events::RECLAIMED) => ("reclaimed", true),
        Kind::Ours(events::UNHEALTHY) => ("unhealthy", true),
        Kind::Ours(events::HEALTHY) => ("healthy", false),
        Kind::Ours(events::TOO_MANY_DRAIN) => ("too_many_drain", true),
        Kind::Ours(events::DRAINER_KILLED) => ("drainer_killed", true),
        Kind::Started => ("started", false),
        Kind::StartFailed => ("start_failed", true),
        Kind::Stopped => ("stopped", false),
        Kind::Failed => ("failed", true),
        Kind::ProcessExit => ("process_exit", true),
        Kind::RestartScheduled => ("restart", false),
        Kind::OutOfMemory => ("out_of_memory", true),
        Kind::Ours(_) | Kind::Reloading | Kind::Reloaded | Kind::Stopping => return None,
    })
}

/// All that are asked for.
pub(super) fn ids() -> impl Iterator<Item = &'static str> {
    SYSTEMD.iter().map(|(id, _)| *id).chain(events::ALL.iter().map(|(_, id)| *id))
}
