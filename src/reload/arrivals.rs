//! Signals that are waited for by their handlers, in the order in which they count.

use std::future::poll_fn;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::error::{Error, Result};

/// Handlers of signals, each with what it stands for.
#[derive(Debug)]
pub(crate) struct Arrivals<T>(Vec<(T, unix::Signal)>);

impl<T: Clone> Arrivals<T> {
    /// Installs the handlers, the most urgent first.
    pub(crate) fn of(signals: impl IntoIterator<Item = (Signal, T)>) -> Result<Self> {
        let on = |(number, stands_for): (Signal, T)| match unix::signal(SignalKind::from_raw(number as i32)) {
            Ok(arrivals) => Ok((stands_for, arrivals)),
            Err(error) => Err(Error::os(format!("no handler for {number} can be installed"), error)),
        };
        signals.into_iter().map(on).collect::<Result<_>>().map(Self)
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let arrived = all.find_map(|(stands_for, arrivals)| match arrivals.poll_recv(context) {
                Poll::Ready(Some(())) => Some(stands_for.clone()),
                _ => None,
            });
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
