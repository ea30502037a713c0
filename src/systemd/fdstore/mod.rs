//! Keeps fds that outlive the process: systemd's file descriptor store.
//!
//! What is in it comes back at the next start of the service, after a crash too. It needs
//! `FileDescriptorStoreMax=` in the `[Service]` section: room for everything that is kept, and one
//! more, because what is replaced is there twice for a moment.
//!
//! ```no_run
//! use handover::systemd::activation::Activation;
//! use handover::systemd::environment::Environment;
//! use handover::systemd::fdstore::{FdStore, Kept, Names};
//! use handover::systemd::notify::Notifier;
//! use std::net::{TcpListener, UdpSocket};
//!
//! # fn main() -> handover::Result<()> {
//! let environment = Environment::capture();
//! let notifier = Notifier::from_env(&environment)?;
//! let mut activation = Activation::from_env(&environment)?;
//! let names = Names::new().name("queue");
//! let store = FdStore::open(&environment, &notifier, &mut activation, &names)?;
//!
//! let socket = match store.get("queue")?.pop() {
//!     Some(kept) => UdpSocket::from(kept), // as it was when the process before this one died
//!     None => UdpSocket::bind("127.0.0.1:9000").expect("a free port"),
//! };
//! match store.put("queue", &[&socket])? {
//!     Kept::Stored => {}
//!     _ => {} // no store: said once in the log
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How an entry is replaced
//!
//! systemd cannot replace an fd: it removes all fds of a name, and of several pushes of one open
//! file the first name wins. So [`replace`](FdStore::replace) puts the new fds under a name of
//! their own, `NAME~1`, waits until systemd has them, and removes the old name. Whenever the
//! process dies, the store has the old fds, the new ones, or both; of both the higher number wins
//! at the next start. Only `systemd-analyze fdstore` shows these names, in this API names are the
//! plain ones.
//!
//! # How a full store is noticed
//!
//! systemd does not answer: what does not fit is closed. From version 254 on, `$FDSTORE` says how
//! much fits. Where that says no, or is missing, the store is asked: as many pipes as there are fds
//! to put are put, those that are refused hang up, and all are removed again. So a change either
//! fits as a whole or is refused as a whole, with an error that names `FileDescriptorStoreMax=` and
//! the number it must have.
//!
//! # References
//!
//! [sd_pid_notify_with_fds(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html),
//! [file descriptor store](https://systemd.io/FILE_DESCRIPTOR_STORE/)

mod claim;
mod entry;
mod group;
mod line;
mod names;
mod passing;
mod shared;
mod store;
mod table;

pub(crate) use crate::wire::store::{INSURED, MAILBOX};
pub use entry::{Entry, Kept, Rejected, Synced};
pub use names::Names;
pub(crate) use passing::{Changes, Snapshot, Transfer, zip};
pub use store::{FdStore, STORE_TIMEOUT};
