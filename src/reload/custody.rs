//! Custody: the fd store over a reload. Whoever accepts, the store and both generations have every
//! socket and every state.
//!
//! The next generation starts with copies of all entries, and before it says that it is ready it
//! sends what it has added. This one, which alone is heard by the service manager, pushes that,
//! freezes, and sends what has come meanwhile; then it says `switch`. The next one pushes
//! everything once more when it is main, and removes what nobody asks for any more.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::error::Result;
use crate::reload::input::{Input, InputSender};
use crate::state::{States, may_wait};
use crate::systemd::fdstore::{Changes, FdStore, STORE_TIMEOUT, Snapshot, Synced, Transfer, zip};

type StoreChange = Box<dyn FnOnce(&FdStore) + Send>;

/// The fd store and the states, while a reload may have them.
#[derive(Debug)]
pub(crate) struct Custody {
    store: FdStore,
    states: States,
    keeper: Keeper,
    inputs: InputSender,
    snapshot: Snapshot,
    additions: Vec<(String, OwnedFd)>,
    /// The store is frozen for it, and has these of its names.
    lent: Option<Vec<String>>,
    /// In the store for a next generation that failed before, to be removed.
    stray: Vec<String>,
}

impl Custody {
    pub(crate) fn open(store: FdStore, states: States, inputs: InputSender) -> Self {
        Self {
            keeper: Keeper::open(store.clone()),
            store,
            states,
            inputs,
            snapshot: Snapshot::default(),
            additions: Vec::new(),
            lent: None,
            stray: Vec::new(),
        }
    }

