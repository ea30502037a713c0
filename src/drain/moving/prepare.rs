//! Getting many connections ready to be served, on all processors, while others are still read.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Adoption, Arrived};
use crate::drain::handle::Drain;
use crate::transit::{Parcel, mailbox};
use crate::wire::parcel::{UPGRADED, millis};

/// So many are got ready by one thread at a time.
const AT_A_TIME: usize = 256;

/// One that is to be served.
pub(super) struct Waiting {
    pub(super) parcel: Parcel,
    pub(super) waited: Duration,
    /// A crash has left it.
    pub(super) rescued: bool,
}

/// One that is ready, or not to be served; and whether a crash has left it.
pub(super) type Prepared = (bool, Result<Adoption, Unserved>);

/// One that nobody serves: why, and what is needed to say so.
type Unserved = (&'static str, Option<OwnedFd>, String);

/// What others get ready meanwhile.
pub(super) struct Queue<'a> {
    part: Vec<Waiting>,
    send: &'a dyn Fn(Vec<Waiting>),
}

impl Queue<'_> {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.part.push(waiting);
        if self.part.len() == AT_A_TIME {
            (self.send)(std::mem::take(&mut self.part));
        }
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        (self.send)(std::mem::take(&mut self.part));
    }
}

/// Gets ready to serve all that this puts into the queue, on as many processors as there are:
/// nobody is served meanwhile. They stay in their order.
pub(super) fn prepare_all(drain: &Drain, look: impl FnOnce(Queue<'_>)) -> Vec<Prepared> {
    let (sender, parts) = mpsc::channel::<(usize, Vec<Waiting>)>();
    let parts = Mutex::new(parts);
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
    // Sockets belong to the runtime of whoever asks.
    let runtime = Handle::try_current().ok();
    let work = || {
        let _in_runtime = runtime.as_ref().map(Handle::enter);
        let mut prepared = Vec::new();
        while let Some((number, part)) = next() {
            prepared.push((number, part.into_iter().map(|one| one.prepare(drain)).collect::<Vec<_>>()));
        }
        prepared
    };
    thread::scope(|scope| {
        let helpers = RefCell::new(Vec::new());
        let most = OnceCell::new();
        let number = Cell::new(0);
        let send = |part: Vec<Waiting>| {
            let most = *most.get_or_init(|| thread::available_parallelism().map_or(1, usize::from)) - 1;
            let mut helpers = helpers.borrow_mut();
            if part.len() == AT_A_TIME && helpers.len() < most {
                // Where there is no thread, the others do its part.
                helpers.extend(thread::Builder::new().spawn_scoped(scope, work).ok());
            }
            let _ = sender.send((number.replace(number.get() + 1), part)); // the receiver is ours
        };
        look(Queue { part: Vec::new(), send: &send });
        drop(sender);
        let mut prepared = work();
        for helper in helpers.into_inner() {
            match helper.join() {
                Ok(some) => prepared.extend(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        prepared.sort_unstable_by_key(|(number, _)| *number);
        prepared.into_iter().flat_map(|(_, part)| part).collect()
    })
}

impl Waiting {
    /// Gets ready to serve it, and returns whether a crash has left it.
    fn prepare(self, drain: &Drain) -> Prepared {
        let Self { parcel, waited, rescued } = self;
        let (mut record, fd, contents) = parcel.into_parts();
        let Some(adopter) = drain.core.moving.adopter(&record.listener) else {
            return (rescued, Err(("listener", Some(fd), record.protocol)));
        };
        let now = millis(mailbox::now());
        if record.written_ms > 0 {
            // Written when it came, and since then it was served. It is not fresh, as a rule.
            record.open_ms = record.open_ms.saturating_add(now.saturating_sub(record.written_ms));
            record.requests = record.requests.max(1);
        } else {
            record.open_ms = record.open_ms.saturating_add(millis(waited));
        }
        record.quiet_ms = record.quiet_ms.saturating_add(millis(waited));
        let protocol = record.protocol.clone();
        // Only its client has to be told something.
        let copy = if protocol == UPGRADED { fd.try_clone().ok() } else { None };
        let prepared = adopter.prepare(Arrived { record, fd, contents, was: None, again: false, waited: true });
        (rescued, prepared.map_err(|reason| (reason, copy, protocol)))
    }
}
