//! A service under systemd, reloaded, upgraded, crashed and restarted without its clients noticing.

mod drain;
mod error;
mod generation;
mod lifecycle;
mod service;
mod sys;
pub mod systemd;
mod wire;

#[cfg(feature = "http")]
pub mod http;

pub use crate::drain::{Cut, Cutting, Drain, DrainSignal, Guard};
pub use crate::error::{Error, Result};
pub use crate::service::{Builder, Handle, Service};
