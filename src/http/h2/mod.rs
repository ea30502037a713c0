//! HTTP/2 by hyper, whose connections go to the next generation between two streams.
//!
//! hyper's connection cannot be taken apart, nor told what happened before it. So a layer below
//! follows the frames both ways; it knows when nothing is in progress, and what a fresh connection
//! in another process has to be told to go on: the client's settings and windows, by frames as the
//! client would have sent them, and which frames are late, of streams that were over before.

mod departure;
mod follower;
mod frame;
mod serve;
mod state;
mod streams;
mod table;
mod tap;

#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use self::follower::fuzz::fuzz;
pub(super) use self::serve::http2;
pub(super) use self::state::Http2State;

/// What a client may send on a stream, and on the connection, before it is granted more; and the
/// largest frame. They are hyper's own defaults, which one that has come must not be below.
const WINDOW: u32 = 1 << 20;
const FRAME_SIZE: u32 = 16 << 10;
