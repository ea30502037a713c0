//! What systemd passes in and wants to be told: sockets, notifications, the watchdog.
//!
//! Each module is usable alone, without the rest of handover. All of them read the
//! [`Environment`](environment::Environment), which is captured once, and never change it.

pub mod activation;
pub mod environment;
pub mod fdstore;
pub(crate) mod follows;
pub mod notify;
pub(crate) mod pressure;
#[cfg(feature = "scope")]
pub mod scope;
pub mod watchdog;

mod barrier;
pub(crate) mod bind;
mod socket;
mod typed;
pub(crate) mod wanted;
