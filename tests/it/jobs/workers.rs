//! Workers: when they fetch, and that nothing they fetched is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::{jobs, soon, until};

const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<u32>>,
    done: Mutex<Vec<u32>>,
    fetches: AtomicUsize,
}

impl Queue {
    fn of(items: impl IntoIterator<Item = u32>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::new(items.into_iter().collect()), ..Self::default() })
    }

    fn fetch(&self) -> Option<u32> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.waiting.lock().unwrap().pop_front()
    }

    fn give_back(&self, item: u32) {
        self.waiting.lock().unwrap().push_front(item);
    }

    fn done(&self, item: u32) {
        self.done.lock().unwrap().push(item);
    }

    fn left(&self) -> Vec<u32> {
        self.waiting.lock().unwrap().iter().copied().collect()
    }

    fn count_done(&self) -> usize {
        self.done.lock().unwrap().len()
    }
}

/// Time is simulated: all of it is in this process.
#[tokio::test(start_paused = true)]
async fn fetches_while_the_gate_is_open() {
    let (drain, jobs) = jobs();
    let queue = Queue::of(0..10);
    let (source, sink) = (Arc::clone(&queue), Arc::clone(&queue));
    let busy = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&busy), Arc::clone(&most));
    let worker = jobs
        .worker(
            "test",
            3,
            move || {
                let item = source.fetch();
                async move { Ok::<_, String>(item) }
            },
            move |item, _job| {
                let (sink, now, peak) = (Arc::clone(&sink), Arc::clone(&now), Arc::clone(&peak));
                async move {
                    peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    until("three at once", || (peak.load(Ordering::SeqCst) >= 3).then_some(())).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    sink.done(item);
                    if item == 3 { Err("three") } else { Ok(()) }
                }
            },
        )
        .idle_pause(Duration::from_millis(1))
        .start()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(queue.fetches.load(Ordering::SeqCst), 0, "not before its turn");
    drain.accept(true);
    until("all items", || (queue.count_done() == 10).then_some(())).await;
    // the switch: another generation's turn, and back
    drain.accept(false);
    let fetches = until("the last fetch", || (drain.active() == 0).then(|| queue.fetches.load(Ordering::SeqCst))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(queue.fetches.load(Ordering::SeqCst), fetches);
    queue.give_back(10);
    drain.accept(true);
    until("one more", || (queue.count_done() == 11).then_some(())).await;
    drain.begin(LINGER);
    let report = soon(worker).await.unwrap();
    assert_eq!((report.fetched, report.finished, report.failed, report.lost), (11, 10, 1, 0));
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(jobs.report().failed, 1);
    soon(drain.drained()).await;
}

/// A fetch is under way when the drain begins: its item goes back, and the drain waits for that.
#[tokio::test]
async fn what_was_fetched_too_late_is_given_back() {
    let (drain, jobs) = jobs();
    let queue = Queue::of([7, 8]);
    let (source, back) = (Arc::clone(&queue), Arc::clone(&queue));
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (ask, wait) = (Arc::clone(&asked), Arc::clone(&answer));
    let worker = jobs
        .worker(
            "test",
            1,
            move || {
                let (source, ask, wait) = (Arc::clone(&source), Arc::clone(&ask), Arc::clone(&wait));
                async move {
                    let item = source.fetch();
                    ask.notify_one();
                    let _ = wait.acquire().await;
                    Ok::<_, String>(item)
                }
            },
            |_: u32, _job| async { Err("it must not run") },
        )
        .give_back(move |item| {
            back.give_back(item);
            async { Ok::<_, String>(()) }
        })
        .start()
        .unwrap();
    drain.accept(true);
    soon(asked.notified()).await;
    drain.begin(LINGER);
    tokio::task::yield_now().await;
    assert_eq!(drain.active(), 1, "the fetch is counted");
    answer.close();
    let report = soon(worker).await.unwrap();
    assert_eq!((report.fetched, report.given_back, report.lost), (1, 1, 0));
    soon(drain.drained()).await;
    assert_eq!((queue.left(), queue.fetches.load(Ordering::SeqCst)), (vec![7, 8], 1));
    assert_eq!(jobs.report().started, 0);
}

