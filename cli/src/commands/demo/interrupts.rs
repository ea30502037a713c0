//! Ctrl-C and its like.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Once asked for, they no longer end this process by themselves, so what was started is cleaned
/// up.
pub(super) struct Interrupts([Signal; 3]);

impl Interrupts {
    pub(super) fn new() -> Result<Self, Failure> {
        let handle = |kind| signal(kind).map_err(|e| Failure::cannot_run(format!("signals cannot be handled: {e}")));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hang_up] = kinds.map(handle);
        Ok(Self([interrupt?, terminate?, hang_up?]))
    }

    pub(super) async fn next(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}
