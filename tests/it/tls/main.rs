//! TLS through drains and reloads, by clients that see how a connection ended.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connect_info;
mod handshake;
mod http2;
mod reload;
mod support;
mod table;
mod tickets;
mod tools;
