//! How jobs end: well, by a panic, in a drain, by the hammer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use handover::jobs::{JobReport, Outcome};
use tokio::sync::oneshot;

use crate::{jobs, soon, until};

const LINGER: Duration = Duration::from_secs(5);

fn numbers(report: &JobReport) -> (u64, u64, u64, usize, u64) {
    (report.started, report.finished, report.failed, report.cut.len(), report.running())
}

#[tokio::test]
async fn each_outcome_is_told() {
    let (drain, jobs) = jobs();
    let a = jobs.spawn("a", |job| async move { job.name().to_owned() }).unwrap();
    let b = jobs.spawn_blocking("b", |_| 2).unwrap();
    let c = jobs.spawn("c", |_| async { panic!("on purpose") }).unwrap();
    let d = jobs.spawn_blocking("d", |_| panic!("also {}", "on purpose")).unwrap();
    assert_eq!(c.name(), "c");
    assert_eq!(soon(a).await, Outcome::Finished("a".into()));
    assert_eq!(soon(b).await.finished(), Some(2));
    assert_eq!(soon(c).await, Outcome::<()>::Panicked("on purpose".into()));
    assert_eq!(soon(d).await, Outcome::<()>::Panicked("also on purpose".into()));
    assert_eq!(numbers(&jobs.report()), (4, 2, 2, 0, 0));
    drain.begin(LINGER);
    soon(drain.drained()).await;
}

#[tokio::test]
async fn in_a_drain_no_job_starts_and_the_closure_comes_back() {
    let (drain, jobs) = jobs();
    drain.begin(LINGER);
    let refused = jobs.spawn("late", |_| async { 7 }).unwrap_err();
    assert!(refused.error().is_state() && refused.to_string().contains("a drain has begun"), "{refused}");
    let closure = refused.into_job();
    let refused = jobs.spawn_blocking("late", |_| 8).unwrap_err();
    let error: handover::Error = refused.into();
    assert!(error.is_state());
    // it can be used: elsewhere
    let (_, other) = crate::jobs();
    assert_eq!(soon(other.spawn("late", closure).unwrap()).await, Outcome::Finished(7));
    assert_eq!(jobs.report(), JobReport::default());
}

#[tokio::test]
async fn what_runs_is_told_and_finishes() {
    let (drain, jobs) = jobs();
    let (go, gone) = oneshot::channel::<()>();
    let handle = jobs
        .spawn("patient", |job| async move {
            job.draining().await;
            gone.await.is_ok()
        })
        .unwrap();
    let stopper = jobs
        .spawn_blocking("steps", |job| {
            let draining = job.draining();
            (0_u64..).find(|_| {
                std::thread::yield_now();
                draining.has_begun()
            })
        })
        .unwrap();
    drain.begin(LINGER);
    soon(stopper).await.finished().unwrap();
    until("only the patient one", || (drain.active() == 1).then_some(())).await;
    go.send(()).unwrap();
    assert_eq!(soon(handle).await, Outcome::Finished(true));
    soon(drain.drained()).await;
}

#[tokio::test]
async fn jobs_of_a_job_start_in_a_drain_and_are_part_of_it() {
    let (drain, jobs) = jobs();
    let (go, gone) = oneshot::channel::<()>();
    let (run, ran) = oneshot::channel::<()>();
    let outer = jobs
        .spawn("outer", |job| async move {
            job.draining().await;
            let inner = job.clone();
            let first = job.spawn("first", move |_| async move { gone.await.is_ok() }).unwrap();
            let second = inner.spawn_blocking("second", |job| job.name().to_owned()).unwrap();
            drop(first); // not awaited: the job is not over without it
            let second = second.await;
            run.send(()).unwrap();
            second
        })
        .unwrap();
    drain.begin(LINGER);
    soon(ran).await.unwrap();
    until("the second one's end", || (drain.active() == 2).then_some(())).await;
    assert_eq!(numbers(&jobs.report()), (1, 0, 0, 0, 1), "the outer one waits for the first");
    go.send(()).unwrap();
    assert_eq!(soon(outer).await, Outcome::Finished(Outcome::Finished("outer > second".into())));
    soon(drain.drained()).await;
    assert_eq!(numbers(&jobs.report()), (1, 1, 0, 0, 0));
}

struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[tokio::test]
async fn the_hammer_cuts_what_is_left_and_names_it() {
    let (drain, jobs) = jobs();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let endless = jobs
        .spawn("endless\n", |job| async move {
            let _flag = flag;
            let inner = job.spawn("inner", |_| std::future::pending::<()>()).unwrap();
            inner.await
        })
        .unwrap();
    let (release, held) = mpsc::channel::<()>();
    let stubborn = jobs.spawn_blocking("stubborn", move |_| held.recv().is_err()).unwrap();
    let done = jobs.spawn("done", |_| async {}).unwrap();
    soon(done).await.finished().unwrap();
    until("the inner job", || (drain.active() == 3).then_some(())).await;
    drain.begin(LINGER);
    let mut cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    cut.sort();
    assert_eq!(cut.len(), 2, "a part of a job is not named beside it: {cut:?}");
    assert!(cut[0].starts_with("job endless\\n, running for "), "{cut:?}");
    assert!(cut[1].starts_with("job stubborn, running for "), "{cut:?}");
    assert_eq!(soon(endless).await, Outcome::Cut);
    assert!(dropped.load(Ordering::Acquire), "its future is dropped");
    assert_eq!(soon(stubborn).await, Outcome::Cut, "though its thread goes on");
    let mut report = jobs.report();
    report.cut.sort();
    assert_eq!(numbers(&report), (3, 1, 0, 2, 0));
    assert_eq!(report.to_string(), "3 started, 1 finished, 0 failed, 2 cut (endless\\n, stubborn)");
    drop(release);
    soon(drain.drained()).await;
    assert_eq!(numbers(&jobs.report()), (3, 1, 0, 2, 0), "what ends after it was cut stays cut");
}

/// What the log says and what the handle says is one thing, also for a job that ends at that very
/// moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_either_cut_or_over() {
    for _ in 0..300 {
        let (drain, jobs) = jobs();
        let (go, gone) = oneshot::channel::<()>();
        let quick = jobs.spawn("quick", |_| gone).unwrap();
        let blocking = jobs.spawn_blocking("blocking", |_| ()).unwrap();
        let opener = tokio::spawn(async move { go.send(()) });
        drain.begin(LINGER);
        let cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
        let named = |name: &str| cut.iter().any(|c| c.contains(name));
        assert_eq!(soon(quick).await == Outcome::Cut, named("quick"), "{cut:?}");
        if named("blocking") {
            assert_eq!(soon(blocking).await, Outcome::Cut);
        }
        let _ = opener.await;
        soon(drain.drained()).await;
        assert_eq!(jobs.report().cut.len(), cut.len());
        assert_eq!(jobs.report().running(), 0);
    }
}
