//! A service under systemd is reloaded and upgraded without its clients noticing.
//!
//! On SIGHUP a [`Service`] starts the *next generation* of itself from the file that is at its path
//! now, passes it the listening sockets, and waits until it is ready. Then the two switch: the new
//! one accepts, the old one stops accepting. The old one names the new one to systemd as its main
//! process, gives it the connections that can [move](docs::migration), finishes the others, and
//! exits. If the new generation fails before that (it
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
//! # What is served, and how
//!
//! One function for each protocol, and one more with settings, which come by value and before what
//! is served. The free functions do the same with nothing but a [`Drain`](drain::Drain), for
//! programs whose activation and notification are their own.
//!
//! | protocol | in a service | alone |
//! |---|---|---|
#![cfg_attr(
    feature = "http",
    doc = "| HTTP/1, HTTP/2 | [`serve_http`](Service::serve_http), [`serve_http_with`](Service::serve_http_with) | [`http::serve`] |"
)]
#![cfg_attr(
    all(feature = "http", feature = "tls"),
    doc = "| HTTPS | [`serve_https`](Service::serve_https), [`serve_https_with`](Service::serve_https_with) | [`http::serve_tls`] |"
)]
//! | any on TCP or Unix streams | [`serve_stream`](Service::serve_stream), [`serve_stream_with`](Service::serve_stream_with) | [`drain::serve_stream`] |
//! | any on Unix packets | [`serve_seqpacket`](Service::serve_seqpacket), [`serve_seqpacket_with`](Service::serve_seqpacket_with) | [`drain::serve_stream`] |
//! | any on UDP or Unix datagrams | [`serve_datagrams`](Service::serve_datagrams), [`serve_datagrams_with`](Service::serve_datagrams_with) | [`drain::serve_datagrams`] |
//! | the one connection of `Accept=yes` | [`serve_connection`](Service::serve_connection) | [`Activation::connection`](systemd::activation::Activation::connection) |
//! | loops of your own | [`listeners`](Service::listeners), [`datagrams`](Service::datagrams), [`flows`](Service::flows), [`fds`](Service::fds) | [`drain::Acceptor`], [`drain::Datagrams`], [`drain::Flows`] |
//!
//! # Each layer alone
//!
//! | to | use |
//! |---|---|
//! | take sockets from systemd | [`systemd::activation`] |
//! | tell systemd something | [`systemd::notify`] |
//! | know whether the watchdog is on | [`systemd::watchdog`] |
//! | keep fds over crashes | [`systemd::fdstore`] |
//! | keep values over crashes | [`state`] |
//! | count connections, and end them in time | [`drain`] |
//! | run jobs, programs and queue workers, and end them in time | [`jobs`] |
//! | start a program with sockets as systemd would | [`Program`] |
//! | all of it together, with reloads | [`service`] |
//!
//! The modules of features are in the next table.
//!
//! # Features
//!
//! None is on by default, and none changes what another does.
//!
//! | feature | adds |
//! |---|---|
//! | `http` | `Service::serve_http` and the module `http`: hyper, with connections that linger |
//! | `axum` | `drain::Incoming` is a listener of `axum::serve` |
//! | `tonic` | `drain::Incoming` as a stream for tonic's own server |
//! | `tls` | the module `tls`: rustls, with certificates reloaded in place and sessions that outlive a generation; with `http`, `Service::serve_https` |
//! | `journald` | the module `logging`: [`tracing`] events as journald's own fields, as text where stderr is no journal |
//! | `control` | `Builder::control` and the module `control`: status, reload and events over Varlink, for `handover reload` and `varlinkctl` |
//! | `scope` | the module `systemd::scope`: a transient scope for each program of a job, over D-Bus |
//! | `metrics` | counters, gauges and histograms through the `metrics` facade, and the module `metrics` with their names |
//! | `supervise` | the module `supervise`: programs of any language, reloaded in the same way; what `handover run` is made of; has `control` |
//! | `settings` | `Settings::from_toml`: times, numbers and names from a file |
//! | `admin` | `Service::serve_admin` and the module `admin`: status, reload and stop over HTTP; has `control` and `http` |
//! | `upgrade` | the module `upgrade`: new programs verified, installed, and taken back if the service does not take them |
//! | `upgrade-remote` | programs that are fetched: over HTTP, from releases at GitHub, from S3; has `upgrade` |
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
//! the state machine's table, a fleet of machines, and how this compares with others.

pub mod drain;
mod error;
mod generation;
#[doc(hidden)]
pub mod internal;
pub mod jobs;
mod lifecycle;
mod reload;
pub mod service;
mod settings;
pub mod state;
mod sys;
pub mod systemd;
mod transit;
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

    #[doc = include_str!("docs/migration.md")]
    pub mod migration {}

    #[doc = include_str!("docs/parts.md")]
    pub mod parts {}

    #[doc = include_str!("docs/settings.md")]
    pub mod settings {}

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

    #[doc = include_str!("docs/fleet.md")]
    pub mod fleet {}

    #[doc = include_str!("docs/engines.md")]
    pub mod engines {}

    #[doc = include_str!("docs/json.md")]
    pub mod json {}

    #[doc = include_str!("docs/habits.md")]
    pub mod habits {}

    #[doc = include_str!("docs/comparison.md")]
    pub mod comparison {}
}

/// The code of the README, compiled.
#[cfg(all(doctest, feature = "http", feature = "journald"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
