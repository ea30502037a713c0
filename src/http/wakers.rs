//! Who is woken when something happens to a connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

#[derive(Debug, Default)]
pub(super) struct Wakers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The connection's own task.
    task: Option<Waker>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The half of an upgraded stream that waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Reader,
    Writer,
}

impl Wakers {
    pub(super) fn set_task(&self, waker: Waker) {
        self.inner().task = Some(waker);
    }

    /// Notes that an upgraded stream waits in somebody else's task.
    pub(super) fn set_waiting(&self, half: Half, waker: &Waker) {
        let mut wakers = self.inner();
        let slot = match half {
            Half::Reader => &mut wakers.reader,
            Half::Writer => &mut wakers.writer,
        };
        match slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Wakes the connection's own task.
    pub(super) fn wake_task(&self) {
        let task = self.inner().task.clone();
        task.iter().for_each(Waker::wake_by_ref);
    }

    /// Lets the reader of an upgraded connection go on.
    pub(super) fn wake_reader(&self) {
        let reader = self.inner().reader.clone();
        reader.into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_all(&self) {
        let wakers = {
            let wakers = self.inner();
            [wakers.task.clone(), wakers.reader.clone(), wakers.writer.clone()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
