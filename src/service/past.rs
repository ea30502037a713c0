//! The history of a service: the reloads that are over.

use serde::{Deserialize, Serialize};

use crate::wire::frame::PastReload;

/// A reload that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Past {
    /// The id that every event of the reload has in the journal.
    pub handover_id: String,
    /// The generation that was asked to reload.
    pub generation: u64,
    /// `handed_over`, `rolled_back` or `in_place`.
    pub outcome: String,
    /// The beginning of the reason for a rollback. The journal has the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time from the request to the outcome, in milliseconds.
    pub took_ms: u64,
    /// When the reload was over, in milliseconds since 1970.
    pub ended_unix_ms: u64,
}

impl From<PastReload> for Past {
    fn from(told: PastReload) -> Self {
        let PastReload { handover_id, generation, outcome, reason, took_ms, ended_unix_ms } = told;
        Self { handover_id, generation, outcome, reason, took_ms, ended_unix_ms }
    }
}

impl From<Past> for PastReload {
    fn from(past: Past) -> Self {
        let Past { handover_id, generation, outcome, reason, took_ms, ended_unix_ms } = past;
        Self { handover_id, generation, outcome, reason, took_ms, ended_unix_ms }
    }
}
