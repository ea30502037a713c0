//! What happened to a unit, as far as the journal tells.

use serde::Serialize;

use super::when::Moment;

/// In the order in which it began.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub(super) enum Row {
    Reload(Box<Reload>),
    Event(Mark),
}

/// Something between the reloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mark {
    pub(super) time: Moment,
    pub(super) kind: &'static str,
    pub(super) bad: bool,
    pub(super) text: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Reload {
    /// Counted from the first one that was read.
    pub(super) number: usize,
    /// The request, as its own events say; of others, the job of systemd.
    pub(super) began: Moment,
    pub(super) told_by: Teller,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<String>,
    pub(super) handover_id: Option<String>,
    pub(super) old: Generation,
    pub(super) new: Generation,
    /// One after the other, from the request on.
    pub(super) phases: Vec<Phase>,
    /// From the request until the next generation is main, or the reload has failed.
    pub(super) reload_ms: Option<u64>,
    pub(super) drain: Option<Drain>,
    /// What systemd says of it: none if the reload was asked for by a signal.
    pub(super) job: Option<Job>,
    /// So many more jobs of systemd asked for a reload while this one was under way: all of them
    /// together get one more.
    pub(super) asked_again: u64,
    /// When its phases ended, from spawn to handover, each in milliseconds since the request.
    #[serde(skip)]
    pub(super) ends: [Option<u64>; 4],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Teller {
    #[default]
    Handover,
    Systemd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    HandedOver,
    RolledBack,
    InPlace,
    /// systemd's word; whether the service did what it was asked for is not known.
    Reloaded,
    /// systemd's word, too.
    Failed,
    /// Cut short by the end of the service.
    Interrupted,
    /// The journal ends before it does.
    #[default]
    UnderWay,
}

impl Outcome {
    pub(super) fn is_bad(self) -> bool {
        matches!(self, Self::RolledBack | Self::Failed | Self::Interrupted)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::HandedOver => "handed over",
            Self::RolledBack => "rolled back",
            Self::InPlace => "reloaded in place",
            Self::Reloaded => "reloaded",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::UnderWay => "under way",
        }
    }

    /// `19 handed over, 1 rolled back`
    pub(super) fn counted<'a>(reloads: impl Iterator<Item = &'a Reload>) -> String {
        let outcomes: Vec<_> = reloads.map(|reload| reload.outcome).collect();
        let count = |outcome: Self| outcomes.iter().filter(|other| **other == outcome).count();
        let counts = Self::ALL.map(|outcome| (count(outcome), outcome.words())).into_iter();
        let words: Vec<_> =
            counts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        words.join(", ")
    }

    const ALL: [Self; 7] = [
        Self::HandedOver,
        Self::InPlace,
        Self::Reloaded,
        Self::RolledBack,
        Self::Failed,
        Self::Interrupted,
        Self::UnderWay,
    ];
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Generation {
    pub(super) number: Option<u64>,
    pub(super) pid: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Phase {
    pub(super) name: PhaseName,
    pub(super) start_ms: u64,
    pub(super) ms: u64,
    /// The reload ended here, and not well.
    pub(super) failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PhaseName {
    Spawn,
    Ready,
    Switch,
    Handover,
    /// In place, or by systemd's account: one piece.
    Reload,
}

impl PhaseName {
    pub(super) const ALL: [Self; 5] = [Self::Spawn, Self::Ready, Self::Switch, Self::Handover, Self::Reload];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Ready => "ready",
            Self::Switch => "switch",
            Self::Handover => "handover",
            Self::Reload => "reload",
        }
    }
}

/// The old generation's way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Drain {
    pub(super) began: Moment,
    /// Open when it began.
    pub(super) connections: Option<u64>,
    pub(super) ms: Option<u64>,
    pub(super) end: DrainEnd,
    pub(super) cut: u64,
    /// What went to the next generation, where it takes connections.
    pub(super) moves: Option<Moves>,
}

/// Connections that went to the next generation, and those that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Moves {
    pub(super) moved: u64,
    pub(super) stayed: u64,
    /// From the handover until the last of them had gone.
    pub(super) ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DrainEnd {
    Drained,
    /// The drain timeout was over.
    Hammered,
    /// It hung.
    Killed,
    /// Its end was not logged, and the unit has ended or started anew since.
    Unknown,
    Draining,
}

impl Drain {
    /// What stands at the end of its bar, on a scale that ends there.
    pub(super) fn mark(&self, scale_end: u64) -> Option<char> {
        match self.end {
            DrainEnd::Drained => self.ms.is_some_and(|ms| ms > scale_end).then_some('»'),
            DrainEnd::Hammered | DrainEnd::Killed => Some('✗'),
            DrainEnd::Unknown => Some('?'),
            DrainEnd::Draining => Some('…'),
        }
    }

    /// The two parts of its bar: how long connections moved, and how long it went on after that.
    pub(super) fn parts(&self) -> [u64; 2] {
        let moving = self.moves.filter(|moves| moves.moved > 0).map_or(0, |moves| moves.ms);
        let moving = self.ms.map_or(moving, |ms| moving.min(ms));
        [moving, self.ms.map_or(0, |ms| ms - moving)]
    }

    pub(super) fn is_bad(&self) -> bool {
        matches!(self.end, DrainEnd::Hammered | DrainEnd::Killed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Job {
    pub(super) id: Option<u64>,
    pub(super) began: Moment,
    pub(super) ms: Option<u64>,
    /// systemd's `JOB_RESULT`: `done`, `failed`, `timeout`, …
    pub(super) result: Option<String>,
}

impl Reload {
    pub(super) fn new(began: Moment, told_by: Teller) -> Self {
        Self { began, told_by, ..Self::default() }
    }

    /// Its phases, from what was said. A phase whose end was not logged is part of the next one.
    pub(super) fn settle(&mut self) {
        let whole = matches!(self.outcome, Outcome::InPlace) || self.told_by == Teller::Systemd;
        if whole {
            let failed = self.outcome.is_bad();
            let phase = |ms| Phase { name: PhaseName::Reload, start_ms: 0, ms, failed };
            self.phases = self.reload_ms.map(phase).into_iter().collect();
            return;
        }
        let ends: Vec<_> = PhaseName::ALL.into_iter().zip(self.ends).collect();
        let known = ends.iter().rposition(|(_, end)| end.is_some()).map_or(0, |last| last + 1);
        let mut at = 0;
        self.phases.clear();
        for (name, end) in ends.iter().take(known) {
            let (name, Some(end)) = (*name, *end) else { continue };
            self.phases.push(Phase { name, start_ms: at, ms: end.saturating_sub(at), failed: false });
            at = at.max(end);
        }
        if let (Some(total), Some((name, _))) = (self.reload_ms, ends.get(known))
            && self.outcome.is_bad()
        {
            self.phases.push(Phase { name: *name, start_ms: at, ms: total.saturating_sub(at), failed: true });
        }
    }

    pub(super) fn drain_ms(&self) -> Option<u64> {
        self.drain.as_ref()?.ms
    }
}

impl Row {
    pub(super) fn began(&self) -> Moment {
        match self {
            Self::Reload(reload) => reload.began,
            Self::Event(mark) => mark.time,
        }
    }
}
