//! What was accepted is finished, under a timeout: counting, linger, deadline, hammer.
//!
//! A [`Drain`] knows every open connection and job of one generation. It has a gate that accept
//! loops wait at, and four steps that only go forward: open, draining, hurried, hammered. A
//! [`Service`](crate::Service) has [one](crate::Service::drain), and takes these steps itself;
//! alone, a program takes them:
//!
//! ```
//! # async fn example() {
//! use handover::drain::Drain;
//! use std::time::Duration;
//!
//! let drain = Drain::new();
//! let job = drain.register("nightly report");
//! drain.begin(Duration::from_secs(5));
//! assert_eq!(drain.active(), 1);
//! drop(job);
//! drain.drained().await;
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example());
//! ```
//!
//! | what | names |
//! |---|---|
//! | the drain, and what it has cut | [`Drain`], [`Cut`] |
//! | what is counted, and told | [`Guard`], [`DrainSignal`], [`Cutting`] |
//! | each connection to a function | [`serve_stream`], [`StreamOptions`], [`Connection`], [`Stream`], [`Seqpacket`], [`Peer`] |
//! | connections that move | [`Mover`], [`Pass`], [`Inherited`] |
//! | each datagram to a function | [`serve_datagrams`], [`DatagramOptions`], [`Datagram`], [`DatagramPeer`], [`DatagramSender`] |
//! | accept loops of your own | [`Acceptor`], [`Accepted`], [`Listening`] |
//! | accept loops of others | [`Incoming`], [`CountedStream`], [`OpenGate`] |
//! | receive loops of your own | [`Datagrams`] |
//! | connections on UDP, over generations | [`Flows`], [`Flow`], [`FlowOpener`], [`FlowLinks`] |
//! | limits | [`Limit`] of how many, [`IdleTimeout`] of a silent one |
//! | times | [`HURRY_LINGER`], [`SEND_TIMEOUT`], [`FLOWS_TIMEOUT`] |

mod accept;
mod core;
mod datagram;
mod entering;
mod flows;
mod gate;
mod guard;
mod handle;
mod idle;
mod idleness;
mod incoming;
mod limit;
mod listening;
mod mover;
pub(crate) mod moving;
mod open_flows;
mod pause;
mod peer;
mod relay;
mod router;
mod seqpacket;
mod serve;
mod stream;
mod turn;
mod waking;

pub use self::accept::{Accepted, Acceptor};
pub use self::core::HURRY_LINGER;
pub use self::datagram::{Datagram, DatagramOptions, DatagramSender, Datagrams, SEND_TIMEOUT, serve_datagrams};
pub use self::flows::{Flow, FlowLinks, FlowOpener, Flows};
pub use self::gate::OpenGate;
pub use self::guard::{Cut, Cutting, DrainSignal, Guard};
pub use self::handle::Drain;
pub use self::idle::IdleTimeout;
#[cfg(feature = "tonic")]
pub use self::incoming::IncomingStream;
pub use self::incoming::{CountedStream, Incoming};
pub use self::limit::Limit;
#[cfg(feature = "http")]
pub(crate) use self::limit::LimitSlot;
pub use self::listening::Listening;
pub use self::mover::{Inherited, Mover, Pass};
pub use self::peer::{DatagramPeer, Peer};
pub use self::router::FLOWS_TIMEOUT;
pub use self::seqpacket::Seqpacket;
pub use self::serve::{Connection, StreamOptions, serve_stream};
pub use self::stream::Stream;

#[cfg(any(feature = "http", feature = "tls"))]
pub(crate) use self::core::later;
pub(crate) use self::core::{FAR, Phase, Work};
pub(crate) use self::guard::since;
pub(crate) use self::idleness::Idle;
#[cfg(feature = "http")]
pub(crate) use self::mover::state_of;
#[cfg(feature = "control")]
pub(crate) use self::serve::serve_admitted;
pub(crate) use self::serve::serve_passed;
