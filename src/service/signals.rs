//! Which signal does what, with the habits of other tools ready to be used.
//!
//! All handlers are installed first thing in [`Builder::start`](crate::Builder::start). A next
//! generation is started with the signals that mean a reload, or nothing, *ignored*, so that none
//! of them can kill it before it has come so far. A first start can still be killed by a signal
//! that comes before `start`, as every process can.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{self, SignalKind};
use tracing::{debug, info};

use crate::error::{Error, Result};
use crate::lifecycle::{Event, State};
use crate::service::driver::{Driver, Input};
use crate::service::events;
use crate::service::hooks::When;
use crate::wire::frame::Frame;

pub use crate::settings::signals::{Response, Signal, SignalMap};

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

impl Driver {
    /// Stops never wait for a hook; everything else waits for those before a signal.
    pub(crate) fn on_signal(&mut self, signal: Signal, response: Response) {
        let before = self.about_signal(When::BeforeSignal, signal);
        match self.hooks.before_signal(before, response.is_urgent()) {
            None => self.respond(signal, response),
            Some(done) => {
                let inputs = self.inputs.clone();
                self.tasks.spawn(async move {
                    done.await;
                    let _ = inputs.send(Input::Signal(signal, response));
                });
            }
        }
    }

    pub(crate) fn respond(&mut self, signal: Signal, response: Response) {
        match response {
            Response::Reload if self.state() == State::Draining => {
                debug!(generation = self.generation, "{signal}: another generation is main by now");
            }
            Response::Reload => self.on_input(Input::Reload(None)),
            Response::Stop => self.on_stop(&signal.to_string()),
            Response::Finish if matches!(self.state(), State::Draining | State::Stopping) => {
                debug!(generation = self.generation, "{signal}: what was accepted is being finished already");
            }
            Response::Finish => self.on_stop(&signal.to_string()),
            Response::Hammer => self.feed(Event::Quit),
            Response::HammerDrain => self.on_drain_signal(signal, Event::Quit, &Frame::Hammer),
            Response::HurryDrain => self.on_drain_signal(signal, Event::Hurry, &Frame::Hurry),
            Response::Hooks => {}
        }
        self.hooks.fire(self.about_signal(When::AfterSignal, signal));
    }

    pub(crate) fn on_stop(&mut self, cause: &str) {
        let generation = self.generation;
        info!(message_id = events::STOP, generation, "{cause}; connections open: {}", self.drain.active());
        self.feed(Event::Stop);
    }

    fn on_drain_signal(&mut self, signal: Signal, own: Event, others: &Frame) {
        info!(generation = self.generation, "{signal}; older generations that drain: {}", self.drainers.len());
        for older in &self.drainers {
            // One that is gone has nothing left.
            let _ = older.link.send(others);
        }
        let hurries = matches!(self.state(), State::Draining | State::Stopping);
        match own {
            // The lifecycle knows a hurry only of a drain after a handover.
            Event::Hurry if hurries => self.drain.hurry(),
            own if hurries => self.feed(own),
            _ => {}
        }
    }
}