#[tokio::test]
async fn without_a_hook_it_is_run() {
    let (drain, jobs) = jobs();
    let queue = Queue::of([7, 8]);
    let (source, sink) = (Arc::clone(&queue), Arc::clone(&queue));
    let beginning = drain.clone();
    let worker = jobs
        .worker(
            "test",
            1,
            move || {
                let item = source.fetch();
                beginning.begin(LINGER);
                async move { Ok::<_, String>(item) }
            },
            move |item, _job| {
                sink.done(item);
                async { Ok::<_, String>(()) }
            },
        )
        .start()
        .unwrap();
    drain.accept(true);
    let report = soon(worker).await.unwrap();
    assert_eq!((report.fetched, report.finished), (1, 1));
    assert_eq!((queue.left(), queue.count_done()), (vec![8], 1));
}

#[tokio::test]
async fn a_fetch_that_may_be_dropped_is() {
    let (drain, jobs) = jobs();
    let (queue, items) = tokio::sync::mpsc::channel::<u32>(4);
    let items = Arc::new(tokio::sync::Mutex::new(items));
    let worker = jobs
        .worker(
            "test",
            1,
            move || {
                let items = Arc::clone(&items);
                async move { Ok::<_, String>(items.lock().await.recv().await) }
            },
            |_, _job| async { Ok::<_, String>(()) },
        )
        .fetch_is_cancel_safe()
        .start()
        .unwrap();
    drain.accept(true);
    queue.send(1).await.unwrap();
    until("the item", || (jobs.report().finished == 1).then_some(())).await;
    drain.begin(LINGER);
    assert_eq!(soon(worker).await.unwrap().fetched, 1);
    soon(drain.drained()).await;
}

#[tokio::test]
async fn failing_and_panicking_fetches_are_tried_again_with_a_pause() {
    let (drain, jobs) = jobs();
    let tries = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&tries);
    let worker = jobs
        .worker(
            "test",
            1,
            move || {
                let mut log = log.lock().unwrap();
                log.push(Instant::now());
                let turn = log.len();
                drop(log);
                async move {
                    match turn {
                        1 => Err("down"),
                        2 => panic!("on purpose"),
                        3 => Err("still down"),
                        n => Ok(Some(n)),
                    }
                }
            },
            |n, _job| async move { if n == 4 { panic!("also on purpose") } else { Ok::<_, String>(()) } },
        )
        .name_items(|_| panic!("no name"))
        .fetch_retry(Duration::from_millis(20), Duration::from_millis(40))
        .start()
        .unwrap();
    drain.accept(true);
    until("items", || (jobs.report().finished > 2).then_some(())).await;
    drain.begin(LINGER);
    let report = soon(worker).await.unwrap();
    assert_eq!((report.failed, report.lost), (1, 0), "{report:?}");
    let tries = tries.lock().unwrap();
    let pauses: Vec<_> = tries.windows(2).take(3).map(|w| w[1] - w[0]).collect();
    let least = [20, 40, 40].map(Duration::from_millis);
    assert!(pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
}

#[tokio::test]
async fn a_fetch_that_hangs_is_named_by_the_hammer() {
    let (drain, jobs) = jobs();
    let worker = jobs
        .worker("stuck", 1, std::future::pending::<Result<Option<()>, String>>, |(), _job| async {
            Ok::<_, String>(())
        })
        .start()
        .unwrap();
    drain.accept(true);
    until("the fetch", || (drain.active() == 1).then_some(())).await;
    drain.begin(LINGER);
    let cut = drain.hammer();
    assert!(cut.len() == 1 && cut[0].to_string().starts_with("worker stuck, fetching, open for "), "{cut:?}");
    soon(worker).await.unwrap();
    soon(drain.drained()).await;
}
