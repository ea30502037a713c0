//! What is shown, in whichever form: the rows, their scales, and the words that go with them.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::model::{Drain, DrainEnd, Moves, Outcome, PhaseName, Reload, Row};
use super::scale;
use super::when::duration;

#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) unit: String,
    /// All that were read, of which the last are in `rows`.
    pub(super) reloads: usize,
    pub(super) shown: usize,
    /// The service itself wrote some of it; otherwise it is systemd's account alone.
    pub(super) uses_handover: bool,
    pub(super) rows: Vec<Row>,
    #[serde(skip)]
    pub(super) zone: TimeZone,
}

/// What bars are made of, as the legend explains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Phase(PhaseName),
    Moving,
    Drain,
    Failed,
    Beyond,
}

impl Sign {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Phase(name) => name.word(),
            Self::Moving => "moving",
            Self::Drain => "drain",
            Self::Failed => "failed",
            Self::Beyond => "beyond the scale",
        }
    }
}

impl View {
    /// The last so many reloads, and what happened among them; 0: all.
    pub(super) fn new(unit: String, mut rows: Vec<Row>, last: usize, uses_handover: bool, zone: TimeZone) -> Self {
        let places: Vec<_> = (0..rows.len()).filter(|i| matches!(rows.get(*i), Some(Row::Reload(_)))).collect();
        let reloads = places.len();
        let mut shown = reloads;
        if last > 0 && reloads > last {
            rows.drain(..places[reloads - last]);
            shown = last;
        }
        Self { unit, reloads, shown, uses_handover, rows, zone }
    }

    pub(super) fn each_reload(&self) -> impl Iterator<Item = &Reload> {
        self.rows.iter().filter_map(|row| match row {
            Row::Reload(reload) => Some(&**reload),
            Row::Event(_) => None,
        })
    }

    fn each_drain(&self) -> impl Iterator<Item = &Drain> {
        self.each_reload().filter_map(|reload| reload.drain.as_ref())
    }

    /// Those that are in the picture.
    pub(super) fn signs(&self) -> Vec<Sign> {
        let phases = PhaseName::ALL.into_iter().filter(|name| self.has_phase(*name));
        let is_beyond = |ms: Option<u64>, scale: u64| ms.is_some_and(|ms| ms > scale);
        let (reload, drain) = (self.reload_scale(), self.drain_scale());
        let others = [
            (Sign::Moving, self.each_drain().any(|drain| drain.parts()[0] > 0)),
            (Sign::Drain, self.has_drains()),
            (Sign::Failed, self.each_reload().any(|r| r.outcome.is_bad())),
            (
                Sign::Beyond,
                self.each_reload().any(|r| is_beyond(r.reload_ms, reload) || is_beyond(r.drain_ms(), drain)),
            ),
        ];
        phases.map(Sign::Phase).chain(others.into_iter().filter(|(_, is)| *is).map(|(sign, _)| sign)).collect()
    }

    pub(super) fn title(&self) -> String {
        format!("{}: {}", self.unit, self.counted())
    }

    /// `20 reloads (19 handed over, 1 rolled back)`.
    pub(super) fn counted(&self) -> String {
        let counts = Outcome::counted(self.each_reload());
        let number = match (self.shown, self.reloads) {
            (0, _) => return "no reloads".to_owned(),
            (1, 1) => "1 reload".to_owned(),
            (shown, all) if shown == all => format!("{all} reloads"),
            (shown, all) => format!("the last {shown} of {all} reloads"),
        };
        format!("{number} ({counts})")
    }

    /// From the first row to the last: `2026-11-21 17:20:01 to 17:24:40 UTC`.
    pub(super) fn span(&self) -> Option<String> {
        let (first, last) = (self.rows.first()?.began(), self.rows.last()?.began());
        let (from, to) = (first.zoned(&self.zone), last.zoned(&self.zone));
        let to =
            if from.date() == to.date() { to.strftime("%H:%M:%S %Z") } else { to.strftime("%Y-%m-%d %H:%M:%S %Z") };
        Some(format!("{} to {to}", from.strftime("%Y-%m-%d %H:%M:%S")))
    }

