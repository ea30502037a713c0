//! The only `unsafe`, the only raw system calls.
#![expect(unsafe_code, reason = "system calls that no safe crate offers live here, and only here")]

pub(crate) mod link;
pub(crate) mod memfd;
pub(crate) mod pidfd;
pub(crate) mod spawn;
