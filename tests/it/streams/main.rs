//! Everything that is not HTTP, with real sockets: streams, packets, datagrams, and what else can be passed.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod serve;
mod support;
