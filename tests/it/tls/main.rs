//! TLS through drains and reloads, by clients that see how a connection ended.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certs;
mod support;
mod table;
