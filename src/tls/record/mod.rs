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
mod keys;
mod layer;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::extract::{Captured, KeyCapture};
pub(crate) use self::fields::{Field, Fields};
pub(crate) use self::keys::{Cipher, Material};
pub(crate) use self::layer::Layer;
pub(crate) use self::stream::RecordStream;

/// The versions that can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// The types of records that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}
