//! HTTP by hyper, drained without losing a request.
//!
//! HTTP/1 and HTTP/2 (with prior knowledge) on one port, upgrades included. In a reload
//! connections [move](crate::docs::migration) to the next generation. While a
//! [`Drain`](crate::drain::Drain) lasts, a connection that does not move and is fresh, idle or has
//! sent half a request head is not closed but answered once more, with `Connection: close`;
//! pipelined requests are all answered, and only the last reply says `close`; HTTP/2 gets a GOAWAY
//! and finishes its streams; an upgraded stream counts until it is dropped. The chapter
//! [`docs::http`](crate::docs::http) has more.
//!
//! [`Service::serve_http`](crate::Service::serve_http) serves any tower service, and hyper's own in
//! a [`HyperService`]; [`serve()`] does so without a `Service`. Handlers find a [`ConnectionInfo`]
//! in the request's extensions, and what [`HttpOptions::with_address`] puts there for axum's
//! `ConnectInfo`.

mod active;
mod adopt;
mod body;
mod conn;
mod executor;
mod framed;
mod frames;
mod framing;
mod h2;
mod info;
mod observe;
mod options;
#[cfg(test)]
mod pause_tests;
mod progress;
mod scan;
mod serve;
mod service;
mod stage;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod upgraded;
mod wakers;

#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use self::frames::fuzz as fuzz_frames;
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use self::h2::fuzz as fuzz_http2;
pub use self::info::{ConnectionInfo, UpgradePass};
pub use self::options::HttpOptions;
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use self::scan::fuzz as fuzz_framing;
pub use self::serve::serve;
pub use self::service::{HttpService, HyperService};
#[cfg(feature = "tls")]
pub use self::tls::serve_tls;
pub use crate::drain::Peer;
