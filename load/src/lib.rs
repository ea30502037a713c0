//! The load: clients of several kinds that follow their protocol, and count what they lost.
//!
//! What the server announced (`Connection: close`, then the close; a GOAWAY; a WebSocket's close
//! frame) is no loss, and neither is an idle connection closed before the client wrote anything.
//! Everything else that keeps a request from its whole, right answer is one, and nothing is
//! repeated.
#![expect(missing_docs, reason = "made for the tool and the scenarios; it promises nothing to others")]

mod ask;
mod body;
mod client;
mod connection;
mod expect;
mod flow;
mod http1;
mod http2;
mod kind;
mod kinds;
mod message;
mod plan;
mod probe;
mod random;
mod stats;
mod target;
mod trust;
mod turnover;
pub mod until;
mod websocket;

pub use ask::Ask;
pub use body::Body;
pub use client::Client;
pub use expect::{Expect, Template};
pub use flow::{Finished, Flow, Percentiles, Step, Waits, When};
pub use kind::{Cause, Kind};
pub use kinds::start;
pub use plan::{Download, Plan};
pub use probe::Probe;
pub use random::Random;
pub use stats::{Count, Kill, Loss, Stats, Summary};
pub use target::{Address, Stream, Target, Tls};
pub use trust::AnyCertificate;
pub use turnover::{Since, Turnover};
pub use until::Conductor;

#[cfg(test)]
mod tests;
