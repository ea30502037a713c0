//! A reload, told once for everybody: one driver over parts that own their state.
//!
//! The life of a generation is decided in `lifecycle`, which knows neither clocks nor fds. The
//! [`driver`] feeds it: an input becomes events, each event goes through the lifecycle of the
//! generation that it happens to, and the actions that come back are carried out by parts. A
//! [service](crate::service) drives its own generation in this way, a supervisor (feature
//! `supervise`) those of a program that knows nothing of it.
//!
//! Each part has one job and keeps its state to itself. It takes what happened, and returns what
//! must happen next; no part knows another.

pub(crate) mod arrivals;
pub(crate) mod clock;
pub(crate) mod custody;
pub(crate) mod drainers;
pub(crate) mod driver;
pub(crate) mod extend;
pub(crate) mod handle;
pub(crate) mod history;
pub(crate) mod hook_runner;
pub mod hooks;
pub(crate) mod input;
pub(crate) mod inquiry;
pub(crate) mod moment;
pub(crate) mod narrator;
pub(crate) mod outbox;
pub(crate) mod recovery;
pub(crate) mod requests;
pub(crate) mod status;
pub mod steps;
pub(crate) mod successor;
pub(crate) mod watch;
pub(crate) mod watchdog;
