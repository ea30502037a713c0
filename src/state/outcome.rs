//! What came of an update or a load of a state.

use crate::state::payload::StateReader;
use crate::systemd::fdstore::Kept;

/// What [`State::update`](super::State::update) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated<R> {
    /// What the closure returned.
    pub result: R,
    /// Who keeps the state.
    pub kept: Kept,
}

/// What [`State::load`](super::State::load) found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Loaded<T> {
    /// There is no state of that name: a first start, or the store was lost.
    None,
    /// A state of this version.
    Current(T),
    /// A state of an older version, and what [`State::migrate`](super::State::migrate) made of it.
    /// It is not saved yet.
    Migrated {
        /// What the migration returned.
        value: T,
        /// The version that it had before.
        from: u32,
    },
    /// A state of an older version, and no migration is set.
    Older {
        /// Its version.
        version: u32,
        /// Its JSON, in memory of its own, which counts as long as the reader is there.
        reader: StateReader,
    },
    /// There is a state, but it cannot be used: truncated, foreign, too long, of a newer version.
    /// It was logged and put aside.
    Damaged {
        /// What is wrong with it, as a sentence.
        reason: String,
        /// The name in the fd store under which it is kept now, until another one of this state is.
        /// With `None` it stays where it is, because that failed, or because a generation that runs
        /// uses it (it is of that one's newer version).
        aside: Option<String>,
    },
}

impl<T> Loaded<T> {
    /// Returns the value, if there is one: of this version or migrated.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Current(value) | Self::Migrated { value, .. } => Some(value),
            _ => None,
        }
    }
}
