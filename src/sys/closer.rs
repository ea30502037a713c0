//! Closes what others have sent, where nobody waits for it.
//!
//! The close(2) of the last reference to a file takes as long as its owner likes: a socket waits
//! for what is unsent (`SO_LINGER`), a file of FUSE for its file system. systemd closes what is
//! sent to it in another thread, too.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::Notify;

/// So many may wait to be closed before no more messages are read: they count against the limit of
/// open files.
const MAX_UNCLOSED: usize = 256;

/// The one that all receivers of this process share who want no fds; none if it cannot be started.
static SHARED: OnceLock<Option<Closer>> = OnceLock::new();

/// Closes what was sent by somebody who has no right to send any fds. The thread is started with
/// the first of them.
pub(crate) fn close_elsewhere(fds: Vec<OwnedFd>) {
    if fds.is_empty() {
        return;
    }
    match SHARED.get_or_init(|| Closer::start().ok()) {
        Some(closer) => drop(closer.sent(fds).of_stranger()),
        None => fds.into_iter().for_each(close_of_stranger),
    }
}

/// Returns whether [`close_elsewhere`] may be given more.
pub(crate) fn has_room() -> bool {
    SHARED.get().is_none_or(|shared| shared.as_ref().is_some_and(Closer::has_room))
}

#[derive(Debug, Clone)]
pub(crate) struct Closer {
    queue: Sender<Unwanted>,
    unclosed: Arc<Unclosed>,
}

#[derive(Debug, Default)]
struct Unclosed {
    count: AtomicUsize,
    fewer: Notify,
}

#[derive(Debug)]
struct Unwanted {
    fd: OwnedFd,
    /// Nobody that counts has an interest in how it is closed.
    of_stranger: bool,
}

/// Fds that somebody has sent. Dropped, they are closed elsewhere.
#[derive(Debug)]
pub(crate) struct SentFds {
    fds: Vec<OwnedFd>,
    of_stranger: bool,
    closer: Closer,
}

impl Closer {
    /// Starts the thread, which ends with the last of what could be given to it.
    pub(crate) fn start() -> io::Result<Self> {
        let (queue, queued) = channel();
        let unclosed = Arc::<Unclosed>::default();
        let counted = Arc::clone(&unclosed);
        thread::Builder::new().name("handover-close".into()).spawn(move || close(&queued, &counted))?;
        Ok(Self { queue, unclosed })
    }

    pub(crate) fn sent(&self, fds: Vec<OwnedFd>) -> SentFds {
        SentFds { fds, of_stranger: false, closer: self.clone() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.unclosed.count.load(Ordering::Acquire) < MAX_UNCLOSED
    }
}

#[cfg(feature = "supervise")]
impl Closer {
    /// Waits until more can be closed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.unclosed.fewer.notified().await;
        }
    }
}

impl SentFds {
    /// Says that they are of somebody who has no right to send any. What is unsent in a socket is
    /// then sent by the kernel, and the thread does not wait for it.
    pub(crate) fn of_stranger(mut self) -> Self {
        self.of_stranger = true;
        self
    }
}

#[cfg(feature = "supervise")]
impl SentFds {
    pub(crate) fn is_empty(&self) -> bool {
        self.fds.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.fds.iter()
    }

    /// Takes the first of them, to keep it.
    pub(crate) fn next(&mut self) -> Option<OwnedFd> {
        (!self.fds.is_empty()).then(|| self.fds.remove(0))
    }

    /// Adds one that is not to be kept.
    pub(crate) fn refuse(&mut self, fd: OwnedFd) {
        self.fds.push(fd);
    }
}

impl Drop for SentFds {
    fn drop(&mut self) {
        for fd in self.fds.drain(..) {
            self.closer.unclosed.count.fetch_add(1, Ordering::AcqRel);
            // The thread lives for as long as there is somebody who could ask it.
            let _ = self.closer.queue.send(Unwanted { fd, of_stranger: self.of_stranger });
        }
    }
}

fn close(queued: &Receiver<Unwanted>, unclosed: &Unclosed) {
    for Unwanted { fd, of_stranger } in queued {
        if of_stranger {
            close_of_stranger(fd);
        } else {
            drop(fd);
        }
        unclosed.count.fetch_sub(1, Ordering::AcqRel);
        unclosed.fewer.notify_one();
    }
}

fn close_of_stranger(fd: OwnedFd) {
    // What is no socket has no such option.
    let _ = setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
    drop(fd);
}

#[cfg(all(test, feature = "supervise"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn there_is_room_again_when_what_was_sent_is_closed() {
        let closer = Closer::start().unwrap();
        let fds = || -> Vec<OwnedFd> { (0..MAX_UNCLOSED).map(|_| io::pipe().unwrap().0.into()).collect() };
        for _ in 0..3 {
            drop(closer.sent(fds()).of_stranger());
            tokio::time::timeout(Duration::from_secs(60), closer.room()).await.unwrap();
        }
        let mut sent = closer.sent(fds());
        let kept = sent.next().unwrap();
        assert_eq!(sent.iter().count(), MAX_UNCLOSED - 1);
        sent.refuse(kept);
        assert!(!sent.is_empty() && sent.iter().count() == MAX_UNCLOSED);
    }
}
