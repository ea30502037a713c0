//! Fds that outlive the process: systemd's file descriptor store.
//!
//! What is in it comes back at the next start of the service, after a crash too. It needs `FileDescriptorStoreMax=` in the
//! `[Service]` section: room for everything that is kept, and one more, because what is replaced is there twice for a moment.
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
//! let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new().name("queue"))?;
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
//! systemd cannot replace an fd: it removes all fds of a name, and of several pushes of one open file the first name wins. So
//! [`replace`](FdStore::replace) puts the new fds under a name of their own, `NAME~1`, waits until systemd has them, and removes
//! the old name. Whenever the process dies, the store has the old fds, the new ones, or both; of both the higher number
//! wins at the next start. Only `systemd-analyze fdstore` shows these names, in this API names are the plain ones.
//!
//! # How a full store is noticed
//!
//! systemd does not answer: what does not fit is closed. From version 254 on, `$FDSTORE` says how much fits. Where that says no, or
//! is missing, the store is asked: as many pipes as there are fds to put are put, those that are refused hang up, and all are
//! removed again. So a change either fits as a whole or is refused as a whole, with an error that names
//! `FileDescriptorStoreMax=` and the number it must have.
//!
//! # References
//!
//! [sd_pid_notify_with_fds(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html),
//! [file descriptor store](https://systemd.io/FILE_DESCRIPTOR_STORE/)

mod claim;
mod line;
mod passing;
mod shared;
mod table;

use claim::Slots;
pub use claim::{Names, Rejected};
pub(crate) use passing::{Changes, Snapshot, zip};

use crate::error::{Error, Kind, Result};
use crate::systemd::activation::Activation;
use crate::systemd::environment::Environment;
use crate::systemd::notify::{BARRIER_TIMEOUT, Notifier};
use crate::wire::store::Slot;
use line::Line;
use shared::{Locked, Shared};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use table::{Mode, Table};

/// How long each message to the manager, and each barrier, may take, unless set otherwise.
pub const STORE_TIMEOUT: Duration = BARRIER_TIMEOUT;

/// Who keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The service manager: it outlives the process. (Or the .socket unit that it came from.)
    Stored,
    /// This process alone, because there is no fd store, or [not yet](FdStore::standby): the next generation gets it, a
    /// crash loses it.
    HeldOnly,
}

/// A name, and what is kept under it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The plain name.
    pub name: String,
    /// How many fds it has.
    pub fds: usize,
    /// Who keeps them.
    pub kept: Kept,
}

/// What [`FdStore::sync`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// Who keeps what there is.
    pub kept: Kept,
    /// Fds that were not in the store before.
    pub pushed: usize,
    /// Names that were removed.
    pub removed: usize,
    /// Fds that there are.
    pub entries: usize,
}

/// The fd store of this service. Clones are the same one.
///
/// It keeps a copy of each fd, as systemd gives stored fds back only at a start: the next generation gets them
/// [from this process](Self::entries).
///
/// The methods block for as long as the manager needs, usually less than a millisecond, and with [`STORE_TIMEOUT`] as the limit of
/// each message; those whose names end in `_async` do the same on the runtime's threads for blocking calls.
#[derive(Debug, Clone)]
#[doc(alias = "FDSTORE")]
pub struct FdStore {
    table: Arc<Shared>,
}

