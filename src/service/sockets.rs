//! The sockets of this generation: what the application uses, what the next generation gets, and
//! what a crash must not lose.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use crate::drain::FlowLinks;
use crate::error::{Error, Kind, Result};
use crate::reload::status::SocketStatus;
use crate::sys::{queue, unix_path};
use crate::systemd::activation::{Activation, FromPassed, Need, PassedConnection, Socket};
use crate::systemd::bind::{self, Form};
use crate::systemd::environment::Environment;
use crate::systemd::fdstore::Kept::Stored;
use crate::systemd::fdstore::{FdStore, MAILBOX, Names};
use crate::systemd::notify::Notifier;
use crate::systemd::wanted::Wanted;
use crate::wire::store::Slot;

/// Sockets that we bound ourselves are in the fd store under names that begin so.
const BOUND: &str = "handover.bound.";

#[derive(Debug)]
struct KeptSocket {
    name: String,
    sockets: Vec<Socket>,
    /// Its name in the fd store. `None`: a .socket unit keeps it.
    entry: Option<String>,
    taken: bool,
}

/// Owns every listening socket for as long as the generation lives, so that the next one can have
/// it.
#[derive(Debug)]
pub(crate) struct Sockets {
    activation: Activation,
    store: FdStore,
    kept: Vec<KeptSocket>,
    /// The name of the one connection of `Accept=yes`, once it is served.
    connection: Option<String>,
    /// What was bound anew, as nobody has passed it: the names, and what each must be.
    bound: Vec<(String, Form)>,
    /// A service manager has started the service, and passes what its .socket units have.
    managed: bool,
    /// They come from the previous generation.
    inherited: bool,
    /// What makes the links of flows, by the names that the links have.
    flows: Vec<(String, FlowLinks)>,
}

impl Sockets {
    /// Nothing is told to the service manager before the generation is main.
    pub(crate) fn open(
        environment: &Environment,
        notifier: &Notifier,
        wanted: &[Wanted],
        names: &Names,
        (managed, inherited): (bool, bool),
    ) -> Result<Self> {
        Wanted::check(wanted)?;
        let mut activation = Activation::from_env(environment)?;
        let store = FdStore::open(environment, notifier, &mut activation, names)?;
        store.standby();
        let (mut kept, mut anew): (Vec<KeptSocket>, Vec<(String, Form)>) = Default::default();
        for Wanted { name, address } in wanted {
            let passed = activation.contains(name);
            let (sockets, entry) = match address {
                Some((form, address)) if !passed => {
                    let (sockets, entry, is_new) = bound(&store, name, *form, address).map_err(|error| {
                        let asked = |socket: &Socket| wanted.iter().any(|w| w.name == socket.name());
                        let others = activation.passed().iter().filter(|socket| managed && !asked(socket));
                        match mismatch(others, name, *form).or_else(|| activation.why_not_ours()) {
                            Some(why) => Error::new(Kind::Socket, format!("{error}: {why}")),
                            None => error,
                        }
                    })?;
                    anew.extend(is_new.then(|| (name.clone(), *form)));
                    (sockets, entry)
                }
                Some((form, _)) => (activation.take_checked(name, form.need())?, None),
                None => (activation.take(name)?, None),
            };
            kept.push(KeptSocket { name: name.clone(), sockets, entry, taken: false });
        }
        Ok(Self { activation, store, kept, connection: None, bound: anew, managed, inherited, flows: Vec::new() })
    }

    /// Copies those of that name for the application, once per name, in the form that it needs.
    pub(crate) fn take_as<T: FromPassed>(&mut self, name: &str) -> Result<Vec<T>> {
        self.take(name, &T::NEED)?.into_iter().map(T::from_passed).collect()
    }

    /// Copies those of that name for the application, once per name.
    pub(crate) fn take(&mut self, name: &str, need: &Need) -> Result<Vec<Socket>> {
        let at = match self.kept.iter().position(|k| k.name == name) {
            Some(at) if self.kept[at].taken => {
                return Err(Error::new(
                    Kind::Socket,
                    format!("the sockets named {name:?} are in use already: each name can be served once"),
                ));
            }
            Some(at) => {
                // Declared with one form, and perhaps asked for in another.
                self.kept[at].sockets.iter().try_for_each(|socket| socket.check(need))?;
                at
            }
            None => {
                let sockets = self.activation.take_checked(name, need)?;
                self.kept.push(KeptSocket { name: name.to_owned(), sockets, entry: None, taken: false });
                self.kept.len() - 1
            }
        };
        let kept = &mut self.kept[at];
        let copies = kept.sockets.iter().map(Socket::try_clone).collect::<Result<_>>()?;
        kept.taken = true;
        Ok(copies)
    }

