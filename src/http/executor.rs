//! Who polls an HTTP/2 request.

use hyper::rt::Executor;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// So long requests are polled by their connection's own task: what a task may take between two
/// awaits.
const LOOK: Duration = Duration::from_micros(100);
/// The number of requests that go without a look after one that took longer, for which others of
/// the connection have waited.
const WITHOUT: usize = 1000;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the requests of an HTTP/2 connection within its task. hyper wants a task for each request.
/// Most are answered at the first look, and then a task, and another thread to run it, costs more
/// than the answer: so only what has to wait gets one.
#[derive(Default)]
pub(super) struct Streams {
    executor: StreamExecutor,
}

/// Hyper's end of it, which each request has, too.
#[derive(Clone, Default)]
pub(super) struct StreamExecutor(Arc<Mutex<FreshStreams>>);

#[derive(Default)]
struct FreshStreams {
    /// hyper is being polled by the connection, which looks afterwards.
    accepting: bool,
    /// Accepted, and not looked at yet: looked at by `execute`, each answer would be a write of its
    /// own.
    requests: Vec<Request>,
    /// The number of requests yet to come that get their task at once.
    without: usize,
}

impl Streams {
    pub(super) fn executor(&self) -> StreamExecutor {
        self.executor.clone()
    }

    /// Polls hyper, and then what it has accepted; an answer wakes the connection.
    pub(super) fn poll<T>(&self, hyper: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.executor.fresh().accepting = true;
        let result = hyper();
        let mut requests = self.executor.accepted();
        if requests.is_empty() {
            return result;
        }
        let slow = look(requests.drain(..));
        let mut fresh = self.executor.fresh();
        fresh.requests = requests; // its memory, for the next ones
        if slow {
            fresh.without = WITHOUT;
        }
        result
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // if hyper panicked; each of them holds the executor that holds it
        drop(self.executor.accepted());
    }
}

impl StreamExecutor {
    fn fresh(&self) -> MutexGuard<'_, FreshStreams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> Vec<Request> {
        let mut fresh = self.fresh();
        fresh.accepting = false;
        mem::take(&mut fresh.requests)
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut fresh = self.fresh();
        if fresh.accepting && fresh.without == 0 {
            fresh.requests.push(Box::pin(future));
            return;
        }
        fresh.without = fresh.without.saturating_sub(1);
        drop(fresh);
        tokio::spawn(future);
    }
}

/// Looks at the requests, and returns whether one took longer than it may.
fn look(requests: impl Iterator<Item = Request>) -> bool {
    let (began, mut before, mut slow) = (Instant::now(), Duration::ZERO, false);
    for mut request in requests {
        if before > LOOK || !answered(request.as_mut()) {
            tokio::spawn(request); // looks again, for its own waker
        }
        if before <= LOOK {
            let now = began.elapsed();
            slow |= now - before > LOOK;
            before = now;
        }
    }
    slow
}

/// Polls the request, and returns whether it is over. A panic ends the request and not the
/// connection, as with a task.
fn answered(request: Pin<&mut (dyn Future<Output = ()> + Send)>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| request.poll(&mut cx).is_ready())).unwrap_or(true)
}
