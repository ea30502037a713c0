//! `handover prove` from outside: servers that are bad in one way each, and good ones. What it says is held against what they did.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod bad;
mod good;
mod http2;
mod server;
mod tool;
