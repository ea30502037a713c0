//! What a service's own generation hears: events go up, from tasks and other generations.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use crate::drain::Idle;
use crate::drain::moving::Resuming;
use crate::error::Result;
use crate::generation::{FailedFile, Next};
use crate::lifecycle::Event;
use crate::metrics::Carried;
use crate::reload::handle::ServiceRequest;
use crate::reload::hook_runner::Decision;
use crate::reload::inquiry::Holding;
use crate::settings::signals::{Response, Signal};
use crate::systemd::fdstore::{Snapshot, Transfer};
use crate::systemd::follows::Follows;
use crate::systemd::pressure::Resource;
use crate::wire::frame::Frame;

/// Where tasks leave what they have found out.
pub(crate) type InputSender = mpsc::UnboundedSender<Input>;

/// Everything that happens to a generation, one at a time. The number of an attempt tells what is
/// heard of the running reload from what still comes of one before it.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    ServiceRequest(ServiceRequest),
    Signal(Signal, Response),
    /// The hooks before a signal are over.
    SignalReady(Signal, Response),
    /// What the hooks of a reload say.
    Decided(u64, Result<Decision, String>),
    /// The next generation was started, or could not be.
    Spawned(u64, Result<(Next, Snapshot)>),
    FromNext(u64, Frame, Vec<OwnedFd>),
    NextFailed(u64, String),
    /// The fd store is ready for the switch, or cannot be.
    Prepared(u64, Result<Transfer>),
    /// The previous generation passes what it got since we were started.
    Entries(Vec<String>, Vec<OwnedFd>),
    /// The previous generation removed what we were started with.
    Gone(Vec<String>),
    /// Connections of the previous generation come by this socket.
    Moving(Vec<OwnedFd>),
    /// The service manager has told what follows the stop.
    Follows(Follows),
    /// What was in hand when the stop began is finished.
    Settled,
    /// A generation that drained has ended, and what it has left can be looked at.
    Left,
    /// What was found to be served on is insured here, too.
    Secured(Resuming),
    /// None of our own connections is left that can move.
    AllMoved,
    /// Counts of an older generation.
    Counted(Carried),
    /// The main generation asks us, who drain, what is open.
    Asked,
    /// An older generation tells what it holds.
    Told(u64, Holding),
    /// Who has not told by now does not count.
    AskedLongEnough,
    DrainerGone(u64),
    /// Nothing is in hand any more in that pause.
    AtRest(u64),
    /// That pause has lasted for as long as it may.
    PausedLongEnough(u64),
    /// There has been nothing to do for as long as it is set.
    Idle(Idle),
    /// The service manager has told of pressure on this.
    Pressure(Resource),
    /// Another generation has told that the pause is over.
    Resumed,
    /// A reload was held back for as long as it may be.
    HeldLongEnough,
    OwnDrainDone,
    /// What a reload failed with was looked at; and what the service manager was told of it.
    Failed(FailedFile, String),
}
