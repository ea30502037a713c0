//! What a generation remembers: the reloads that are over, and its own times.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::reload::clock::now;
use crate::systemd::notify::monotonic_usec;
use crate::wire::frame::{HISTORY, Hello, PastReload};

/// Longest reason kept in the history, in characters.
const MAX_REASON: usize = 300;

/// How a reload came out. In JSON, in metrics and on the wire it is its [code](Self::code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReloadOutcome {
    /// The next generation became main.
    HandedOver,
    /// The next generation failed, and the old one served on.
    RolledBack,
    /// The generation reloaded itself.
    InPlace,
    /// A newer version of this crate said something that this one does not know.
    #[serde(other)]
    Unknown,
}

impl ReloadOutcome {
    /// The code: `handed_over`, `rolled_back`, `in_place`, or `unknown`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::HandedOver => "handed_over",
            Self::RolledBack => "rolled_back",
            Self::InPlace => "in_place",
            Self::Unknown => "unknown",
        }
    }

    fn of(code: &str) -> Self {
        let known = [Self::HandedOver, Self::RolledBack, Self::InPlace];
        known.into_iter().find(|outcome| outcome.code() == code).unwrap_or(Self::Unknown)
    }
}

/// A reload that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Past {
    /// The id that every event of the reload has in the journal.
    pub handover_id: String,
    /// The generation that was asked to reload.
    pub generation: u64,
    /// How the reload came out.
    pub outcome: ReloadOutcome,
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
        let outcome = ReloadOutcome::of(&outcome);
        Self { handover_id, generation, outcome, reason, took_ms, ended_unix_ms }
    }
}

impl From<Past> for PastReload {
    fn from(past: Past) -> Self {
        let Past { handover_id, generation, outcome, reason, took_ms, ended_unix_ms } = past;
        let outcome = outcome.code().to_owned();
        Self { handover_id, generation, outcome, reason, took_ms, ended_unix_ms }
    }
}

/// The memory of a generation. A next generation begins with that of the one before it.
#[derive(Debug)]
pub(crate) struct History {
    /// The oldest first.
    past: Vec<Past>,
    launched: Instant,
    main_since: Option<Instant>,
    /// When the reload that we came with was asked for, on the clock that all processes share.
    came_usec: u64,
}

/// A reload that is over, to be remembered.
#[derive(Debug)]
pub(crate) struct EndedReload<'a> {
    pub(crate) handover_id: &'a str,
    /// The generation that the reload was asked of.
    pub(crate) generation: u64,
    pub(crate) outcome: ReloadOutcome,
    pub(crate) reason: Option<&'a str>,
    pub(crate) took_ms: u64,
}

impl History {
    pub(crate) fn open(came_with: Option<&Hello>) -> Self {
        Self {
            past: came_with.map(|hello| hello.past.iter().cloned().map(Past::from).collect()).unwrap_or_default(),
            launched: now(),
            main_since: None,
            came_usec: came_with.map_or(0, |hello| hello.asked_usec),
        }
    }

    /// Goes on with the memory of an older version of a supervisor, which began at that time.
    #[cfg(feature = "supervise")]
    pub(crate) fn resumed(past: Vec<Past>, launched: Instant) -> Self {
        Self { past, launched, ..Self::open(None) }
    }

    pub(crate) fn remember(&mut self, ended: &EndedReload<'_>) {
        self.past.push(Past {
            handover_id: ended.handover_id.to_owned(),
            generation: ended.generation,
            outcome: ended.outcome,
            reason: ended.reason.map(|reason| reason.chars().take(MAX_REASON).collect()),
            took_ms: ended.took_ms,
            ended_unix_ms: unix_ms(),
        });
        let over = self.past.len().saturating_sub(HISTORY);
        self.past.drain(..over);
    }

    pub(crate) fn past(&self) -> &[Past] {
        &self.past
    }

    /// This generation is main from now on.
    pub(crate) fn is_main_now(&mut self) {
        self.main_since = Some(now());
    }

    pub(crate) fn main_since(&self) -> Option<Instant> {
        self.main_since
    }

    pub(crate) fn launched(&self) -> Instant {
        self.launched
    }

    /// How long the reload took that this generation came with, in milliseconds, if it ends now.
    pub(crate) fn came_in(&self) -> Option<u64> {
        let came = Some(self.came_usec).filter(|usec| *usec > 0)?;
        Some(monotonic_usec().saturating_sub(came) / 1000)
    }
}

/// An instant of the past on the clock that all processes share.
pub(crate) fn shared_usec(since: Option<Instant>) -> u64 {
    let ago = since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since));
    monotonic_usec().saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(0))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
