//! The sockets of this generation: what the application uses, what the next generation gets, and what a crash must not lose.

use std::os::fd::{AsFd as _, OwnedFd};

use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::systemd::activation::{Activation, Listener, bind};
use crate::systemd::environment::Environment;
use crate::systemd::fdstore::{FdStore, Names};
use crate::systemd::notify::Notifier;

/// Sockets that we bound ourselves are in the fd store under names that begin so.
const BOUND: &str = "handover.bound.";

/// A name that the application declared, with an address for when nobody passes a socket of that name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) address: Option<String>,
}

#[derive(Debug)]
struct Kept {
    name: String,
    listeners: Vec<Listener>,
    /// Its name in the fd store. `None`: a .socket unit keeps it.
    entry: Option<String>,
    taken: bool,
}

/// Owns every listening socket for as long as the generation lives, so that the next one can have it.
#[derive(Debug)]
pub(crate) struct Sockets {
    activation: Activation,
    store: FdStore,
    kept: Vec<Kept>,
}

impl Sockets {
    /// Nothing is told to the service manager before the generation is main.
    pub(crate) fn open(
        environment: &Environment,
        notifier: &Notifier,
        wanted: &[Wanted],
        names: &Names,
    ) -> Result<Self> {
        let mut activation = Activation::from_env(environment)?;
        let store = FdStore::open(environment, notifier, &mut activation, names)?;
        store.standby();
        let mut kept: Vec<Kept> = Vec::new();
        for Wanted { name, address } in wanted {
            if kept.iter().any(|k| k.name == *name) {
                return Err(Error::new(Kind::Invalid, format!("the socket name {name:?} was declared twice")));
            }
            let passed = activation.contains(name);
            let (listeners, entry) = match address {
                Some(address) if !passed => bound(&store, name, address)?,
                _ => (activation.listeners(name)?, None),
            };
            kept.push(Kept { name: name.clone(), listeners, entry, taken: false });
        }
        Ok(Self { activation, store, kept })
    }

    /// For the application, once per name.
    pub(crate) fn take(&mut self, name: &str) -> Result<Vec<Listener>> {
        let at = match self.kept.iter().position(|k| k.name == name) {
            Some(at) => at,
            None => {
                let listeners = self.activation.listeners(name)?;
                self.kept.push(Kept { name: name.to_owned(), listeners, entry: None, taken: false });
                self.kept.len() - 1
            }
        };
        let kept = &mut self.kept[at];
        if kept.taken {
            return Err(Error::new(
                Kind::Socket,
                format!("the sockets named {name:?} are in use already: each name can be served once"),
            ));
        }
        let copies = kept.listeners.iter().map(Listener::try_clone).collect::<Result<_>>()?;
        kept.taken = true;
        Ok(copies)
    }

    /// Closes what nobody asked for, and strikes it from the fd store when we are main; its names are for the log.
    pub(crate) fn close_unclaimed(&mut self) -> Result<Vec<String>> {
        self.store.discard_unclaimed(&mut self.activation)
    }

    /// The fd store, also for the application.
    pub(crate) fn store(&self) -> &FdStore {
        &self.store
    }

    /// What we bound ourselves, as the fd store calls it.
    pub(crate) fn entries(&self) -> Vec<String> {
        self.kept.iter().filter_map(|k| k.entry.clone()).collect()
    }

    /// Copies for the next generation, of what the store does not have.
    pub(crate) fn estate(&self) -> Result<Vec<(String, OwnedFd)>> {
        let mut fds = Vec::new();
        for kept in self.kept.iter().filter(|k| k.entry.is_none()) {
            for listener in &kept.listeners {
                let fd = listener.as_fd().try_clone_to_owned().map_err(|e| {
                    Error::os(format!("the socket {:?} cannot be duplicated (LimitNOFILE=)", kept.name), e)
                })?;
                fds.push((kept.name.clone(), fd));
            }
        }
        Ok(fds)
    }
}

/// The sockets of that address as the store has them, from before a crash or from the previous generation, else new ones.
fn bound(store: &FdStore, name: &str, address: &str) -> Result<(Vec<Listener>, Option<String>)> {
    // The address is part of the name: one that was changed is bound anew.
    let entry = format!("{BOUND}{name}@{}", address.escape_default()).replace([':', '~'], "=");
    let there: Vec<_> = store.get(&entry)?.into_iter().map(|fd| (name.to_owned(), fd)).collect();
    if !there.is_empty() {
        match Activation::from_fds(there).and_then(|mut passed| passed.listeners(name)) {
            Ok(listeners) => return Ok((listeners, Some(entry))),
            Err(error) => {
                warn!(%error, "{entry:?} in the fd store is of no use; {address} is bound anew");
                store.remove(&entry)?;
            }
        }
    }
    let listeners = bind(address)?;
    let stored = store.put(&entry, &listeners);
    Ok(match stored {
        Ok(_) => (listeners, Some(entry)),
        Err(error) => {
            warn!(%error, "the socket {name:?} is not kept over a crash");
            (listeners, None)
        }
    })
}

/// Closes what was bound for another address, or for a name that is not asked for any more.
pub(crate) fn remove_stale(store: &FdStore, wanted: &[String]) {
    for entry in store.list() {
        if entry.name.starts_with(BOUND) && !wanted.contains(&entry.name) {
            match store.remove(&entry.name) {
                Ok(_) => tracing::info!("closed {:?}, which nobody asks for any more", entry.name),
                Err(error) => warn!(%error, "{:?} cannot be removed from the fd store", entry.name),
            }
        }
    }
}
