//! Getting many connections ready to be served, on all processors.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Adopter, Adoption, Arrived};
use crate::drain::limit::LimitSlot;
use crate::transit::{Parcel, mailbox};
use crate::wire::parcel::{UPGRADED, millis};

/// So many are got ready by one thread at a time.
const AT_A_TIME: usize = 64;

/// One that is to be served.
pub(super) struct Waiting {
    pub(super) parcel: Parcel,
    pub(super) adopter: Arc<dyn Adopter>,
    /// Its place within the limit of its listener, which nobody who comes anew can take.
    pub(super) slot: Option<LimitSlot>,
    pub(super) waited: Duration,
    /// A crash has left it.
    pub(super) rescued: bool,
}

/// One that nobody serves: why, and what is needed to say so.
#[derive(Debug)]
pub(super) struct Unserved {
    pub(super) reason: &'static str,
    pub(super) fd: Option<OwnedFd>,
    pub(super) protocol: String,
}

/// One that is ready, or not to be served; and whether a crash has left it.
pub(super) type Prepared = (bool, Result<Adoption, Unserved>);

/// Gets ready to serve all of these, on as many processors as there are, and passes them on in
/// their order, the first of them while others are got ready.
pub(super) fn prepare_all(waiting: Vec<Waiting>, mut then: impl FnMut(Prepared)) {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(waiting.len().div_ceil(AT_A_TIME));
    let parts = Mutex::new((0_usize.., waiting.into_iter()));
    let next = || {
        let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part: Vec<_> = parts.1.by_ref().take(AT_A_TIME).collect();
        if part.is_empty() { None } else { parts.0.next().map(|number| (number, part)) }
    };
    let prepare_part = |part: Vec<Waiting>| part.into_iter().map(Waiting::get_ready).collect::<Vec<_>>();
    // Sockets belong to the runtime of whoever asks.
    let runtime = Handle::try_current().ok();
    thread::scope(|scope| {
        let (sender, prepared) = mpsc::channel();
        let help = |sender: mpsc::Sender<_>| {
            let _in_runtime = runtime.as_ref().map(Handle::enter);
            while let Some((number, part)) = next() {
                let _ = sender.send((number, prepare_part(part))); // the receiver is ours
            }
        };
        for _ in 1..threads {
            let sender = sender.clone();
            // Where there is no thread, the others do its part.
            let _ = thread::Builder::new().spawn_scoped(scope, move || help(sender));
        }
        drop(sender);
        let (mut ready, mut expected) = (BTreeMap::new(), 0);
        loop {
            ready.extend(prepared.try_iter());
            if let Some(part) = ready.remove(&expected) {
                part.into_iter().for_each(&mut then);
                expected += 1;
            } else if let Some((number, part)) = next() {
                ready.insert(number, prepare_part(part));
            } else if let Ok((number, part)) = prepared.recv() {
                ready.insert(number, part);
            } else {
                break;
            }
        }
    });
}

impl Waiting {
    fn get_ready(self) -> Prepared {
        let Self { parcel, adopter, slot, waited, rescued } = self;
        let (mut record, fd, contents) = parcel.into_parts();
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
        let arrived = Arrived { record, fd, contents, was: None, slot, again: false, waited: true };
        // The application's code is in it, and one is no reason to lose all others.
        let prepared = catch_unwind(AssertUnwindSafe(|| adopter.prepare(arrived))).unwrap_or(Err("panicked"));
        (rescued, prepared.map_err(|reason| Unserved { reason, fd: copy, protocol }))
    }
}
