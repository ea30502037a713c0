//! A service under systemd is reloaded and upgraded without its clients noticing.
//!
//! On SIGHUP a [`Service`] starts the *next generation* of itself from the file that is at its path
//! now, passes it the listening sockets, and waits until it is ready. Then the two switch: the new
//! one accepts, the old one stops accepting. The old one names the new one to systemd as its main
//! process, finishes what it had accepted, and exits. If the new generation fails before that (it
//! is missing, exits, hangs, says so), the old one has never stopped serving, and serves on.
//!
//! # The paved path
//!
//! With the feature `http`, for an axum `Router` or any other tower service:
//!
#![cfg_attr(feature = "http", doc = "```no_run")]
#![cfg_attr(not(feature = "http"), doc = "```ignore")]
//! use axum::{Router, routing::get};
//! use std::time::Duration;
//!
//! #[tokio::main]
//! async fn main() -> handover::Result<()> {
//!     let service = handover::Service::builder()
//!         .listen("http", "127.0.0.1:8080") // the name in the .socket unit; the address only without systemd
//!         .drain_timeout(Duration::from_secs(30))
//!         .start()?;
//!     service.serve_http("http", Router::new().route("/", get(|| async { "hello\n" })))?;
//!     service.run().await // ready, watchdog, SIGHUP → reload, SIGTERM → stop
//! }
//! ```
//!
//! The units that belong to it are in the [README](https://docs.rs/crate/handover/latest) and in
//! `packaging/systemd`. Without systemd the same program binds its address, tells nobody, and still
//! reloads on SIGHUP.
//!
//! # Each layer alone
//!
//! | to | use |
//! |---|---|
//! | reload a service that is not HTTP | [`Service::serve_stream`], [`Service::serve_seqpacket`], [`Service::serve_datagrams`]; [`Service::flows`] for connections on UDP; [`Acceptor`] and [`Datagrams`] for loops of your own |
//! | be reloaded with a FIFO, a message queue, a netlink socket | [`Service::datagrams`]; [`Service::fds`] for whatever else was passed |
//! | serve one connection per process (`Accept=yes`) | [`Service::serve_connection`] |
//! | tell systemd something | [`systemd::notify`] |
//! | take sockets from systemd | [`systemd::activation`] |
//! | know whether the watchdog is on | [`systemd::watchdog`] |
//! | count connections, and end them in time | [`Drain`] |
//! | run jobs, programs and queue workers, and end them in time | [`Jobs`] |
#![cfg_attr(
    feature = "http",
    doc = "| serve HTTP with a drain, activation and notify being your own | [`http::serve`] |"
)]
//! | start a program with sockets as systemd would | [`Program`] |
//!
//! # Features
//!
//! None is on by default, and none changes what another does.
//!
//! | feature | adds |
//! |---|---|
//! | `http` | `Service::serve_http` and the module `http`: hyper, with connections that linger |
//! | `tls` | the module `tls`: rustls, with certificates reloaded in place and sessions that outlive a generation; with `http`, `Service::serve_https` |
//! | `journald` | the module `logging`: [`tracing`] events as journald's own fields, as text where stderr is no journal |
//! | `control` | `Builder::control`: status, reload and events over Varlink, for `handover reload` and `varlinkctl` |
//! | `scope` | the module `systemd::scope`: a transient scope for each program of a job, over D-Bus |
//! | `metrics` | counters, gauges and histograms through the `metrics` facade, and the module `metrics` with their names |
//! | `supervise` | the module `supervise`: programs of any language, reloaded in the same way; what `handover run` is made of |
//! | `settings` | `Settings::from_toml`: times, numbers and names from a file |
//! | `admin` | `Service::serve_admin`: status, reload and stop over HTTP |
//! | `upgrade` | the module `upgrade`: new programs verified, installed, and taken back if the service does not take them |
//! | `upgrade-remote` | programs of `upgrade` that are fetched: over HTTP, from releases at GitHub, from S3 |
//!
//! The tool `handover` is the package `handover-cli`.
//!
//! # Requirements
//!
//! Linux, and a tokio runtime with I/O and time. Rust 1.88; a newer one is required only by a new
//! minor version. Developed against systemd 252, 257 and 262.
//!
//! # More
//!
//! The chapters in [`docs`]: what happens in a reload and why, what survives which event, what each
//! protocol does in a reload, the habits that people bring, the traps, what must be in the units,
//! the state machine's table, and how this compares with others.

pub mod drain;
mod error;
mod generation;
pub mod jobs;
mod lifecycle;
mod reload;
pub mod service;
mod settings;
pub mod state;
mod sys;
pub mod systemd;
mod wire;

#[cfg(feature = "journald")]
pub mod logging;

#[cfg(feature = "http")]
pub mod http;

#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "admin")]
pub mod admin;

#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "supervise")]
pub mod supervise;

#[cfg(feature = "upgrade")]
pub mod upgrade;

#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[expect(unreachable_pub, reason = "with the feature they are reachable")]
mod metrics;

pub use crate::error::{BoxError, Error, Result};
pub use crate::generation::program::{Process, Program};
pub use crate::jobs::Jobs;
pub use crate::service::{Builder, Handle, Reloaded, Service};
pub use crate::settings::Settings;

/// Chapters to read; there is no code in here.
pub mod docs {
    #[doc = include_str!("docs/design.md")]
    pub mod design {}

    #[doc = include_str!("docs/lifecycle.md")]
    pub mod lifecycle {}

    #[doc = include_str!("docs/jobs.md")]
    pub mod jobs {}

    #[doc = include_str!("docs/survival.md")]
    pub mod survival {}

    #[cfg(feature = "http")]
    #[doc = include_str!("docs/http.md")]
    pub mod http {}

    #[doc = include_str!("docs/metrics.md")]
    pub mod metrics {}
    #[doc = include_str!("docs/protocols.md")]
    pub mod protocols {}
    #[cfg(feature = "tls")]
    #[doc = include_str!("docs/tls.md")]
    pub mod tls {}

    #[doc = include_str!("docs/traps.md")]
    pub mod traps {}

    #[doc = include_str!("docs/operate.md")]
    pub mod operate {}

    #[doc = include_str!("docs/run.md")]
    pub mod run {}

    #[cfg(feature = "upgrade")]
    #[doc = include_str!("docs/upgrade.md")]
    pub mod upgrade {}
    #[doc = include_str!("docs/install.md")]
    pub mod install {}

    #[doc = include_str!("docs/check.md")]
    pub mod check {}

    #[doc = include_str!("docs/timeline.md")]
    pub mod timeline {}

    #[doc = include_str!("docs/prove.md")]
    pub mod prove {}

    #[doc = include_str!("docs/habits.md")]
    pub mod habits {}

    #[doc = include_str!("docs/comparison.md")]
    pub mod comparison {}
}

/// The code of the README, compiled.
#[cfg(all(doctest, feature = "http", feature = "journald"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
