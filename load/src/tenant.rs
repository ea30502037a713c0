//! A client, as one whose connection the server may take away.

use std::sync::Arc;

use super::kind::Kind;
use super::stats::Stats;
use super::turnover::{Close, Since};

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
