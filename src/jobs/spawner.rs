//! Threads that start programs, and last as long as these do.
//!
//! The kernel ties `PR_SET_PDEATHSIG` to the *thread* that forked. A runtime's threads come and go
//! (blocking ones after 10 s of idleness, workers with `block_in_place`), and would take the
//! programs with them. A fork also copies our page tables, which takes 50 ms per GiB of heap: that
//! is no work for a thread that serves.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How many programs may be being started at once: each waits for its exec, and for its scope.
const LANES: usize = 4;

type StartCall = Box<dyn FnOnce() + Send>;

/// They end when this is dropped: whoever has a child that ends with its thread holds on to it.
#[derive(Default)]
pub(super) struct Lanes {
    next: AtomicUsize,
    lanes: [Mutex<Option<mpsc::Sender<StartCall>>>; LANES],
}

impl Lanes {
    /// Starts the command on one of the threads.
    ///
    /// # Cancel safety
    /// A child that nobody waits for any more is dropped, and killed if the command says so.
    pub(super) async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let runtime = Handle::current();
        let (tell, told) = oneshot::channel();
        self.send(Box::new(move || {
            // registers the child with the runtime
            let _entered = runtime.enter();
            let started = command.spawn();
            drop(command);
            let _ = tell.send(started);
        }))?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that starts programs is gone")))
    }

    fn send(&self, mut start: StartCall) -> io::Result<()> {
        let lane = self.next.fetch_add(1, Ordering::Relaxed) % LANES;
        let mut lane = self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*lane {
            match sender.send(start) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(back)) => start = back,
            }
        }
        let (sender, waiting) = mpsc::channel::<StartCall>();
        thread::Builder::new().name("job starter".into()).spawn(move || {
            for start in waiting {
                start();
            }
        })?;
        // the thread that we hold the only sender to has just started to receive
        let _ = sender.send(start);
        *lane = Some(sender);
        Ok(())
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lanes")
    }
}
