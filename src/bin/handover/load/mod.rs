//! The load: clients of several kinds that follow their protocol, and count what they lost.
//!
//! What the server announced (`Connection: close`, then the close; a GOAWAY; a WebSocket's close frame) is no loss, and neither is an idle
//! connection closed before the client wrote anything. Everything else that keeps a request from its whole, right answer is one, and
//! nothing is repeated.

mod client;
mod expect;
mod flow;
mod http1;
mod http2;
mod kinds;
mod plan;
mod probe;
mod random;
mod stats;
mod target;
pub(crate) mod until;
mod websocket;

pub(crate) use client::{Ask, Client};
pub(crate) use expect::{Expect, Template};
pub(crate) use flow::{Finished, Flow, Percentiles, Step, Waits, When};
pub(crate) use kinds::start;
pub(crate) use plan::{Download, Plan};
pub(crate) use probe::Probe;
pub(crate) use random::Random;
pub(crate) use stats::{Cause, Count, Kill, Kind, Loss, Stats, Summary};
pub(crate) use target::{Address, Stream, Target, Tls};
pub(crate) use until::Conductor;

#[cfg(test)]
mod tests;
