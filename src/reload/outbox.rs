//! The outbox to the service manager: in order, and never waited for by the driver.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::systemd::notify::{BARRIER_TIMEOUT, Message, NOTIFY_TIMEOUT, Notifier};

/// Most messages of a supervised program that wait while the service manager does not read.
#[cfg(feature = "supervise")]
const MAX_WAITING: usize = 256;

#[derive(Debug)]
enum Mail {
    Message(Vec<u8>, Vec<OwnedFd>),
    Barrier,
}

/// A slot for messages, for tasks that have something to tell.
#[derive(Debug, Clone)]
pub(crate) struct OutboxSender {
    waiting: Arc<AtomicUsize>,
    mail: mpsc::UnboundedSender<Mail>,
}

impl OutboxSender {
    pub(crate) fn send(&self, message: &Message) {
        self.send_raw(message.to_string().into_bytes(), Vec::new());
    }

    fn send_raw(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The carrier ends with the outbox.
        let _ = self.mail.send(Mail::Message(bytes, fds));
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    sender: OutboxSender,
    carrier: JoinHandle<()>,
}

impl Outbox {
    /// `confirmed` is called when the manager has read all that was sent before a
    /// [`barrier`](Self::barrier), or does not say so in time.
    pub(crate) fn open(notifier: Notifier, confirmed: impl Fn() + Send + 'static) -> Self {
        let (mail, mut waiting) = mpsc::unbounded_channel();
        let count = Arc::<AtomicUsize>::default();
        let left = Arc::clone(&count);
        let carrier = tokio::spawn(async move {
            while let Some(mail) = waiting.recv().await {
                match mail {
                    Mail::Message(bytes, fds) => {
                        left.fetch_sub(1, Ordering::Relaxed);
                        let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                        if let Err(error) = notifier.transmit_async(&bytes, &borrowed, NOTIFY_TIMEOUT).await {
                            warn!(%error, "the service manager could not be told");
                        }
                    }
                    Mail::Barrier => {
                        if let Err(error) = notifier.barrier_async(BARRIER_TIMEOUT).await {
                            warn!(%error, "the service manager did not confirm the handover; going on");
                        }
                        confirmed();
                    }
                }
            }
        });
        Self { sender: OutboxSender { waiting: count, mail }, carrier }
    }

    pub(crate) fn send(&self, message: &Message) {
        self.sender.send(message);
    }

    pub(crate) fn sender(&self) -> OutboxSender {
        self.sender.clone()
    }

    pub(crate) fn barrier(&self) {
        let _ = self.sender.mail.send(Mail::Barrier);
    }

    pub(crate) async fn close(self, timeout: Duration) {
        drop(self.sender);
        let _ = tokio::time::timeout(timeout, self.carrier).await;
    }
}

/// What a supervised program says, which is passed on.
#[cfg(feature = "supervise")]
impl Outbox {
    /// Passes bytes and fds on as they are.
    pub(crate) fn pass(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.sender.send_raw(bytes, fds);
    }

    /// As [`pass`](Self::pass). If too much waits, it goes nowhere.
    pub(crate) fn pass_if_room(&self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        match self.sender.waiting.load(Ordering::Relaxed) {
            MAX_WAITING.. => warn!("the service manager does not read as fast as the program tells: dropped"),
            _ => self.pass(bytes, fds),
        }
    }

    /// As [`send`](Self::send). If too much waits, it goes nowhere.
    pub(crate) fn send_if_room(&self, message: &Message) {
        self.pass_if_room(message.to_string().into_bytes(), Vec::new());
    }
}
