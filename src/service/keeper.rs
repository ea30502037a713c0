//! The fd store over a reload: whoever accepts, the store and both generations have every socket and every state.
//!
//! The order: the next one starts with copies of all entries, and before it says that it is ready it sends what it has added; this
//! one, which alone is heard by the service manager, pushes that, freezes, and sends what has come meanwhile; then it says
//! `switch`. The next one pushes everything once more when it is main, and removes what nobody asks for any more.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::lifecycle::Event;
use crate::service::driver::{Driver, Input};
use crate::service::lock;
use crate::service::sockets;
use crate::state::States;
use crate::systemd::fdstore::{Changes, FdStore, STORE_TIMEOUT, Synced, zip};
use crate::wire::frame::{Frame, MAX_NAMES};

type Job = Box<dyn FnOnce(&FdStore) -> Option<Input> + Send>;

/// Changes the fd store, one thing after the other, where the driver need not wait.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    jobs: mpsc::UnboundedSender<Job>,
    /// That are waiting or running.
    unfinished: Arc<AtomicUsize>,
}

impl Keeper {
    pub(crate) fn open(store: FdStore, inputs: mpsc::UnboundedSender<Input>) -> Self {
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let unfinished = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&unfinished);
        tokio::spawn(async move {
            while let Some(job) = waiting.recv().await {
                let store = store.clone();
                // A job that panicked has said so itself; its reload runs into its timeout.
                if let Ok(Some(input)) = tokio::task::spawn_blocking(move || job(&store)).await {
                    let _ = inputs.send(input);
                }
                left.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { jobs, unfinished }
    }

    fn run(&self, job: impl FnOnce(&FdStore) -> Option<Input> + Send + 'static) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let _ = self.jobs.send(Box::new(job));
    }

    /// Nothing that was asked for is still to come.
    fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) == 0
    }
}

/// What the next generation is told before it accepts.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    changes: Changes,
    /// What it added and we put into the store.
    added: Vec<String>,
}

