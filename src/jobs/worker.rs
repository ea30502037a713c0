//! A worker: fetches items from a queue and runs them as jobs.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::core::{JobsCore, runtime};
use super::job::{Job, JobHandle, Outcome, Seat, contained};
use crate::drain::{Guard, Phase};
use crate::error::Result;

/// How long a worker waits after its queue was empty (`fetch` said `None`).
pub const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// How long a worker waits after a fetch has failed, at first. It is twice as long after each
/// further failure.
pub const FETCH_RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest time that a worker waits after a fetch has failed.
pub const FETCH_RETRY_MAX: Duration = Duration::from_secs(10);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Fetch<I> = Box<dyn FnMut() -> Boxed<Result<Option<I>, String>> + Send>;
type Run<I> = dyn Fn(I, Job) -> Boxed<Result<(), String>> + Send + Sync;
type NameOf<I> = Box<dyn Fn(&I) -> String + Send>;
type GiveBack<I> = Box<dyn Fn(I) -> Boxed<Result<(), String>> + Send + Sync>;

/// Fetches items and runs each as a job; made by [`Jobs::worker`](super::Jobs::worker).
///
/// It does one fetch at a time, and only with room for one more item. It waits for the drain's
/// gate: a next generation does not fetch before the switch, and an old one does not begin a fetch
/// after it.
///
/// A fetch that is under way when that happens is **awaited to its end**, so that nothing fetched
/// is lost, and the drain waits for it: let a fetch that waits for items return `None` after some
/// seconds, or say that it may be dropped ([`fetch_is_cancel_safe`](Self::fetch_is_cancel_safe)).
/// What it fetched goes to the [`give_back`](Self::give_back) hook, for the next generation to
/// fetch; without a hook this generation runs it.
#[must_use = "it does nothing until started"]
pub struct Worker<I> {
    core: Arc<JobsCore>,
    name: Arc<str>,
    concurrency: usize,
    fetch: Fetch<I>,
    run: Arc<Run<I>>,
    name_of: Option<NameOf<I>>,
    give_back: Option<GiveBack<I>>,
    cancel_safe: bool,
    idle: Duration,
    retry: (Duration, Duration),
    counts: Arc<ItemCounts>,
    number: u64,
}

