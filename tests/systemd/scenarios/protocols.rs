//! Clients that nobody here wrote, under two reloads a second.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::web::{DEADLINE, UNIT, Web};
use crate::lab::Outcome;

/// Between two reloads.
const EVERY: Duration = Duration::from_millis(400);
const EVERY_OF_SOAK: Duration = Duration::from_millis(500);
/// No more processes than this drain at a time: the cap would hammer the oldest, which is another
/// scenario.
const DRAINING: usize = 6;
/// How long the clients may take to end once told.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// `HANDOVER_SOAK` makes a soak of it: two reloads a second for so many seconds. Otherwise as many
/// as the scenario says.
fn plan(reloads: usize) -> (usize, Duration) {
    let seconds = std::env::var("HANDOVER_SOAK").ok().and_then(|s| s.parse::<usize>().ok());
    seconds.map_or((reloads, EVERY), |seconds| (seconds * 2, EVERY_OF_SOAK))
}

/// What the clients saw.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) answered: u64,
    /// Not answered, but the protocol told the client that nothing was done with it.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) lost: BTreeMap<String, u64>,
}

impl Watched {
    pub(super) fn lost(&mut self, why: impl Into<String>) {
        *self.lost.entry(why.into()).or_default() += 1;
    }

    pub(super) fn refused(&mut self, why: impl Into<String>) {
        *self.refused.entry(why.into()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (all, others) in [(&mut self.refused, other.refused), (&mut self.lost, other.lost)] {
            for (why, count) in others {
                *all.entry(why).or_default() += count;
            }
        }
    }
}

/// What all of them saw.
pub(super) async fn join(mut tasks: JoinSet<Watched>) -> Watched {
    let mut watched = Watched::default();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(ended) => watched.add(ended),
            Err(error) => watched.lost(error.to_string()),
        }
    }
    watched
}

/// The reloads that happened meanwhile.
pub(super) struct Reloads {
    pub(super) reloads: usize,
    pub(super) watched: Watched,
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Reloads twice a second while the clients run in the container's network; told to stop, they must
/// end. Fails if anything was lost.
pub(super) fn reloads_under<F>(
    web: &Web<'_>,
    reloads: usize,
    clients: impl FnOnce(Arc<AtomicBool>) -> F + Send,
) -> Outcome<Reloads>
where
    F: Future<Output = Watched>,
{
    let (reloads, every) = plan(reloads);
    let stop = Arc::new(AtomicBool::new(false));
    let watched = thread::scope(|scope| {
        // Also when a reload fails: the scope waits for the clients.
        let stopping = StopOnDrop(Arc::clone(&stop));
        let running = scope.spawn(|| web.lab.in_netns(|| run(clients, &stop)));
        for reload in 0..reloads {
            let began = Instant::now();
            let old = web.lab.main_pid(UNIT)?;
            let new = web.reload()?;
            assert_ne!(old, new);
            if running.is_finished() {
                return Err(format!("the clients ended by themselves before reload {reload}").into());
            }
            web.lab.wait_until(DEADLINE, "few drain", || Ok((web.lab.pids(UNIT)?.len() <= DRAINING).then_some(())))?;
            thread::sleep(every.saturating_sub(began.elapsed()));
        }
        drop(stopping);
        running.join().map_err(|_| "a client panicked")??
    })?;
    println!(
        "{reloads} reloads: {} answered, refused {:?}, lost {:?}",
        watched.answered, watched.refused, watched.lost
    );
    assert!(watched.answered > 0, "nothing was asked");
    assert!(watched.lost.is_empty(), "lost {:?} of {}", watched.lost, watched.answered);
    assert_eq!(web.count_logged("handed over to generation")?, reloads);
    Ok(Reloads { reloads, watched })
}

fn run<F>(clients: impl FnOnce(Arc<AtomicBool>) -> F, stop: &Arc<AtomicBool>) -> Outcome<Watched>
where
    F: Future<Output = Watched>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stopped = async {
            while !stop.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(STOP_LIMIT).await;
        };
        tokio::select! {
            watched = clients(Arc::clone(stop)) => Ok(watched),
            () = stopped => Err(format!("clients that did not end within {STOP_LIMIT:?}").into()),
        }
    })
}
