//! Connections on their way to another process: parcels, the channel that they go by, and the
//! mailbox that they wait in while there is no process; and the insurance of those that are served,
//! for a process that ends without a word.
//!
//! One owner at every instant: until the taker has said *took*, a parcel is its giver's, who keeps
//! the fd, and nobody reads from it.

pub(crate) mod channel;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "connections of HTTP are those that are insured"))]
pub(crate) mod insurance;
pub(crate) mod mailbox;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "connections of HTTP are those that are insured"))]
pub(crate) mod marks;
pub(crate) mod parcel;
pub(crate) mod permits;

pub(crate) use channel::Channel;
pub(crate) use insurance::{Insurance, Policy};
pub(crate) use parcel::{Contents, Parcel};
pub(crate) use permits::{Permit, Permits};
