//! What clients wait for, besides their server.

use std::time::Duration;

use tokio::sync::watch;

/// Tells clients when to end, and when a reload begins.
#[derive(Debug, Clone)]
pub struct Signals {
    stop: watch::Receiver<bool>,
    /// Counts reloads.
    reload: watch::Receiver<u32>,
}

/// The other end. Dropped, all clients end.
#[derive(Debug)]
pub struct Conductor {
    stop: watch::Sender<bool>,
    reload: watch::Sender<u32>,
}

impl Default for Conductor {
    fn default() -> Self {
        Self { stop: watch::Sender::new(false), reload: watch::Sender::new(0) }
    }
}

impl Conductor {
    pub fn signals(&self) -> Signals {
        Signals { stop: self.stop.subscribe(), reload: self.reload.subscribe() }
    }

    pub fn reload(&self, number: u32) {
        self.reload.send_replace(number);
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Signals {
    /// Also when nobody is left to say so.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// When clients shall end, or nobody is left to say so.
    pub async fn stopped(&mut self) {
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// Until so long after the next reload begins, or `most` if none does, or the end.
    pub(super) async fn reload(&mut self, after: Duration, most: Duration) {
        self.reload.mark_unchanged();
        let reload = async {
            let _ = self.reload.changed().await;
            tokio::time::sleep(after).await;
        };
        tokio::select! {
            _ = tokio::time::timeout(most + after, reload) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }
}
