//! What the table knows of each entry, and the states that it is in.

use crate::systemd::activation::SocketKind;
use crate::systemd::fdstore::entry::{Kept, Polling};
use std::os::fd::OwnedFd;

/// Where changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Changes go to the manager.
    Active,
    /// The manager does not listen to this process yet: changes wait for a sync.
    Standby,
    /// Another process has what this one had: no more changes.
    Frozen,
}

/// Whether the service has a store at all, which systemd does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing has shown it yet.
    Unknown,
    /// It has given or taken an fd.
    There,
    /// It has taken none.
    Missing,
}

/// The fds of one name.
#[derive(Debug)]
pub(super) struct Group {
    /// Which replacement it is, 0 for what was put first.
    pub(super) number: u64,
    pub(super) polling: Polling,
    /// It came in from outside, and in standby it is somebody else's to replace.
    pub(super) inherited: bool,
    pub(super) fds: Vec<Held>,
}

impl Group {
    /// Who keeps all of it.
    pub(super) fn kept(&self) -> Kept {
        if self.fds.iter().all(|held| held.stored) { Kept::Stored } else { Kept::HeldOnly }
    }
}

/// An fd of an entry.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    /// What it is, if that was looked up when it came in.
    pub(super) kind: Option<SocketKind>,
    /// Whether the store has it, as far as we know.
    pub(super) stored: bool,
}
