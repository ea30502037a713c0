//! Bytes and types, pure: nothing here reads the environment, a clock or an fd.

pub(crate) mod flows;
pub(crate) mod frame;
pub(crate) mod listen;
pub(crate) mod notify;
pub(crate) mod parcel;
pub(crate) mod state;
pub(crate) mod store;
