//! Connections on their way to another process: parcels, and the channel that they go by.
//!
//! One owner at every instant: until the taker has said *took*, a parcel is its giver's, who keeps
//! the fd, and nobody reads from it.

pub(crate) mod channel;
pub(crate) mod parcel;
pub(crate) mod permits;

pub(crate) use channel::Channel;
pub(crate) use parcel::{Contents, Parcel};
pub(crate) use permits::{Permit, Permits};
