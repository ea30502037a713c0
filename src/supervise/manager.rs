//! What the service manager is told: in order, and never waited for by the driver.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::systemd::notify::{Message, NOTIFY_TIMEOUT, Notifier};

/// Where the driver drops its messages.
#[derive(Debug)]
pub(crate) struct Manager {
    letters: mpsc::UnboundedSender<(Vec<u8>, Vec<OwnedFd>)>,
    carrier: JoinHandle<()>,
}

impl Manager {
    pub(crate) fn open(notifier: Notifier) -> Self {
        let (letters, mut waiting) = mpsc::unbounded_channel::<(Vec<u8>, Vec<OwnedFd>)>();
        let carrier = tokio::spawn(async move {
            while let Some((bytes, fds)) = waiting.recv().await {
                let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                if let Err(error) = notifier.transmit_async(&bytes, &borrowed, NOTIFY_TIMEOUT).await {
                    warn!(%error, "the service manager could not be told");
                }
            }
        });
        Self { letters, carrier }
    }

    pub(crate) fn tell(&self, message: &Message) {
        self.pass(message.to_string().into_bytes(), Vec::new());
    }

    pub(crate) fn pass(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        // The carrier ends with us.
        let _ = self.letters.send((bytes, fds));
    }

    /// Sends what is left.
    pub(crate) async fn close(self, timeout: Duration) {
        drop(self.letters);
        let _ = tokio::time::timeout(timeout, self.carrier).await;
    }
}
