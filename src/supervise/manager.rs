//! What the service manager is told: in order, and never waited for by the driver.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::systemd::notify::{Message, NOTIFY_TIMEOUT, Notifier};

/// Of what a program says, no more than this is kept while the service manager does not read.
const ROOM: usize = 256;

/// Where the driver drops its messages.
#[derive(Debug)]
pub(crate) struct Manager {
    waiting: Arc<AtomicUsize>,
    letters: mpsc::UnboundedSender<(Vec<u8>, Vec<OwnedFd>)>,
    carrier: JoinHandle<()>,
}

impl Manager {
    pub(crate) fn open(notifier: Notifier) -> Self {
        let (letters, mut waiting) = mpsc::unbounded_channel::<(Vec<u8>, Vec<OwnedFd>)>();
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let carrier = tokio::spawn(async move {
            while let Some((bytes, fds)) = waiting.recv().await {
                counted.fetch_sub(1, Ordering::Relaxed);
                let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                if let Err(error) = notifier.transmit_async(&bytes, &borrowed, NOTIFY_TIMEOUT).await {
                    warn!(%error, "the service manager could not be told");
                }
            }
        });
        Self { waiting: count, letters, carrier }
    }

    pub(crate) fn tell(&self, message: &Message) {
        self.pass(message.to_string().into_bytes(), Vec::new());
    }

    /// What a program says. If it is too much, the rest goes nowhere.
    pub(crate) fn tell_if_room(&self, message: &Message) {
        self.pass_if_room(message.to_string().into_bytes(), Vec::new());
    }

    pub(crate) fn pass_if_room(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        match self.waiting.load(Ordering::Relaxed) {
            ROOM.. => warn!("the service manager does not read as fast as the program tells: dropped"),
            _ => self.pass(bytes, fds),
        }
    }

    pub(crate) fn pass(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The carrier ends with us.
        let _ = self.letters.send((bytes, fds));
    }

    /// Sends what is left.
    pub(crate) async fn close(self, timeout: Duration) {
        drop(self.letters);
        let _ = tokio::time::timeout(timeout, self.carrier).await;
    }
}
