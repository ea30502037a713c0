//! The tool's load clients, so that there is one client that says what a loss is; only how many of
//! them run is decided here. They live on a runtime in the container's network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::lab::{Container, Outcome};
use handover_load::until::Signals;
pub(crate) use handover_load::{Cause, Kill, Kind, Random, Stats, Summary};
use handover_load::{Conductor, Plan, Target};

/// How many clients of which kind.
pub(crate) type Clients = [(Kind, usize)];

/// Everything that a reload could break.
pub(crate) const ALL: &Clients =
    &[(Kind::KeepAlive, 16), (Kind::Fresh, 4), (Kind::Slow, 3), (Kind::Upload, 2), (Kind::Stream, 2)];
/// Nothing that takes longer than a second: drains are short.
pub(crate) const SHORT: &Clients = &[(Kind::KeepAlive, 16), (Kind::Fresh, 4), (Kind::Upload, 2)];

/// The longest that a client needs to end once told: its request's own time, and what its answer
/// may be late.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Until each kind has had its first answer.
const FIRST_ANSWERS: Duration = Duration::from_secs(15);

/// The same load each time, unless `HANDOVER_SEED` says otherwise; a failure names it.
pub(crate) fn seed() -> u64 {
    std::env::var("HANDOVER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_260_727)
}

/// Clients ask while `f` runs; it begins when each kind has had an answer. Afterwards every request
/// is finished.
pub(crate) fn under<T>(
    lab: &Container,
    address: SocketAddr,
    kinds: &Clients,
    f: impl FnOnce(&Stats) -> Outcome<T>,
) -> Outcome<(T, Arc<Stats>)> {
    let stats = Arc::new(Stats::default());
    let conductor = Conductor::default();
    let signals = conductor.signals();
    let (ended, end) = mpsc::channel();
    let result = thread::scope(|scope| {
        // Dropped also when `f` panics: the scope waits for the clients.
        let conductor = conductor;
        let clients = scope.spawn(|| {
            let outcome = lab.in_netns(|| run(address, kinds, &stats, signals));
            let _ = ended.send(());
            outcome
        });
        let outcome = first_answers(lab, kinds, &stats, &end).and_then(|()| f(&stats));
        drop(conductor);
        match clients.join() {
            Ok(ran) => outcome.and_then(|value| ran?.map(|()| value)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok((result, stats))
}

fn first_answers(lab: &Container, kinds: &Clients, stats: &Stats, end: &mpsc::Receiver<()>) -> Outcome {
    lab.wait_until(FIRST_ANSWERS, "an answer to each kind of client", || {
        if end.try_recv().is_ok() {
            return Err("the clients ended by themselves".into());
        }
        let counts = stats.summary().counts;
        Ok(kinds.iter().all(|(kind, _)| counts.get(kind).is_some_and(|c| c.answered > 0)).then_some(()))
    })
}

fn run(address: SocketAddr, counts: &Clients, stats: &Arc<Stats>, mut signals: Signals) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (target, plan) = (Target::tcp(address), Arc::new(Plan::example()));
        let mut clients = handover_load::start(counts, &target, &plan, stats, seed(), &signals);
        signals.stopped().await;
        let all = async { while clients.join_next().await.is_some() {} };
        match tokio::time::timeout(STOP_LIMIT, all).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("clients that did not end within {STOP_LIMIT:?} (seed {})", seed()).into()),
        }
    })
}

/// Nothing was lost, and something was asked.
pub(crate) fn lost_nothing(stats: &Stats) -> Outcome<Summary> {
    let summary = stats.summary();
    if !summary.lost.is_empty() || !summary.lost_to_kill.is_empty() || summary.total.answered == 0 {
        return Err(format!(
            "lost {:?}, {:?} of {:?} (seed {})",
            summary.lost,
            summary.lost_to_kill,
            summary.counts,
            seed()
        )
        .into());
    }
    Ok(summary)
}

/// Nothing was lost but what was in flight in the process that was killed.
pub(crate) fn lost_only_to_kill(stats: &Stats) -> Outcome<Summary> {
    let summary = stats.summary();
    if !summary.lost.is_empty() || summary.total.answered == 0 {
        return Err(format!("lost {:?} of {:?} (seed {})", summary.lost, summary.counts, seed()).into());
    }
    Ok(summary)
}
