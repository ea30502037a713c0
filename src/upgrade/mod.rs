//! New programs: fetched, verified, put in place of the running one, and put back if the service
//! does not take them.
//!
//! ```text
//! fetch → size, SHA-256, signature, ELF → check → keep the old one → install → reload ─┬─ taken:   remember, forget the oldest
//!                                                                                    └─ refused: put the old one back, remember the bad one
//! ```
//!
//! The tool does it as `handover upgrade`. A service can do it by itself:
//!
#![cfg_attr(feature = "upgrade-remote", doc = "```no_run")]
#![cfg_attr(not(feature = "upgrade-remote"), doc = "```ignore")]
//! use handover::upgrade::{ProgramSource, Trust, Upgrade};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> handover::Result<()> {
//! let service = handover::Service::builder().listen("http", "127.0.0.1:8080").start()?;
//! let source = ProgramSource::url("https://releases.example.com/web/web")?;
//! let trust = Trust::keys(["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"])?;
//! let upgrade = Upgrade::builder("/opt/web/web", source, trust).check("{} --version").service(&service)?;
//! let drains = service.drain().signal();
//! tokio::spawn(async move {
//!     tokio::select! {
//!         () = drains => {} // the next generation looks from now on
//!         never = upgrade.poll(Duration::from_secs(60), |_| ()) => never,
//!     }
//! });
//! service.run().await
//! # }
//! ```
//!
//! The feature `upgrade` takes programs from files of this machine; `upgrade-remote` adds the
//! sources that are elsewhere ([`ProgramSource::url`], [`GitHub`], [`S3`]), and with them a client
//! for HTTP and TLS.
//!
//! What lies where, what a crash at which moment leaves, and whom to trust is in
//! [`docs::upgrade`](crate::docs::upgrade).
//!
//! # Limitations
//! - The candidate is the program itself, no archive: what is signed is what is executed.
//! - Until a signed program was taken once, any one of that name is, however old: a signature tells
//!   when it was made, and not what else there is.
//! - File capabilities, extended attributes and set-user-id bits are not carried over.

mod builder;
mod check;
mod comment;
mod elf;
mod fetch;
#[cfg(all(feature = "http", feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) mod fuzz;
mod handle;
mod place;
mod plan;
mod progress;
mod record;
#[cfg(feature = "upgrade-remote")]
mod remote;
mod run;
mod schedule;
mod sink;
mod source;
mod trust;

pub use builder::{CHECK_TIMEOUT, KEEP, UpgradeBuilder};
pub use fetch::{FETCH_TIMEOUT, MAX_SIZE};
pub use handle::{MIN_POLL, Upgrade};
pub use plan::Verdict;
pub use progress::{Done, UpgradeStep};
pub use record::BAD_KEPT;
#[cfg(feature = "upgrade-remote")]
pub use remote::{CONNECT_TIMEOUT, GITHUB_API, GitHub, Http, MAX_REDIRECTS, READ_TIMEOUT, RemoteSource, S3};
pub use schedule::{JITTER, MAX_BACK_OFF};
pub use source::ProgramSource;
pub use trust::Trust;
