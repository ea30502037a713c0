//! The outbox to the service manager: in order, and never waited for by the driver.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::lifecycle::Event;
use crate::service::driver::Input;
use crate::systemd::notify::{BARRIER_TIMEOUT, Message, Notifier};

#[derive(Debug)]
enum Letter {
    Message(Message),
    Barrier,
}

/// For tasks that have something to tell.
#[derive(Debug, Clone)]
pub(crate) struct Sender(mpsc::UnboundedSender<Letter>);

impl Sender {
    pub(crate) fn send(&self, message: Message) {
        let _ = self.0.send(Letter::Message(message));
    }
}

/// Where the driver drops its messages.
#[derive(Debug)]
pub(crate) struct Outbox {
    letters: Sender,
    carrier: JoinHandle<()>,
}

impl Outbox {
    pub(crate) fn open(notifier: Notifier, inputs: mpsc::UnboundedSender<Input>) -> Self {
        let (letters, mut waiting) = mpsc::unbounded_channel();
        let carrier = tokio::spawn(async move {
            while let Some(letter) = waiting.recv().await {
                match letter {
                    Letter::Message(message) => {
                        if let Err(error) = notifier.send_async(&message).await {
                            warn!(%error, "the service manager could not be told");
                        }
                    }
                    Letter::Barrier => {
                        if let Err(error) = notifier.barrier_async(BARRIER_TIMEOUT).await {
                            warn!(%error, "the service manager did not confirm the handover; going on");
                        }
                        let _ = inputs.send(Input::Event(Event::Barrier));
                    }
                }
            }
        });
        Self { letters: Sender(letters), carrier }
    }

    pub(crate) fn send(&self, message: Message) {
        self.letters.send(message);
    }

    pub(crate) fn sender(&self) -> Sender {
        self.letters.clone()
    }

    /// [`Event::Barrier`] follows when the manager has read all that was sent before, or does not say so in time.
    pub(crate) fn barrier(&self) {
        let _ = self.letters.0.send(Letter::Barrier);
    }

    /// Sends what is left.
    pub(crate) async fn close(self, timeout: Duration) {
        drop(self.letters);
        let _ = tokio::time::timeout(timeout, self.carrier).await;
    }
}
