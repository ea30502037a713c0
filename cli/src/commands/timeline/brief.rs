//! The reloads of a unit in short, for `handover prove`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::history::{History, unit_of};
use super::journal::{self, Place};
use super::model::{Outcome, PhaseName, Reload, Row};
use super::when::Moment;
use crate::failure::Failure;

/// One reload, in the journal's own milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Brief {
    #[serde(skip)]
    began: Moment,
    outcome: Outcome,
    pub(crate) reason: Option<String>,
    pub(crate) spawn_ms: Option<u64>,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) switch_ms: Option<u64>,
    pub(crate) handover_ms: Option<u64>,
    /// From the request until the next generation is main, or the reload has failed.
    pub(crate) reload_ms: Option<u64>,
    /// Of the old generation; null while it drains.
    pub(crate) drain_ms: Option<u64>,
    pub(crate) cut: u64,
}

impl Brief {
    fn of(reload: &Reload) -> Self {
        let phase = |name| reload.phases.iter().find(|p| p.name == name).map(|p| p.ms);
        Self {
            began: reload.began,
            outcome: reload.outcome,
            reason: reload.reason.clone(),
            spawn_ms: phase(PhaseName::Spawn),
            ready_ms: phase(PhaseName::Ready),
            switch_ms: phase(PhaseName::Switch),
            handover_ms: phase(PhaseName::Handover),
            reload_ms: reload.reload_ms,
            drain_ms: reload.drain_ms(),
            cut: reload.drain.as_ref().map_or(0, |drain| drain.cut),
        }
    }

    /// As people are told it.
    pub(crate) fn words(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.outcome.words()),
            None => self.outcome.words().to_owned(),
        }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.outcome == Outcome::UnderWay
    }

    pub(crate) fn began_within(&self, from: SystemTime, to: Option<SystemTime>) -> bool {
        // It is counted back from the entry, in whole milliseconds.
        self.began >= moment(from).earlier(2) && to.is_none_or(|to| self.began < moment(to))
    }
}

/// Those since then. None, too, where the journal may not be read.
pub(crate) async fn reloads(unit: &str, user: bool, since: SystemTime) -> Result<Vec<Brief>, Failure> {
    let mut history = History::default();
    journal::ask(&Place::Here { user }, unit, Some(moment(since)), |entry| {
        if unit_of(&entry).as_deref() == Some(unit) {
            history.read(&entry);
        }
    })
    .await?;
    let brief = |row: &Row| match row {
        Row::Reload(reload) => Some(Brief::of(reload)),
        Row::Event(_) => None,
    };
    Ok(history.finish().iter().filter_map(brief).collect())
}

fn moment(time: SystemTime) -> Moment {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
