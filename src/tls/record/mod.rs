//! The record layer of a connection whose handshake was in another process.
//!
//! rustls can hand out the keys of a connection, and cannot be made from them. So a connection that
//! has moved is served by this: what TLS 1.2 and 1.3 are once the handshake is over. It knows
//! records of any cut and size, key updates in both directions, alerts, and both ends. All that it
//! refuses rustls refuses, too; a test compares the two.
//!
//! There is no I/O in here but for `stream`.

mod extract;
mod fields;
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) mod fuzz;
mod keys;
mod layer;
mod recent;
mod stream;
#[cfg(test)]
mod tests;
mod version;

pub(crate) use self::extract::{Captured, KeyCapture};
pub(crate) use self::fields::{Field, Fields};
pub(crate) use self::layer::Layer;
pub(crate) use self::recent::Recent;
pub(crate) use self::stream::RecordStream;
pub(crate) use self::version::Version;
