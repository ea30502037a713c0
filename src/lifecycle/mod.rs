//! The life of one generation as a pure state machine: `(state, event, now) -> (state, actions)`.
//!
//! No I/O, no clock, no environment, no fd: the driver in `reload` reads events, feeds them in, and
//! has performed what comes back, in order. What each state does with each event is the table in
//! in `docs/lifecycle.md`, which a test compares with the code.

mod machine;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod table;
mod terms;

pub(crate) use machine::Machine;
pub(crate) use terms::{Action, Config, Event, LifeEnd, LifeState, ReloadAnswer, ReloadPhase, RequestId};
