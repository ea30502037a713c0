//! `handover prove` from outside: servers that are bad in one way each, and good ones. What it says
//! is held against what they did. And the demo, which is made of it.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod answers;
mod bad;
mod closes;
mod demo;
mod good;
mod http2;
mod looks;
mod server;
mod terminal;
mod tool;
mod web;
