//! What a supervisor was told before it started, and does not change.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::reload::handle::{RequestSender, ServiceRequest};
use crate::reload::steps::Listeners;
use crate::settings::Effective;
use crate::supervise::child::Recipe;
use crate::supervise::inheritance::Inheritance;
use crate::supervise::notified::Inbox;
use crate::supervise::place::NotifyPlace;
use crate::supervise::ready::{Probe, Ready};
use crate::supervise::renew::{OwnProgram, Resumed};
use crate::supervise::stop::StopSignals;
use crate::systemd::notify::Notifier;
use crate::systemd::watchdog::Watchdog;

/// What happens when a program ends that was not told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnCrash {
    /// It is started again, after a pause that grows with each crash. Connections wait in the
    /// backlog of the sockets meanwhile.
    #[default]
    Restart,
    /// The supervisor ends with an error, so that `Restart=` of the unit rules.
    Exit,
}

/// Whose notifications count, as `NotifyAccess=` says it of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Senders {
    /// Those of the process that was started.
    #[default]
    Main,
    /// Those of all processes that came from it, too.
    All,
}

/// When the program is ready, and how it is reloaded and stopped.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) ready: Ready,
    pub(crate) senders: Senders,
    /// The group that may reach the socket for notifications.
    pub(crate) notify_group: Option<u32>,
    pub(crate) stop_signals: StopSignals,
    /// The pause between the handover and the first of these signals.
    pub(crate) drain_delay: Duration,
    pub(crate) on_crash: OnCrash,
    pub(crate) good_after: Duration,
    pub(crate) workers: usize,
    pub(crate) at_a_time: usize,
}

/// What a supervision begins with.
#[derive(Debug)]
pub(crate) struct Foundation {
    pub(crate) terms: Terms,
    pub(crate) settings: Effective,
    pub(crate) recipe: Recipe,
    pub(crate) probe: Option<Probe>,
    pub(crate) inheritance: Inheritance,
    pub(crate) inbox: Inbox,
    /// Where the socket of the inbox is.
    pub(crate) place: NotifyPlace,
    /// The listener of the control interface, which is kept over a renewal.
    pub(crate) control: Option<OwnedFd>,
    /// The supervisor's own program, or why it cannot be started anew.
    pub(crate) own: Result<OwnProgram, String>,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) notifier: Notifier,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) drain: Drain,
    pub(crate) listeners: Listeners,
    pub(crate) requests: RequestSender,
    pub(crate) asked: mpsc::UnboundedReceiver<ServiceRequest>,
}