    /// Closes what nobody asked for, and strikes it from the fd store when we are main; its names
    /// are for the log.
    ///
    /// # Errors
    /// A service manager has passed a socket that would do for a name that was bound instead: its
    /// clients would wait for ever.
    pub(crate) fn close_unclaimed(&mut self) -> Result<Vec<String>> {
        let unclaimed = || self.activation.passed().iter();
        let odd = self.bound.iter().find_map(|(name, form)| mismatch(unclaimed(), name, *form));
        if let Some(why) = odd.filter(|_| self.managed) {
            return Err(Error::new(Kind::Socket, why));
        }
        // The previous generation passes its own, and nothing else. The service manager passes also
        // what others have put into the store, under names of any form but ours.
        let inherited = self.inherited;
        self.store.discard_unclaimed_if(&mut self.activation, |name| inherited || Slot::is_replacement(name))
    }

    /// Warns of Unix sockets that no client can find: a program that removes its path before it
    /// listens, as it has to when it binds itself, does so.
    pub(crate) fn warn_of_lost_paths(&self) {
        let sockets = self.kept.iter().flat_map(|kept| kept.sockets.iter().map(|socket| (&kept.name, socket)));
        for (name, socket) in sockets.filter(|(_, socket)| unix_path::is_gone(socket.as_fd())) {
            let at = queue::bound_to(socket.as_fd()).unwrap_or_default();
            warn!(
                "the path of the socket {name:?}, {at}, is gone: clients cannot connect before its .socket unit is restarted; \
                 neither the program nor its unit may remove the path"
            );
        }
    }

    /// The fd store, also for the application.
    pub(crate) fn store(&self) -> &FdStore {
        &self.store
    }

    /// What we bound ourselves, as the fd store calls it.
    pub(crate) fn entries(&self) -> Vec<String> {
        self.kept.iter().filter_map(|k| k.entry.clone()).collect()
    }

    /// What each of them is and waits with.
    pub(crate) fn listed(&self) -> Vec<SocketStatus> {
        let kept = self.kept.iter().flat_map(|k| k.sockets.iter().map(move |socket| (k, socket)));
        kept.map(|(kept, socket)| SocketStatus::of(&kept.name, socket)).collect()
    }

    /// Returns the names of those that a service manager has passed, and of those that the service
    /// has bound itself, without those that do not count.
    pub(crate) fn by_whom(&self, skipped: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
        let counts = self.kept.iter().filter(|kept| !kept.sockets.is_empty() && !skipped(&kept.name));
        let (own, passed): (Vec<_>, Vec<_>) = counts.partition(|kept| kept.entry.is_some());
        let names = |kept: Vec<&KeptSocket>| kept.into_iter().map(|kept| kept.name.clone()).collect();
        (names(passed), names(own))
    }

    /// Copies for the next generation, of what the store does not have.
    pub(crate) fn estate(&self) -> Result<Vec<(String, OwnedFd)>> {
        self.check_reload()?;
        let mut fds = Vec::new();
        for kept in self.kept.iter().filter(|k| k.entry.is_none()) {
            for socket in &kept.sockets {
                fds.push((kept.name.clone(), socket.try_clone()?.into()));
            }
        }
        for (name, links) in &self.flows {
            // Of flows that are over the next generation needs to know nothing.
            if let Ok(link) = links.link() {
                fds.push((name.clone(), link));
            }
        }
        Ok(fds)
    }

    /// The link to the previous generation's flows of a socket, if there is one.
    pub(crate) fn older_flows(&mut self, link: &str) -> Result<Option<OwnedFd>> {
        if !self.activation.contains(link) {
            return Ok(None);
        }
        Ok(self.activation.take(link)?.pop().map(OwnedFd::from))
    }

    pub(crate) fn keep_flows(&mut self, link: String, links: FlowLinks) {
        self.flows.push((link, links));
    }
}

impl Sockets {
    /// Closes what this generation has left to the next one, which has copies of all that it wants.
    /// What it does not want is closed for good by this: clients are refused at once, instead of
    /// waiting in the queue of a socket that nobody accepts from.
    pub(crate) fn leave(&mut self) {
        self.store.forget(&self.entries());
        for kept in &mut self.kept {
            kept.sockets.clear();
        }
    }