impl Driver {
    /// Before the generation is ready, all of its states exist. Before the first one accepts, they and what it has bound are in
    /// the store too, so that a crash cannot lose a client that waits.
    pub(crate) async fn make_ready(&self) {
        let (store, states, first) =
            (lock(&self.sockets).store().clone(), self.states.clone(), self.predecessor.is_none());
        if !first && states.is_empty() {
            return;
        }
        let offered = tokio::task::spawn_blocking(move || {
            states.prepare()?;
            if first { store.offer() } else { Ok(()) }
        });
        match tokio::time::timeout(STORE_TIMEOUT, offered).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(%error, "not everything that this service keeps is in the fd store yet"),
            Ok(Err(_)) | Err(_) => warn!("the fd store did not answer within {STORE_TIMEOUT:?}; going on"),
        }
    }

    /// To the previous generation, before it is told that we are ready.
    pub(crate) fn say_additions(&self) {
        let Some(previous) = &self.predecessor else { return };
        let additions = lock(&self.sockets).store().additions();
        if let Err(error) = additions.and_then(|additions| previous.link.send_entries(&additions)) {
            warn!(%error, "what this generation adds to the fd store goes there only when it is main");
        }
    }

    /// From the next generation: kept for it when it is ready.
    pub(crate) fn on_additions(&mut self, names: Vec<String>, fds: Vec<OwnedFd>) {
        match (zip(names, fds), &mut self.reload) {
            (Ok(entries), Some(reload)) => reload.additions.extend(entries),
            (Ok(_), None) => {}
            (Err(error), _) => self.feed(Event::NextFailed(format!("cannot be understood: {error}"))),
        }
    }

    /// The next generation is ready: now the fd store is its.
    pub(crate) fn prepare_switch(&mut self) {
        let Some(reload) = &mut self.reload else { return };
        let (id, additions, since) = (reload.id, std::mem::take(&mut reload.additions), reload.snapshot.clone());
        // Most services add nothing. A thread for that is a wait for a processor, which the next one needs, too.
        if additions.is_empty() && self.keeper.is_idle() {
            let handed = lock(&self.sockets).store().try_hand_over(&since);
            if let Some(prepared) = handed {
                return self.on_prepared(id, prepared.map(|(changes, added)| Prepared { changes, added }));
            }
        }
        self.keeper.run(move |store| {
            let prepared = store.hand_over(additions, &since);
            Some(Input::Prepared(id, prepared.map(|(changes, added)| Prepared { changes, added })))
        });
    }

    pub(crate) fn on_prepared(&mut self, id: u64, prepared: crate::error::Result<Prepared>) {
        if !self.is_current(id) {
            // Rolled back meanwhile, and perhaps the next reload has begun.
            let added = prepared.map(|prepared| prepared.added).unwrap_or_default();
            match &mut self.reload {
                Some(next) if !next.ended => next.stray.extend(added),
                _ => self.thaw(added),
            }
            return;
        }
        let Some(reload) = &mut self.reload else { return };
        match prepared {
            Ok(prepared) => {
                reload.prepared = Some(prepared);
                self.feed(Event::NextReady);
            }
            Err(error) => {
                reload.prepared = Some(Prepared::default());
                self.feed(Event::NextFailed(format!("could not be given the fd store: {error}")));
            }
        }
    }

    /// What has come since it was started, and then the word to accept.
    pub(crate) fn send_switch(&mut self) {
        let Some((reload, coming)) = self.reload.as_ref().and_then(|r| Some((r, r.coming.as_ref()?))) else {
            return self.send_next(&Frame::Switch);
        };
        let mut told = Ok(());
        if let Some(Prepared { changes, added }) = &reload.prepared {
            let (more, gone, pushed) = (changes.entries.len(), changes.gone.len(), added.len());
            if more + gone > 0 {
                info!(
                    generation = self.generation,
                    handover_id = %reload.handover_id,
                    more, gone, pushed,
                    "fd store: generation {} gets {more} more fds, {pushed} of its own were pushed, {gone} are gone",
                    self.generation + 1
                );
            }
            told = coming.link.send_entries(&changes.entries);
            for names in changes.gone.chunks(MAX_NAMES) {
                told = told.and_then(|()| coming.link.send(&Frame::Gone { names: names.to_vec() }));
            }
        }
        match told {
            Ok(()) => self.send_next(&Frame::Switch),
            Err(error) => {
                self.follow_ups.push_back(Event::NextFailed(format!("could not be given the fd store: {error}")));
            }
        }
    }

    /// From the previous generation, which has frozen its store.
    pub(crate) fn on_passed_entries(&mut self, names: Vec<String>, fds: Vec<OwnedFd>) {
        let store = lock(&self.sockets).store().clone();
        if let Err(error) = zip(names, fds).and_then(|entries| store.adopt(entries)) {
            warn!(%error, "some of what the previous generation passed is of no use");
        }
    }

    pub(crate) fn on_gone_entries(&mut self, names: &[String]) {
        lock(&self.sockets).store().forget(names);
    }

    /// The next generation failed, or died as main: the store is ours again, and states are as this version can read them.
    pub(crate) fn reclaim_store(&mut self) {
        let states = self.states.clone();
        self.keeper.run(move |_| {
            restore(&states);
            None
        });
        let Some(reload) = &mut self.reload else { return };
        let mut added = std::mem::take(&mut reload.stray);
        if let Some(prepared) = reload.prepared.take() {
            added.extend(prepared.added);
        } else if added.is_empty() {
            return; // It never was another's.
        }
        self.thaw(added);
    }

    fn thaw(&self, added: Vec<String>) {
        self.keeper.run(move |store| {
            if let Err(error) = store.thaw(&added) {
                warn!(%error, "the fd store may not have all that this generation has");
            }
            None
        });
    }

    /// We are main: the store gets what is not in it, and loses what nobody asks for any more.
    pub(crate) fn keep(&self) {
        let wanted = lock(&self.sockets).entries();
        let (generation, handover_id, states) = (self.generation, self.handover_id.clone(), self.states.clone());
        self.keeper.run(move |store| {
            if let Err(error) = states.settle() {
                warn!(%error, "a value of an older version stays in memory until the next reload");
            }
            match store.sync() {
                Ok(Synced { entries: 0, removed: 0, .. }) => {}
                Ok(Synced { entries, pushed, removed, .. }) => {
                    info!(
                        generation,
                        handover_id,
                        entries,
                        pushed,
                        removed,
                        "fd store: {entries} entries, {pushed} of them pushed now"
                    );
                }
                Err(error) => {
                    warn!(%error, "not everything that this service keeps is in the fd store");
                    return None;
                }
            }
            sockets::remove_stale(store, &wanted);
            None
        });
    }
}

/// A rollback to an older version of the service is one to its version of the states.
pub(crate) fn restore(states: &States) {
    if let Err(error) = states.restore() {
        warn!(%error, "a state stays as the failed generation left it");
    }
}
