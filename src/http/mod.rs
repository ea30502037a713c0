//! HTTP by hyper, drained without losing a request.
//!
//! HTTP/1 and HTTP/2 (with prior knowledge) on one port, upgrades included. While a
//! [`Drain`](crate::Drain) lasts, a connection that is fresh, idle or has sent half a request head
//! is not closed but answered once more, with `Connection: close`; pipelined requests are all
//! answered, and only the last reply says `close`; HTTP/2 gets a GOAWAY and finishes its streams;
//! an upgraded stream counts until it is dropped. The chapter [`docs::http`](crate::docs::http) has
//! more.
//!
//! Handlers find a [`ConnectInfo`] in the request's extensions.

mod active;
mod conn;
mod executor;
mod framed;
mod info;
mod observe;
mod options;
mod scan;
mod serve;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod transport;

pub use self::info::ConnectInfo;
pub use self::options::HttpOptions;
pub use self::serve::{serve, serve_hyper};
#[cfg(feature = "tls")]
pub use self::tls::{serve_hyper_tls, serve_tls};
pub use crate::drain::Peer;
