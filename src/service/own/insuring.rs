//! Crash insurance: what keeps the copies of connections in the fd store, and what a process has
//! left that ended without a word.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::drain::moving::{Left, Resuming, owners_ended};
use crate::lifecycle::LifeState;
use crate::reload::input::Input;
use crate::service::own::OwnGeneration;
use crate::service::sockets::{self, lock};
use crate::settings::Migrate;
use crate::state::may_wait;
use crate::systemd::fdstore::{FdStore, INSURED, STORE_TIMEOUT};
use crate::transit::Insurance;

/// How often it is noted that this process is alive: what is left of it has waited since then.
const BEAT: Duration = Duration::from_secs(1);

/// The insurance of this generation.
impl OwnGeneration {
    /// Begins to insure connections. The fd store has nothing of it before this generation is main.
    pub(super) fn insure(&mut self) {
        let store = lock(&self.sockets).store().clone();
        if self.settings.migrate < Migrate::Crash || !store.is_there() {
            return;
        }
        match Insurance::new(self.number, self.narrator.metrics().clone()) {
            Ok(insurance) => {
                self.drain.insure_with(Arc::clone(&insurance));
                self.tasks.spawn(keep(insurance, store));
            }
            Err(error) => warn!(%error, "after a crash all connections are lost"),
        }
    }

    /// The drain begins. What goes to the next generation is insured there, and what stays, here,
    /// as long as a mailbox has room. A next generation that does not know that there are copies
    /// could not close what it takes.
    pub(super) fn leave_insurance(&self, state: LifeState) {
        let Some(insurance) = self.drain.insurance() else { return };
        match state {
            LifeState::Draining if self.successor.pid().is_some() && !self.successor.knows_copies() => insurance.end(),
            LifeState::Draining => insurance.freeze(),
            _ => {}
        }
    }

    /// Nobody shall find what this generation has come to an end with.
    pub(super) fn end_insurance(&self) {
        if let Some(insurance) = self.drain.insurance() {
            insurance.end();
        }
    }

    /// Insures what was found to be served on, and then has it served: whenever this process ends,
    /// each is in one mailbox at least.
    pub(super) fn secure(&mut self, mut resuming: Resuming) {
        let Some(insurance) = self.drain.insurance().cloned() else { return self.serve_kept(resuming) };
        resuming.get_ready();
        insurance.activate();
        let (store, inputs) = (lock(&self.sockets).store().clone(), self.inputs.clone());
        self.securing = Some(self.tasks.spawn(async move {
            let renewing = tokio::task::spawn_blocking(move || may_wait(|| insurance.renew(&store)));
            match timeout(STORE_TIMEOUT, renewing).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => warn!(%error, "not all connections are insured against a crash"),
                Ok(Err(_)) | Err(_) => warn!("the fd store did not answer within {STORE_TIMEOUT:?}; going on"),
            }
            let _ = inputs.send(Input::Secured(resuming));
        }));
    }
}

/// What others have left.
impl OwnGeneration {
    /// Returns the mailboxes in the store that are not of this generation.
    pub(super) fn left(&self) -> Vec<Left> {
        let store = lock(&self.sockets).store().clone();
        let ours = |name: &str| self.drain.insurance().is_some_and(|insurance| insurance.has(name));
        let names = store.list().into_iter().map(|entry| entry.name);
        let others = names.filter(|name| name.starts_with(INSURED) && !ours(name));
        let left = others.flat_map(|name| match store.get(&name) {
            Ok(readers) => readers.into_iter().map(|reader| Left { name: name.clone(), reader }).collect(),
            Err(error) => {
                warn!(%error, name, "insured connections are lost");
                Vec::new()
            }
        });
        left.collect()
    }

    /// An older generation is gone, and perhaps without a word.
    pub(super) fn expect_left(&mut self) {
        let left = self.left();
        if left.is_empty() || self.stopping {
            return;
        }
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            owners_ended(&left).await;
            let _ = inputs.send(Input::Left);
        });
    }

    /// Serves on what it has left.
    pub(super) fn look_at_left(&mut self) {
        let left = self.left();
        if !left.is_empty() && !self.stopping {
            let found = self.drain.look_at_kept(Vec::new(), left, self.resumes_within());
            self.secure(found);
        }
    }

    /// Removes what is empty from the store.
    pub(super) fn remove_spent(&mut self, names: Vec<String>) {
        let mailbox = self.securing.take().is_some();
        let store = lock(&self.sockets).store().clone();
        self.tasks.spawn(async move {
            let removing = tokio::task::spawn_blocking(move || {
                may_wait(|| {
                    if mailbox {
                        sockets::remove_mailbox(&store);
                    }
                    for name in names {
                        if let Err(error) = store.remove(&name) {
                            debug!(%error, name, "an empty mailbox stays in the fd store for now");
                        }
                    }
                });
            });
            _ = removing.await;
        });
    }
}

/// Adds a first mailbox to what goes to the store before any connection comes.
pub(super) fn provide(insurance: Option<&Arc<Insurance>>, store: &FdStore) {
    provided(insurance, store);
}

fn provided(insurance: Option<&Arc<Insurance>>, store: &FdStore) -> bool {
    let Some(insurance) = insurance else { return false };
    insurance.provide(store).unwrap_or_else(|error| {
        warn!(%error, "not all connections are insured against a crash");
        false
    })
}

/// Does the same for a generation that has become main, and offers it.
pub(super) fn provide_at_once(insurance: Option<&Arc<Insurance>>, store: &FdStore) {
    if provided(insurance, store)
        && let Err(error) = store.offer()
    {
        warn!(%error, "connections are not insured against a crash yet");
    }
}

/// The store was asked meanwhile.
pub(super) fn confirm(insurance: Option<&Arc<Insurance>>, store: &FdStore) {
    if let Some(Err(error)) = insurance.map(|insurance| insurance.confirm(store)) {
        warn!(%error, "a crash loses all connections");
    }
}

/// Keeps the mailboxes of this generation in the store, and renews them.
async fn keep(insurance: Arc<Insurance>, store: FdStore) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    while insurance.beat() {
        let (ours, theirs) = (Arc::clone(&insurance), store.clone());
        match tokio::task::spawn_blocking(move || may_wait(|| ours.renew(&theirs))).await {
            Ok(Ok(())) => told = false,
            // While a reload is under way the store is nobody's to change.
            Ok(Err(error)) if error.is_state() => debug!(%error, "insured connections wait for the fd store"),
            // It is tried again with the next change.
            Ok(Err(error)) if !std::mem::replace(&mut told, true) => {
                warn!(%error, "not all connections are insured against a crash");
            }
            Ok(Err(_)) => {}
            Err(error) => return warn!(%error, "connections are not insured any more"),
        }
        tokio::select! {
            () = insurance.changed() => {}
            _ = beat.tick() => {}
        }
    }
}
