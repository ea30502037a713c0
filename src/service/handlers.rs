//! The signal handlers of a service.

use std::future::poll_fn;
use std::task::Poll;

use crate::error::{Error, Result};
use crate::settings::signals::{Response, Signal, SignalMap};
use tokio::signal::unix::{self, SignalKind};

#[derive(Debug)]
struct Handler {
    signal: Signal,
    response: Response,
    arrivals: unix::Signal,
}

/// The handlers, from the moment the service starts.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) urgent: Handlers,
    pub(crate) others: Handlers,
    pub(crate) map: SignalMap,
}

#[derive(Debug, Default)]
pub(crate) struct Handlers(Vec<Handler>);

impl Signals {
    pub(crate) fn install(map: SignalMap) -> Result<Self> {
        let map = map.checked()?;
        let (mut urgent, mut others) = (Handlers::default(), Handlers::default());
        for (signal, response) in map.iter() {
            let arrivals = unix::signal(SignalKind::from_raw(signal.number() as i32))
                .map_err(|e| Error::os(format!("no handler for {signal} can be installed"), e))?;
            let handlers = if response.is_urgent() { &mut urgent } else { &mut others };
            handlers.0.push(Handler { signal, response, arrivals });
        }
        // What cuts comes first.
        urgent.0.sort_by_key(|h| h.response != Response::Hammer);
        Ok(Self { urgent, others, map })
    }
}

impl Handlers {
    /// The next one that came.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(crate) async fn next(&mut self) -> (Signal, Response) {
        poll_fn(|cx| {
            for handler in &mut self.0 {
                if let Poll::Ready(Some(())) = handler.arrivals.poll_recv(cx) {
                    return Poll::Ready((handler.signal, handler.response));
                }
            }
            Poll::Pending
        })
        .await
    }
}