impl<I: Send + 'static> Worker<I> {
    pub(super) fn new<F, FF, FE, R, RF, RE>(
        core: Arc<JobsCore>,
        name: String,
        concurrency: usize,
        mut fetch: F,
        run: R,
    ) -> Self
    where
        F: FnMut() -> FF + Send + 'static,
        FF: Future<Output = Result<Option<I>, FE>> + Send + 'static,
        FE: fmt::Display,
        R: Fn(I, Job) -> RF + Send + Sync + 'static,
        RF: Future<Output = Result<(), RE>> + Send + 'static,
        RE: fmt::Display,
    {
        Self {
            core,
            name: name.into(),
            concurrency: concurrency.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize)),
            fetch: Box::new(move || {
                let fetched = fetch();
                Box::pin(async { fetched.await.map_err(|e| e.to_string()) })
            }),
            run: Arc::new(move |item, job| {
                let ran = run(item, job);
                Box::pin(async { ran.await.map_err(|e| e.to_string()) })
            }),
            name_of: None,
            give_back: None,
            cancel_safe: false,
            idle: IDLE_PAUSE,
            retry: (FETCH_RETRY_MIN, FETCH_RETRY_MAX),
            counts: Arc::default(),
            number: 0,
        }
    }

    /// Sets where an item goes that was fetched when this generation had to stop. It was not
    /// started, and the drain waits until it is given back.
    pub fn give_back<G, GF, GE>(mut self, hook: G) -> Self
    where
        G: Fn(I) -> GF + Send + Sync + 'static,
        GF: Future<Output = Result<(), GE>> + Send + 'static,
        GE: fmt::Display,
    {
        self.give_back = Some(Box::new(move |item| {
            let given = hook(item);
            Box::pin(async { given.await.map_err(|e| e.to_string()) })
        }));
        self
    }

    /// Sets how an item's job is called. The default is the worker's name and a number.
    pub fn name_items(mut self, name: impl Fn(&I) -> String + Send + 'static) -> Self {
        self.name_of = Some(Box::new(name));
        self
    }

    /// Says that the fetch may be dropped half-way without losing an item, as tokio's
    /// `Receiver::recv` may. It is then dropped as soon as this generation stops fetching, and the
    /// drain does not wait for it.
    pub fn fetch_is_cancel_safe(mut self) -> Self {
        self.cancel_safe = true;
        self
    }

    /// Sets how long to wait after `fetch` said `None`. The default is [`IDLE_PAUSE`].
    pub fn idle_pause(mut self, pause: Duration) -> Self {
        self.idle = pause;
        self
    }

    /// Sets how long to wait after a fetch has failed: `min` at first, doubled each time, up to
    /// `max`. The defaults are [`FETCH_RETRY_MIN`] and [`FETCH_RETRY_MAX`].
    pub fn fetch_retry(mut self, min: Duration, max: Duration) -> Self {
        self.retry = (min, max.max(min));
        self
    }

    /// Starts it; it waits for the gate. Dropping the handle does not end it.
    ///
    /// # Errors
    /// With [`Error::is_state`](crate::Error::is_state): there is no tokio runtime.
    pub fn start(self) -> Result<WorkerHandle> {
        Ok(WorkerHandle { task: runtime()?.spawn(self.work()) })
    }

    async fn work(mut self) -> WorkerReport {
        let room = Arc::new(Semaphore::new(self.concurrency));
        let mut pause = self.retry.0;
        while let Some((permit, guard)) = self.turn(&room).await {
            match self.fetched(&guard).await {
                FetchEnd::Item(item) => {
                    if std::mem::replace(&mut pause, self.retry.0) > self.retry.0 {
                        info!(worker = &*self.name, "fetching again");
                    }
                    self.counts.fetched.fetch_add(1, Ordering::Relaxed);
                    self.start_item(item, permit, guard).await;
                }
                FetchEnd::Nothing => {
                    pause = self.retry.0;
                    drop((permit, guard));
                    self.rest(self.idle).await;
                }
                FetchEnd::Failed(why) => {
                    drop((permit, guard));
                    warn!(worker = &*self.name, retry_in = ?pause, "worker {:?} cannot fetch: {why}", self.name);
                    self.rest(pause).await;
                    pause = pause.saturating_mul(2).min(self.retry.1);
                }
                FetchEnd::Dropped => {}
            }
        }
        debug!(worker = &*self.name, "stopped fetching");
        let all = u32::try_from(self.concurrency).unwrap_or(u32::MAX);
        // never closed
        let _ = room.acquire_many(all).await;
        self.counts.report()
    }

    /// Waits until there is room for an item, and it is our turn to fetch; it returns `None` when
    /// that will not come again. The guard holds the drain open meanwhile.
    async fn turn(&mut self, room: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, Guard)> {
        let drain = &self.core.drain;
        let permit = tokio::select! {
            biased;
            () = drain.signal() => return None,
            permit = Arc::clone(room).acquire_owned() => permit.ok()?,
        };
        let mut gate = drain.gate();
        loop {
            // counted before the gate is let go of: a drain that begins now waits for the guard
            if let Some(_entering) = drain.enter(false) {
                return Some((permit, drain.register(format!("worker {}, fetching", self.name))));
            }
            if drain.phase() != Phase::Open {
                return None;
            }
            // the sender lives in the drain
            let _ = gate.wait_for(|open| *open || drain.phase() != Phase::Open).await;
        }
    }

    async fn fetched(&mut self, guard: &Guard) -> FetchEnd<I> {
        let mut gate = self.core.drain.gate();
        let cancel_safe = self.cancel_safe;
        let fetch = &mut self.fetch;
        let shut = async {
            match cancel_safe {
                true => _ = gate.wait_for(|open| !*open).await,
                // at the hammer it is named; nothing can be done for what it fetches after that
                false => guard.cut().await,
            }
        };
        tokio::select! {
            biased;
            fetched = contained(async { fetch().await }) => match fetched {
                Ok(Ok(Some(item))) => FetchEnd::Item(item),
                Ok(Ok(None)) => FetchEnd::Nothing,
                Ok(Err(why)) => FetchEnd::Failed(why),
                Err(panic) => FetchEnd::Failed(format!("it panicked: {panic}")),
            },
            () = shut => FetchEnd::Dropped,
        }
    }

    async fn start_item(&mut self, item: I, permit: OwnedSemaphorePermit, guard: Guard) {
        self.number += 1;
        // its panic must not cost us the item
        let named = self.name_of.as_ref().and_then(|name| catch_unwind(AssertUnwindSafe(|| name(&item))).ok());
        let name = named.unwrap_or_else(|| format!("{} #{}", self.name, self.number));
        let drain = self.core.drain.clone();
        let entering = drain.enter(false);
        if let (None, Some(_)) = (&entering, &self.give_back) {
            return self.return_item(item, &name, guard).await;
        }
        match Seat::take_late(&self.core, name.clone()) {
            Ok(seat) => {
                let run = Arc::clone(&self.run);
                let handle = seat.launch(move |job| run(item, job), |result| result.as_ref().err().cloned());
                let counts = Arc::clone(&self.counts);
                tokio::spawn(async move {
                    counts.count(handle).await;
                    drop(permit);
                });
            }
            Err(_) if self.give_back.is_some() => self.return_item(item, &name, guard).await,
            Err(why) => error!(worker = &*self.name, item = name, "item {name:?} was fetched and not started: {why}"),
        }
    }

    async fn return_item(&mut self, item: I, name: &str, guard: Guard) {
        let Some(hook) = &self.give_back else { return };
        match contained(async { hook(item).await }).await {
            Ok(Ok(())) => {
                self.counts.given_back.fetch_add(1, Ordering::Relaxed);
                debug!(worker = &*self.name, item = name, "given back");
            }
            Ok(Err(why)) => error!(worker = &*self.name, item = name, "item {name:?} cannot be given back: {why}"),
            Err(panic) => error!(worker = &*self.name, item = name, "giving back {name:?} panicked: {panic}"),
        }
        drop(guard);
    }

    async fn rest(&mut self, pause: Duration) {
        tokio::select! {
            () = self.core.drain.signal() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl<I> fmt::Debug for Worker<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

enum FetchEnd<I> {
    Item(I),
    Nothing,
    Failed(String),
    Dropped,
}

/// A worker that was started; resolves when it is over: a drain has begun, and its last item is
/// done.
#[must_use = "dropping it does not end the worker; `drop` it to say that its report is of no interest"]
#[derive(Debug)]
pub struct WorkerHandle {
    task: JoinHandle<WorkerReport>,
}

impl Future for WorkerHandle {
    /// `None` if the runtime ended before the worker did.
    type Output = Option<WorkerReport>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(cx).map(Result::ok)
    }
}

/// What a worker did: `fetched` is the sum of the others, once it is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Items that `fetch` returned.
    pub fetched: u64,
    /// Items whose `run` returned `Ok`.
    pub finished: u64,
    /// Items whose `run` returned an error or panicked.
    pub failed: u64,
    /// Items that were started and cut.
    pub cut: u64,
    /// Items that were not started, and given back.
    pub given_back: u64,
    /// Items that were not started, and could not be given back: each is in the log.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct ItemCounts {
    fetched: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    cut: AtomicU64,
    given_back: AtomicU64,
}

impl ItemCounts {
    async fn count(&self, handle: JobHandle<Result<(), String>>) {
        let counter = match handle.await {
            Outcome::Finished(Ok(())) => &self.finished,
            Outcome::Finished(Err(_)) | Outcome::Panicked(_) => &self.failed,
            Outcome::Cut => &self.cut,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn report(&self) -> WorkerReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (fetched, finished, failed) = (read(&self.fetched), read(&self.finished), read(&self.failed));
        let (cut, given_back) = (read(&self.cut), read(&self.given_back));
        let lost = fetched.saturating_sub(finished + failed + cut + given_back);
        WorkerReport { fetched, finished, failed, cut, given_back, lost }
    }
}
