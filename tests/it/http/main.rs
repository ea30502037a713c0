//! HTTP connections through a drain, by raw socket clients.

mod support;
mod table;
