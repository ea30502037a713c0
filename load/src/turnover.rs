//! Connections that the server closed although their clients would have gone on with them, and
//! those that the clients opened in their place.

use std::sync::Arc;

use super::kind::Kind;
use super::stats::Stats;

/// What a close is laid to: whatever happened last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// Nothing has happened yet.
    #[default]
    Start,
    Reload(u32),
    /// The main process was killed on purpose.
    Kill,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turnover {
    /// By the server, however it did it.
    pub closed: u64,
    /// Those of them that it had not announced: idle ones, and those with a request under way,
    /// which is lost then.
    pub unannounced: u64,
    /// By clients in the place of such a one.
    pub opened_anew: u64,
}

/// How the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    Announced,
    Unannounced,
}

/// Counts for one client how often the server takes its connection away.
#[derive(Debug)]
pub(super) struct Tenant {
    kind: Kind,
    stats: Arc<Stats>,
    /// It has none, as the server closed it.
    evicted: Option<Since>,
}

impl Tenant {
    pub(super) fn new(kind: Kind, stats: Arc<Stats>) -> Self {
        Self { kind, stats, evicted: None }
    }

    /// The server has closed its connection, or is about to.
    pub(super) fn closed(&mut self, how: Close) {
        if self.kind.keeps_its_connection() {
            self.evicted = Some(self.stats.closed(self.kind, how));
        }
    }

    /// It has a connection again.
    pub(super) fn connected(&mut self) {
        if let Some(since) = self.evicted.take() {
            self.stats.opened_anew(self.kind, since);
        }
    }
}

impl Turnover {
    pub(super) fn close(&mut self, how: Close) {
        self.closed += 1;
        self.unannounced += u64::from(how == Close::Unannounced);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.closed += other.closed;
        self.unannounced += other.unannounced;
        self.opened_anew += other.opened_anew;
    }
}