impl FdStore {
    /// Takes what came from the store out of `activation`: those of `names`, and handover's own.
    ///
    /// Entries that are of no use (a peer that is gone, a name that nobody can have given) are [`rejected`](Self::rejected).
    /// Nothing is sent before the first change.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn open(
        environment: &Environment,
        notifier: &Notifier,
        activation: &mut Activation,
        names: &Names,
    ) -> Result<Self> {
        let max = environment.get("FDSTORE").and_then(|max| max.to_str()).and_then(|max| max.parse().ok());
        let line = notifier.carries_fds().then(|| Line { notifier: notifier.clone(), timeout: STORE_TIMEOUT });
        let mut table = Table {
            line,
            max,
            exists: None,
            mode: Mode::Active,
            groups: BTreeMap::new(),
            given: Vec::new(),
            foreign: 0,
            debris: Vec::new(),
            superseded: Vec::new(),
            rejected: Vec::new(),
            warned: false,
        };
        table.claim(activation, names)?;
        Ok(Self { table: Arc::new(Shared::new(table)) })
    }

    /// How long each message and each barrier may take. Default: [`STORE_TIMEOUT`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        if let Some(line) = &mut self.lock().line {
            line.timeout = timeout;
        }
        self
    }

    /// Adds fds under a name. The store gets copies; when this returns, `fds` may be closed.
    ///
    /// An open file that is there already is not put twice; nor is one that a .socket unit passed under that name, which keeps
    /// it anyway. systemd drops an fd that hangs up, as a connection does that its peer has reset.
    ///
    /// # Errors
    ///
    /// - [`Error::is_invalid`]: systemd does not accept the name, or one of the fds is there under another name.
    /// - [`Error::is_store`]: there is no room. Nothing was put; the message names the number that `FileDescriptorStoreMax=` needs.
    /// - [`Error::is_notify`], [`Error::is_timeout`]: the manager does not answer. Fds for a new name are not kept. Those for a
    ///   name that exists are, and may be in the store: [`sync`](Self::sync) makes sure.
    /// - [`Error::is_state`]: the next generation has taken over.
    pub fn put<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().put(name, copies(name, fds)?, true)
    }

    /// As [`put`](Self::put), of fds that systemd shall keep also when they hang up (`FDPOLL=0`).
    ///
    /// At the next start [`Names::unpolled`] must name it, else it is rejected when it has hung up. Of a name that exists the
    /// option stays as it is.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    #[doc(alias = "FDPOLL")]
    pub fn put_unpolled<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().put(name, copies(name, fds)?, false)
    }

    /// These instead of what is there under the name, if anything is. At every moment the store has the old or the new ones;
    /// when this returns, it has the new ones, or after an error the old ones.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put); the store needs room for old and new. [`Error::is_invalid`] also when some of the fds, but not
    /// all, are there under this name already, or for more than 128 fds. When the manager did not answer in time, and the process
    /// dies before the next change, the new ones may be what comes back.
    pub fn replace<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().replace(name, copies(name, fds)?)
    }

    /// Takes the fds of the name out of the store. Empty: there are none.
    ///
    /// # Errors
    ///
    /// The manager does not answer: then they are kept. [`Error::is_state`]: the next generation has taken over.
    #[doc(alias = "FDSTOREREMOVE")]
    pub fn take(&self, name: &str) -> Result<Vec<OwnedFd>> {
        Ok(self.lock().take(name)?.unwrap_or_default())
    }

    /// Takes them out and closes them. False: there were none.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    pub fn remove(&self, name: &str) -> Result<bool> {
        Ok(self.lock().take(name)?.is_some())
    }

    /// Copies of the fds of the name, which stay in the store. Empty: there are none.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn get(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let table = self.lock();
        let fds: Vec<_> =
            table.groups.get(name).map(|g| g.fds.iter().map(|held| &held.fd).collect()).unwrap_or_default();
        copies(name, &fds)
    }

    /// What there is, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let table = self.lock();
        let entry = |(name, group): (&String, &table::Group)| {
            let stored = group.fds.iter().all(|held| held.stored);
            let kept = if stored { Kept::Stored } else { Kept::HeldOnly };
            Entry { name: name.clone(), fds: group.fds.len(), kept }
        };
        table.groups.iter().map(entry).collect()
    }

    /// What came in at the start and was of no use.
    #[must_use]
    pub fn rejected(&self) -> Vec<Rejected> {
        self.lock().rejected.clone()
    }

    /// Makes the store have what this process has, and nothing that was rejected or replaced. Also ends
    /// [`standby`](Self::standby) and a [`freeze`](Self::freeze).
    ///
    /// To be called once the service is ready, and after each reload: what `FileDescriptorStoreMax=` has no room for any
    /// more, is noticed here.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn sync(&self) -> Result<Synced> {
        let (synced, unproven) = self.lock().sync()?;
        // Asking takes a while, in which the store must be there for others.
        if let Some(unproven) = unproven {
            unproven.verify()?;
        }
        Ok(synced)
    }

    /// From now on changes are kept here alone, until [`sync`](Self::sync): for a process that the manager does not listen to
    /// yet, because it is not the main one. What was inherited cannot be replaced meanwhile ([`Error::is_state`]): the
    /// previous generation still may.
    pub fn standby(&self) {
        self.lock().mode = Mode::Standby;
    }

    /// From now on changes are refused ([`Error::is_state`]), until [`sync`](Self::sync): for a process that hands over.
    pub fn freeze(&self) {
        self.lock().freeze();
    }

    /// Copies of everything, for the next generation: to be passed to it as sockets are, under these names.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn entries(&self) -> Result<Vec<(String, OwnedFd)>> {
        self.estate().map(|(entries, _)| entries)
    }

    /// Takes over from [`entries`](Self::entries) of the previous generation what is newer than what is here, or was put here
    /// in [`standby`](Self::standby).
    ///
    /// # Errors
    ///
    /// [`Error::is_protocol`]: a name is none of those. The others are taken all the same.
    pub fn adopt(&self, entries: Vec<(String, OwnedFd)>) -> Result<()> {
        let (mut slots, mut odd) = (Slots::default(), Vec::new());
        let mut table = self.lock();
        for (name, fd) in entries {
            match Slot::parse(&name) {
                Some(slot) => {
                    let poll = table.groups.get(&slot.name).is_none_or(|group| group.poll);
                    slots.add(slot, poll, [fd]);
                }
                None => odd.push(name),
            }
        }
        table.admit(slots);
        if odd.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Protocol,
            format!("the previous generation passed {odd:?}, which are no names of the fd store"),
        ))
    }

    /// Closes what nobody took from `activation`, and removes it from the store: names that an older version of the service
    /// put. The names are for the log. A .socket unit keeps its own.
    ///
    /// # Errors
    ///
    /// The manager does not answer.
    pub fn discard_unclaimed(&self, activation: &mut Activation) -> Result<Vec<String>> {
        let mut names = activation.close_unclaimed();
        names.sort_unstable();
        names.dedup();
        let mut table = self.lock();
        table.given.retain(|(name, _)| !names.contains(name));
        table.foreign = 0;
        let debris: Vec<_> = names.iter().filter(|name| !name.is_empty() && !table.has_slot(name)).cloned().collect();
        table.debris.extend(debris);
        if table.mode == Mode::Active {
            table.flush()?;
        }
        Ok(names)
    }

    /// As [`put`](Self::put), for a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, it is put all the same. This holds for all `_async` methods.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    ///
    /// # Panics
    ///
    /// Without a tokio runtime. This holds for all `_async` methods.
    pub async fn put_async<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        let (name, fds) = (name.to_owned(), copies(name, fds)?);
        self.blocking(move |table| table.put(&name, fds, true)).await
    }

    /// As [`replace`](Self::replace), for a tokio runtime.
    ///
    /// # Errors
    ///
    /// As for [`replace`](Self::replace).
    pub async fn replace_async<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        let (name, fds) = (name.to_owned(), copies(name, fds)?);
        self.blocking(move |table| table.replace(&name, fds)).await
    }

    /// As [`take`](Self::take), for a tokio runtime.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    pub async fn take_async(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let name = name.to_owned();
        self.blocking(move |table| Ok(table.take(&name)?.unwrap_or_default())).await
    }

    /// As [`remove`](Self::remove), for a tokio runtime.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    pub async fn remove_async(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.blocking(move |table| Ok(table.take(&name)?.is_some())).await
    }

    /// As [`sync`](Self::sync), for a tokio runtime.
    ///
    /// # Errors
    ///
    /// As for [`sync`](Self::sync).
    pub async fn sync_async(&self) -> Result<Synced> {
        let store = self.clone();
        joined(tokio::task::spawn_blocking(move || store.sync()).await)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        joined(tokio::task::spawn_blocking(move || change(&mut store.lock())).await)
    }

    fn lock(&self) -> Locked<'_> {
        self.table.lock()
    }
}

fn joined<T>(changed: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    changed.unwrap_or_else(|e| Err(Error::new(Kind::State, format!("the fd store's change did not run: {e}"))))
}

fn copies<F: AsFd>(name: &str, fds: &[F]) -> Result<Vec<OwnedFd>> {
    let copy = |fd: &F| fd.as_fd().try_clone_to_owned();
    fds.iter()
        .map(copy)
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::os(format!("an fd of {name:?} cannot be duplicated for the fd store (LimitNOFILE=)"), e))
}
