//! What a generation remembers: the reloads that are over, and its own times.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::reload::clock::now;
use crate::systemd::notify::monotonic_usec;
use crate::wire::frame::{HISTORY, Hello, Past};

/// Longest reason kept in the history, in characters.
const MAX_REASON: usize = 300;

/// How a reload came out, as a code for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    HandedOver,
    RolledBack,
    InPlace,
}

impl ReloadOutcome {
    /// The code in the history, in metrics and in JSON.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::HandedOver => "handed_over",
            Self::RolledBack => "rolled_back",
            Self::InPlace => "in_place",
        }
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
pub(crate) struct Ended<'a> {
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
            past: came_with.map(|hello| hello.past.clone()).unwrap_or_default(),
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

    pub(crate) fn remember(&mut self, ended: &Ended<'_>) {
        self.past.push(Past {
            handover_id: ended.handover_id.to_owned(),
            generation: ended.generation,
            outcome: ended.outcome.code().to_owned(),
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
