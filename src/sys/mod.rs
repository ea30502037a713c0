//! The only `unsafe`, the only raw syscalls.
#![expect(unsafe_code, reason = "fds by number and syscalls that nix has no call for; nowhere else in the crate")]

pub(crate) mod accept;
pub(crate) mod background;
pub(crate) mod child;
pub(crate) mod closer;
#[cfg(feature = "supervise")]
pub(crate) mod diag;
pub(crate) mod fdtable;
pub(crate) mod folder;
#[cfg(all(feature = "http", feature = "tls"))]
pub(crate) mod hidden;
#[cfg(feature = "upgrade")]
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod look;
pub(crate) mod low;
#[cfg(feature = "supervise")]
pub(crate) mod mailbox;
pub(crate) mod memfd;
pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod pidfd;
pub(crate) mod queue;
pub(crate) mod random;
pub(crate) mod scm;
pub(crate) mod secret;
pub(crate) mod seqpacket;
pub(crate) mod socket;
pub(crate) mod spawn;
#[cfg_attr(not(feature = "supervise"), expect(unreachable_pub, reason = "with the feature they are reachable"))]
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod unix_path;
pub(crate) mod words;
