//! A program of ours as a service: what it is built from, and this process as a generation of it.

mod api;
mod assembly;
pub(crate) mod builder;
mod container;
mod datagrams;
mod handlers;
mod own;
mod pidfile;
pub(crate) mod reap;
mod sockets;
mod streams;

/// [`Settings`](crate::Settings), and the constants with the default of each and of every other
/// wait.
///
/// The order of precedence: what the [`Builder`] is told by a call, then what [`Builder::settings`]
/// was given (let the environment win over a file), then these defaults. The settings that hold are
/// logged when they begin to.
pub mod settings {
    pub use crate::settings::*;
}

/// Which signal does what, with the habits of other tools ready to be used.
///
/// All handlers are installed first thing in [`Builder::start`]. A next generation is started with
/// the signals that mean a reload, or nothing, *ignored*, so that none of them can kill it before
/// it has come so far. A first start can still be killed by a signal that comes before `start`, as
/// every process can.
pub mod signals {
    pub use crate::settings::signals::{Response, Signal, SignalMap};
}

pub use crate::reload::handle::{Handle, Reloaded};
pub use crate::reload::moment::events;
pub use crate::reload::status::{
    ASK_TIMEOUT, MAX_WORK, Moves, Older, Open, Paused, SocketStatus, Status, StoreEntry, Supervising,
};
pub use crate::reload::{hooks, steps};
pub use api::Service;
pub use builder::Builder;
