//! Everything that is not HTTP, with real sockets: streams, packets, datagrams, and what else can
//! be passed.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod datagrams;
mod flows;
mod idle;
mod incoming;
mod seqpacket;
mod serve;
mod special;
mod support;
