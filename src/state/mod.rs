//! State that outlives the process: in memory that systemd keeps, and that all generations share.
//!
//! ```no_run
//! use handover::state::States;
//! # use handover::systemd::{activation::Activation, environment::Environment, fdstore::{FdStore, Names}, notify::Notifier};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Default)]
//! struct Sessions {
//!     count: u64,
//! }
//!
//! # fn main() -> handover::Result<()> {
//! # let environment = Environment::capture();
//! # let notifier = Notifier::from_env(&environment)?;
//! # let mut activation = Activation::from_env(&environment)?;
//! # let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new())?;
//! let sessions = States::new(store).state::<Sessions>("sessions").version(2).migrate(|_older, reader| {
//!     Ok(Sessions { count: serde_json::from_reader(reader)? }) // version 1 was only a number
//! });
//! let count = sessions.blocking_update(|sessions| {
//!     sessions.count += 1;
//!     sessions.count
//! })?; // from here on it survives a SIGKILL
//! println!("session {}", count.result);
//! # Ok(())
//! # }
//! ```
//!
//! A state is one memory file, which is put into the fd store once, as `handover.state.NAME`, and
//! passed to the next generation as the same memory. It has a page with two headers (name, version,
//! sequence number, where the value is, its length and checksum: CRC-32, which finds damage, not
//! malice), and the value as JSON.
//!
//! In async code it is `sessions.update(|sessions| …).await?`: every use of a state can wait, and
//! the methods that do it on the spot have names that begin with `blocking_`.
//!
//! # Four kinds of what comes after us
//!
//! | kind | what it is | where | lives through | who changes it |
//! |---|---|---|---|---|
//! | **state** | a value of a serde type, with a version | [`Service::state`](crate::Service::state), [`State`] | reloads and crashes | each generation at any time, the value as a whole |
//! | **raw state** | memory of a fixed size, mapped by the application | [`States::raw`], [`RawState`] | reloads and crashes | each generation at any time, byte by byte: a crash may leave half of a change |
//! | **store entry** | an fd: a socket with what waits in it, a file, somebody's memory | [`Service::store`](crate::Service::store), [`FdStore`](crate::systemd::fdstore::FdStore) | reloads and crashes | the main generation alone |
//! | **handover bytes** | a parting word | [`Builder::handover_bytes`](crate::Builder::handover_bytes) gives, [`Service::handover_bytes`](crate::Service::handover_bytes) has them | one reload | nobody: they are made when the next generation is started |
//!
//! The first two are store entries of reserved names, so *crashes* stands for all that keeps the fd
//! store: see [below](#what-survives). What must survive a reboot belongs on a disk.
//!
//! # What a change is
//!
//! Under a lock that ends with the process that has it, the new JSON is written where the current
//! one is not. Then one write to the header makes it the current one, a second one makes the
//! header's copy, and the old JSON's memory is given back. So at every instant, a SIGKILL or a
//! failed write included, the old or the new value is there as a whole; and when the call returns,
//! it is the new one. A change is about ten system calls, and no message to the manager.
//!
//! Rejected: a sealed file for each save, which replaces the one before in the fd store. While a
//! reload goes on, two generations live: the new one accepts, the old one still answers what it had
//! accepted. Both change the state, but the manager listens to the main process only, and what one
//! of them saves from its copy undoes what the other one did. A sealed file also cost every save
//! three messages to the manager. Rejected as well: a mapping, because a writer that is killed in
//! the middle leaves half of a change, and a value that is a plain struct, because the next version
//! of the program has another one.
//!
//! # What survives
//!
//! | event | a value that was acknowledged |
//! |---|---|
//! | reload, rollback | there, and both generations change it |
//! | SIGKILL, panic, `systemctl restart`, watchdog | there, with an fd store ([`Kept::Stored`](crate::systemd::fdstore::Kept::Stored)) |
//! | the same without an fd store ([`Kept::HeldOnly`](crate::systemd::fdstore::Kept::HeldOnly)) | there as long as one generation lives |
//! | stop and start | there with `FileDescriptorStorePreserve=yes` (systemd 254) |
//! | reboot | lost: it is memory |
//!
//! # Versions
//!
//! The first change by a program with a higher [`State::version`] raises that of the state; from
//! then on a program with a lower one cannot change it
//! ([`Error::is_state`](crate::Error::is_state)). The value of the version before stays beside it
//! until [`States::settle`], so that [`States::restore`] can take it back when the new generation
//! is rolled back.
//!
//! # Limitations
//!
//! - The memory counts as that of the service (`MemoryMax=`): the JSON once, twice for the moment
//!   of a change, and once more for the version before until `settle`. [`State::update`] and
//!   [`State::read`] also keep the value in the process.
//! - A change writes the whole value. What is big and changes in small parts belongs into
//!   [`States::raw`], or more states.
//! - It needs `/proc`. A generation that is stopped (SIGSTOP) in the middle of a change makes the
//!   others wait for [`STATE_LOCK_TIMEOUT`]; one that is killed does not.

mod cell;
mod handle;
mod naming;
mod on_runtime;
mod outcome;
mod payload;
mod raw;
mod states;
mod turn;
mod waiting;

pub use handle::{STATE_LIMIT, State};
pub use outcome::{Loaded, Updated};
pub use payload::StateReader;
pub use raw::RawState;
pub use states::{STATE_LOCK_TIMEOUT, States};
pub(crate) use waiting::may_wait;