    /// When the service is over for good: removes the paths of the Unix sockets that we bound. Not
    /// those of a .socket unit, nor those that the fd store has, which a restart needs again.
    pub(crate) fn remove_paths(&self) {
        let stored: Vec<_> = self.store.list().into_iter().filter(|e| e.kept == Stored).map(|e| e.name).collect();
        for kept in &self.kept {
            let Some(entry) = kept.entry.as_ref().filter(|entry| !stored.contains(entry)) else { continue };
            for socket in &kept.sockets {
                match unix_path::remove(socket.as_fd()) {
                    Ok(Some(path)) => debug!(entry, "removed {}", path.display()),
                    Ok(None) => {}
                    Err(error) => warn!(%error, "the path of the socket {:?} is left behind", kept.name),
                }
            }
        }
    }

    /// Why there can be no next generation, if so.
    pub(crate) fn check_reload(&self) -> Result<()> {
        let kept = self.kept.iter().find(|k| k.sockets.iter().any(Socket::is_connection)).map(|k| &k.name);
        match self.connection.as_ref().or(kept) {
            Some(name) => Err(Error::new(
                Kind::State,
                format!("this process serves one connection, {name:?} (Accept=yes): reloads do not apply to it"),
            )),
            None => Ok(()),
        }
    }

    /// The one connection of `Accept=yes`. No copy is kept: its end is the client's end.
    pub(crate) fn take_connection(&mut self, name: &str) -> Result<PassedConnection> {
        let declared = self.kept.iter_mut().find(|k| k.name == name && !k.taken && k.sockets.len() == 1);
        let connection = match declared {
            Some(kept) => {
                kept.sockets.iter().try_for_each(|socket| socket.check(&PassedConnection::NEED))?;
                kept.taken = true;
                let socket = kept.sockets.pop();
                socket.map_or_else(|| self.activation.connection(name), PassedConnection::from_passed)
            }
            None => self.activation.connection(name),
        };
        self.connection = Some(name.to_owned());
        connection
    }
}

/// Says which of these would do for a name that nobody has passed a socket of.
fn mismatch<'a>(mut unclaimed: impl Iterator<Item = &'a Socket>, name: &str, form: Form) -> Option<String> {
    let found = unclaimed.find(|socket| socket.check(form.need()).is_ok())?;
    let (other, at) = (found.name(), queue::bound_to(found.as_fd()).unwrap_or_default());
    Some(format!(
        "nobody asks for the socket {other:?} ({at}) that was passed, and {name:?}, which is asked for, was not passed: \
         write FileDescriptorName={name} in the [Socket] section of the .socket unit, or ask for {other:?}"
    ))
}

/// The sockets of that address as the store has them, from before a crash or from the previous
/// generation, else new ones, and whether they are new.
fn bound(store: &FdStore, name: &str, form: Form, address: &str) -> Result<(Vec<Socket>, Option<String>, bool)> {
    // The address is part of the name: one that was changed is bound anew.
    let entry = format!("{BOUND}{name}@{}", address.escape_default()).replace([':', '~'], "=");
    let there = store.sockets(&entry, name)?;
    if !there.is_empty() {
        match there.iter().try_for_each(|socket| socket.check(form.need())) {
            // Not if somebody has removed the path meanwhile, as a stop does with
            // RuntimeDirectory=.
            Ok(()) if !there.iter().any(|s| unix_path::is_gone(s.as_fd())) => return Ok((there, Some(entry), false)),
            Ok(()) => warn!(
                "the path of {entry:?} in the fd store is gone; {address} is bound anew. Who connected to the old one and \
                 was not accepted is lost, and until now nobody could connect: a program must not remove its path before \
                 it listens"
            ),
            Err(error) => warn!(%error, "{entry:?} in the fd store is of no use; {address} is bound anew"),
        }
        // Both copies are closed before the address is bound anew.
        drop(there);
        store.remove(&entry)?;
    }
    let sockets = bind::open(name, form, address)?;
    let stored = store.put(&entry, &sockets);
    Ok(match stored {
        Ok(_) => (sockets, Some(entry), true),
        Err(error) => {
            warn!(%error, "the socket {name:?} is not kept over a crash");
            (sockets, None, true)
        }
    })
}

/// Removes the mailbox that this process was started with: what was in it is served or closed.
pub(crate) fn remove_mailbox(store: &FdStore) {
    if let Err(error) = store.remove_inherited(MAILBOX) {
        warn!(%error, "an empty mailbox stays in the fd store");
    }
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

/// A panic elsewhere does not make the sockets unusable.
pub(crate) fn lock(sockets: &Mutex<Sockets>) -> MutexGuard<'_, Sockets> {
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}
