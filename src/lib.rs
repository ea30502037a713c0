//! A service under systemd, reloaded, upgraded, crashed and restarted without its clients noticing.

mod drain;
mod error;
mod generation;
mod lifecycle;
pub mod service;
mod sys;
pub mod systemd;
mod wire;

#[cfg(feature = "journald")]
pub mod logging;

#[cfg(feature = "http")]
pub mod http;

pub use crate::drain::{Cut, Cutting, Drain, DrainSignal, Guard};
pub use crate::error::{Error, Result};
pub use crate::generation::program::{Process, Program};
pub use crate::service::{Builder, Handle, Reloaded, Service};