    /// The typical and the worst, one line each.
    pub(super) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let succeeded = self.each_reload().filter(|r| !r.outcome.is_bad());
        lines.extend(typical("reload", succeeded.filter_map(|r| Some((r.reload_ms?, r.number))).collect()));
        lines.extend(typical("drain", self.each_reload().filter_map(|r| Some((r.drain_ms()?, r.number))).collect()));
        if self.has_drains() {
            let sum = |of: fn(&Drain) -> u64| self.each_drain().map(of).fold(0, u64::saturating_add);
            if self.each_drain().any(|drain| drain.moves.is_some()) {
                let moved = sum(|drain| drain.moves.map_or(0, |moves| moves.moved));
                let stayed = sum(|drain| drain.moves.map_or(0, |moves| moves.stayed));
                lines.push(format!("connections moved: {moved}, stayed: {stayed}"));
            }
            lines.push(format!("connections cut: {}", sum(|drain| drain.cut)));
        }
        lines
    }

    pub(super) fn reload_scale(&self) -> u64 {
        scale::end(self.each_reload().filter_map(|r| r.reload_ms))
    }

    pub(super) fn drain_scale(&self) -> u64 {
        scale::end(self.each_reload().filter_map(Reload::drain_ms))
    }

    pub(super) fn has_drains(&self) -> bool {
        self.each_reload().any(|r| r.drain.is_some())
    }

    pub(super) fn has_generations(&self) -> bool {
        self.each_reload().any(|r| r.new.number.is_some())
    }

    pub(super) fn has_phase(&self, name: PhaseName) -> bool {
        self.each_reload().any(|r| r.phases.iter().any(|p| p.name == name))
    }
}

fn typical(what: &str, mut values: Vec<(u64, usize)>) -> Option<String> {
    values.sort_unstable();
    let (median, _) = *values.get(values.len() / 2)?;
    let (longest, number) = *values.last()?;
    Some(format!("{what}: median {}, longest {} (#{number})", duration(median), duration(longest)))
}

/// `7→8`
pub(super) fn generations(reload: &Reload, arrow: &str) -> String {
    match (reload.old.number, reload.new.number) {
        (Some(old), Some(new)) if old == new => format!("{old}"),
        (Some(old), Some(new)) => format!("{old}{arrow}{new}"),
        _ => String::new(),
    }
}

/// `moved 9998 in 1.90 s, stayed 2`
pub(super) fn moved(reload: &Reload) -> Option<String> {
    let Moves { moved, stayed, ms } = reload.drain.as_ref()?.moves?;
    match (moved, stayed) {
        (0, 0) => None,
        (0, _) => Some(format!("moved none, stayed {stayed}")),
        _ => Some(format!("moved {moved} in {}, stayed {stayed}", duration(ms))),
    }
}

/// What is to be said of a reload besides its times: why it failed, what was cut.
pub(super) fn remarks(reload: &Reload) -> Vec<(bool, String)> {
    let mut all = Vec::new();
    let place = reload.phases.iter().find(|p| p.failed && p.name != PhaseName::Reload);
    let place = place.map(|p| format!(" in {}", p.name.word())).unwrap_or_default();
    match (reload.outcome, &reload.reason) {
        (outcome, Some(reason)) if outcome.is_bad() => {
            all.push((true, format!("{}{place}: {reason}", outcome.words())))
        }
        (Outcome::Interrupted, None) => all.push((true, "interrupted: the service ended meanwhile".into())),
        (outcome @ (Outcome::RolledBack | Outcome::Failed), None) => all.push((true, outcome.words().into())),
        (outcome @ (Outcome::UnderWay | Outcome::InPlace), _) => all.push((false, outcome.words().into())),
        _ => {}
    }
    if let Some(job) = reload.job.as_ref().filter(|_| reload.outcome != Outcome::Failed)
        && let Some(result) = job.result.as_ref().filter(|result| *result != "done")
    {
        all.push((true, format!("systemd's job ended with: {result}")));
    }
    match reload.asked_again {
        0 => {}
        1 => all.push((false, "asked for once more meanwhile".into())),
        times => all.push((false, format!("asked for {times} times more meanwhile"))),
    }
    if let Some(Drain { cut, end, .. }) = reload.drain {
        match end {
            DrainEnd::Hammered => all.push((cut > 0, format!("drain timeout over, connections cut: {cut}"))),
            DrainEnd::Killed => all.push((true, "the old generation hung in its drain, and was killed".into())),
            DrainEnd::Unknown => all.push((false, "the end of its drain was not logged".into())),
            DrainEnd::Drained | DrainEnd::Draining => {}
        }
    }
    all
}
