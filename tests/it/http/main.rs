//! HTTP connections through a drain, by raw socket clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accept;
mod any_split;
mod connect_info;
mod crowd;
mod differential;
mod hammer;
mod http2;
mod limits;
mod linger;
mod messages;
mod support;
mod table;
mod websocket;
