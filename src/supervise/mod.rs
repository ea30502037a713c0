//! Any program, reloaded without its clients noticing: what `handover run` is made of.
//!
//! A [`Supervisor`] is a small process whose pid never changes. It holds the listening sockets,
//! starts a program that was written in whatever language with them, and on a reload starts it
//! anew, from the file that is at its path then: *spawn → ready → handover → the old one is told to
//! go, and drains*. Each process of the program is a generation with the same
//! [lifecycle](crate::docs::lifecycle) as one of a [`Service`](crate::Service), where the
//! supervisor speaks for it: what the library says on the link between two generations, a program
//! says by `READY=1`, by answering a probe, or by its end.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> handover::Result<()> {
//! use handover::supervise::{Ready, Supervisor};
//!
//! let supervised = Supervisor::new("/usr/bin/web")
//!     .arg("--verbose")
//!     .listen("http", "127.0.0.1:8080") // the address counts only without a .socket unit
//!     .ready(Ready::Http { socket: None, path: "/health".into() })
//!     .start()?;
//! let handle = supervised.handle(); // handle.reload().await: what became of the next generation
//! supervised.run().await // READY=1 when the program is ready, SIGHUP → reload, SIGTERM → stop
//! # }
//! ```
//!
//! The chapter [`docs::run`](crate::docs::run) has recipes, and what cannot be promised for a
//! program that knows nothing of it.

mod builder;
mod child;
mod crash;
mod generation;
mod image;
mod inheritance;
pub mod mailbox;
mod notified;
mod own_port;
mod passing;
mod place;
pub mod proc;
mod ready;
mod record;
mod renew;
mod rolling;
mod signals;
mod stop;
mod supervision;
mod terms;
mod tree;
mod watches;
mod workers;

#[cfg(all(feature = "http", feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use self::notified::read as read_notification;
pub use builder::{Supervised, Supervisor};
pub use crash::{CRASH_LOOP, GOOD_AFTER, MAX_PAUSE, MIN_PAUSE};
pub use passing::Passing;
pub use ready::{PROBE_INTERVAL, PROBE_TIMEOUT, Ready};
pub use renew::{RENEW_TIMEOUT, asked_to_go_on, goes_on};
pub use stop::{StopSignals, signal_name};
pub use terms::{OnCrash, Senders};