    /// Before the generation is ready, all of its states exist. Before a first one accepts, they
    /// and what it has bound are in the store too, with what `provide` adds, so that a crash cannot
    /// lose a client that waits.
    pub(crate) async fn make_ready(&self, first: bool, provide: impl FnOnce(&FdStore) + Send + 'static) {
        if !first && self.states.is_empty() {
            return;
        }
        let (store, states) = (self.store.clone(), self.states.clone());
        let offered = tokio::task::spawn_blocking(move || {
            may_wait(|| states.prepare())?;
            if !first {
                return Ok(());
            }
            provide(&store);
            store.offer()
        });
        match tokio::time::timeout(STORE_TIMEOUT, offered).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!("not everything that this service keeps is in the fd store yet: {error}"),
            Ok(Err(_)) | Err(_) => warn!("the fd store did not answer within {STORE_TIMEOUT:?}; going on"),
        }
    }

    /// What this generation adds, for the previous one, before that is told that we are ready.
    pub(crate) fn own_additions(&self) -> Result<Vec<(String, OwnedFd)>> {
        self.store.additions()
    }

    pub(crate) fn begin(&mut self) {
        self.snapshot = Snapshot::default();
        self.additions.clear();
        self.lent = None;
        self.stray.clear();
    }

    /// The next generation was started with this.
    pub(crate) fn spawned(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
    }

    /// Keeps what the next generation adds until it is ready.
    pub(crate) fn add(&mut self, names: Vec<String>, fds: Vec<OwnedFd>) -> Result<()> {
        self.additions.extend(zip(names, fds)?);
        Ok(())
    }

    /// The next generation is ready: from now on the store is its. The answer is returned, or comes
    /// as [`Input::Prepared`].
    pub(crate) fn prepare(&mut self, attempt: u64) -> Option<Result<Transfer>> {
        let (additions, since) = (std::mem::take(&mut self.additions), self.snapshot.clone());
        // Most services add nothing. A thread for that is a wait for a processor, which the next
        // one needs, too.
        if additions.is_empty() && self.keeper.is_idle() {
            let handed = self.store.try_hand_over(&since);
            if handed.is_some() {
                return handed;
            }
        }
        let inputs = self.inputs.clone();
        self.keeper.run(move |store| {
            _ = inputs.send(Input::Prepared(attempt, store.hand_over(additions, &since)));
        });
        None
    }

    /// The store is frozen for the next generation, which gets the changes.
    pub(crate) fn lend(&mut self, transfer: Result<Transfer>) -> Result<Changes> {
        // Also where it failed: it may be frozen.
        let lent = self.lent.insert(Vec::new());
        transfer.map(|(changes, added)| {
            *lent = added;
            changes
        })
    }

    /// The store was frozen for a next generation that has failed meanwhile. `again`: another
    /// reload runs by now, and the store stays frozen for that one.
    pub(crate) fn lend_too_late(&mut self, transfer: Result<Transfer>, again: bool) {
        let added = transfer.map(|(_, added)| added).unwrap_or_default();
        match again {
            true => self.stray.extend(added),
            false => self.thaw(added),
        }
    }

    /// The next generation failed, or died as main: the store is ours again, and states are as this
    /// version can read them.
    pub(crate) fn reclaim(&mut self) {
        let states = self.states.clone();
        self.keeper.run(move |_| restore(&states));
        let mut added = std::mem::take(&mut self.stray);
        if let Some(lent) = self.lent.take() {
            added.extend(lent);
        } else if added.is_empty() {
            return; // It never was another's.
        }
        self.thaw(added);
    }

    /// Restores the states once more, when a next generation that failed has ended: what it still
    /// finished may have changed them again.
    pub(crate) fn restorer(&self) -> impl FnOnce() + Send + 'static {
        let states = self.states.clone();
        move || restore(&states)
    }

    fn thaw(&self, added: Vec<String>) {
        self.keeper.run(move |store| {
            if let Err(error) = store.thaw(&added) {
                warn!(%error, "the fd store may not have all that this generation has");
            }
        });
    }

    /// Takes what the previous generation passes, which has frozen its store.
    pub(crate) fn adopt(&self, names: Vec<String>, fds: Vec<OwnedFd>) {
        if let Err(error) = zip(names, fds).and_then(|entries| self.store.adopt(entries)) {
            warn!(%error, "some of what the previous generation passed is of no use");
        }
    }

    pub(crate) fn forget(&self, names: &[String]) {
        self.store.forget(names);
    }

    /// This generation is main: the store gets what is not in it, and loses what nobody asks for
    /// any more, which `stale` finds, if that can be said. `provide` adds what must not wait until
    /// the store was asked whether it has room.
    pub(crate) fn keep(
        &self,
        generation: u64,
        handover_id: Option<Arc<str>>,
        provide: impl FnOnce(&FdStore) + Send + 'static,
        stale: impl FnOnce(&FdStore) + Send + 'static,
    ) {
        let states = self.states.clone();
        self.keeper.run(move |store| {
            provide(store);
            if let Err(error) = states.settle() {
                warn!(%error, "a value of an older version stays in memory until the next reload");
            }
            match store.sync() {
                Ok(Synced { entries: 0, removed: 0, .. }) => {}
                Ok(Synced { entries, pushed, removed, .. }) => info!(
                    generation,
                    handover_id = handover_id.as_deref(),
                    entries,
                    pushed,
                    removed,
                    "fd store: {entries} entries, {pushed} of them pushed now"
                ),
                Err(error) => {
                    warn!("not everything that this service keeps is in the fd store: {error}");
                    return;
                }
            }
            stale(store);
        });
    }
}

/// Changes the fd store, one thing after the other, where the driver need not wait.
#[derive(Debug)]
struct Keeper {
    changes: mpsc::UnboundedSender<StoreChange>,
    unfinished: Arc<AtomicUsize>,
}

impl Keeper {
    fn open(store: FdStore) -> Self {
        let (changes, mut waiting) = mpsc::unbounded_channel::<StoreChange>();
        let unfinished = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&unfinished);
        tokio::spawn(async move {
            while let Some(change) = waiting.recv().await {
                let store = store.clone();
                // One that panicked has said so itself; its reload runs into its timeout.
                let _ = tokio::task::spawn_blocking(move || may_wait(|| change(&store))).await;
                left.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { changes, unfinished }
    }

    fn run(&self, change: impl FnOnce(&FdStore) + Send + 'static) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let _ = self.changes.send(Box::new(change));
    }

    /// Whether nothing that was asked for is still to come.
    fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) == 0
    }
}

/// A rollback to an older version of the service is one to its version of the states.
fn restore(states: &States) {
    if let Err(error) = states.restore() {
        warn!(%error, "a state stays as the failed generation left it");
    }
}
