//! What a service is made of, on its way from the builder to the generation that it becomes.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::generation::{Inherited, Origin};
use crate::jobs::Jobs;
use crate::reload::handle::{RequestSender, ServiceRequest};
use crate::reload::history::History;
use crate::reload::hooks::Hooks;
use crate::reload::input::{Input, InputSender};
use crate::reload::steps::Listeners;
use crate::reload::watchdog::Check;
use crate::service::handlers::Signals;
use crate::service::pidfile::Pidfile;
use crate::service::sockets::Sockets;
use crate::settings::Effective;
use crate::state::States;
use crate::sys::spawn::Parent;
use crate::systemd::notify::Notifier;
use crate::systemd::pressure::PressureSource;
use crate::systemd::watchdog::Watchdog;

/// The application's bytes for the next generation.
#[derive(Clone)]
pub(crate) struct StateFn(pub(crate) Arc<dyn Fn() -> Vec<u8> + Send + Sync>);

impl fmt::Debug for StateFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateFn")
    }
}

/// The parts list.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) number: u64,
    /// The reload that this generation came with.
    pub(crate) handover_id: Option<Arc<str>>,
    pub(crate) inherited: Option<Inherited>,
    pub(crate) settings: Effective,
    pub(crate) hooks: Hooks,
    pub(crate) pidfile: Option<Pidfile>,
    /// Whether it waits for adopted processes, if there are any.
    pub(crate) reaps: bool,
    pub(crate) sockets: Arc<Mutex<Sockets>>,
    pub(crate) states: States,
    pub(crate) drain: Drain,
    pub(crate) jobs: Jobs,
    pub(crate) notifier: Notifier,
    pub(crate) watchdog: Option<Watchdog>,
    /// Where pressure is told under which a drain hurries.
    pub(crate) pressure: Vec<PressureSource>,
    pub(crate) check: Option<Check>,
    pub(crate) state: Option<StateFn>,
    pub(crate) listeners: Listeners,
    pub(crate) history: History,
    pub(crate) origin: Origin,
    /// Whose child the next generation becomes.
    pub(crate) parent: Parent,
    /// Whether a service manager tracks the main process.
    pub(crate) managed: bool,
    /// Whether one does that cannot be told of another main process.
    pub(crate) untold: bool,
    /// PID 1 of the container, which ends with this process.
    pub(crate) ending_init: Option<String>,
    pub(crate) signals: Signals,
    pub(crate) requests: RequestSender,
    pub(crate) asked: mpsc::UnboundedReceiver<ServiceRequest>,
    pub(crate) inputs: InputSender,
    pub(crate) heard: mpsc::UnboundedReceiver<Input>,
}
