//! What a roll-out is made of: machines, and batches of their reloads.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::super::model::{Outcome, Reload, Row};
use super::super::view::View;
use super::super::when::Moment;

#[derive(Debug, Serialize)]
pub(in super::super) struct Fleet {
    pub(super) unit: String,
    pub(super) batches: Vec<Batch>,
    /// In the order in which the roll-out came to them.
    pub(super) machines: Vec<Lane>,
    #[serde(skip)]
    pub(super) zone: TimeZone,
}

/// One machine.
#[derive(Debug, Serialize)]
pub(in super::super) struct Lane {
    pub(in super::super) machine: String,
    #[serde(flatten)]
    pub(in super::super) view: View,
}

/// Reloads of different machines that went on together.
#[derive(Debug, Serialize)]
pub(super) struct Batch {
    pub(super) number: usize,
    pub(super) began: Moment,
    /// When the last of its reloads was over; their drains may go on.
    pub(super) ended: Moment,
    pub(super) reloads: Vec<Place>,
    /// So many of them failed.
    pub(super) bad: usize,
}

/// Whose reload it is, and which.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) machine: String,
    reload: usize,
    #[serde(skip)]
    lane: usize,
}

impl Fleet {
    /// A batch is over when nothing has begun for that long after the end of the last of its
    /// reloads, or when one of its machines is reloaded again.
    pub(in super::super) fn new(unit: String, mut machines: Vec<Lane>, gap: Duration, zone: TimeZone) -> Self {
        machines.sort_by_cached_key(|lane| {
            let first = lane.view.each_reload().next().map(|reload| reload.began);
            (first.is_none(), first, lane.machine.clone())
        });
        let batches = batches(&machines, u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
        Self { unit, batches, machines, zone }
    }

    pub(super) fn each_reload(&self) -> impl Iterator<Item = &Reload> {
        self.machines.iter().flat_map(|lane| lane.view.each_reload())
    }

    pub(super) fn reload(&self, place: &Place) -> Option<&Reload> {
        self.machines.get(place.lane)?.view.each_reload().find(|reload| reload.number == place.reload)
    }

    /// `web.service on 5 machines: 6 reloads (5 handed over, 1 rolled back)`
    pub(super) fn title(&self) -> String {
        format!("{} on {}: {}", self.unit, self.machines_words(), self.counted())
    }

    pub(super) fn machines_words(&self) -> String {
        match self.machines.len() {
            1 => "1 machine".to_owned(),
            count => format!("{count} machines"),
        }
    }

    pub(super) fn counted(&self) -> String {
        let counts = Outcome::counted(self.each_reload());
        match self.each_reload().count() {
            0 => "no reloads".to_owned(),
            1 => format!("1 reload ({counts})"),
            all => format!("{all} reloads ({counts})"),
        }
    }

    /// From the first reload to the end of the last one, drain included; a moment at least.
    pub(super) fn span(&self) -> Option<Span> {
        let from = self.each_reload().map(|reload| reload.began).min()?;
        let ends = self.each_reload().map(|reload| drained(reload).unwrap_or_else(|| ended(reload)));
        let marks = self.machines.iter().flat_map(|lane| &lane.view.rows).map(Row::began);
        let to = ends.chain(marks.filter(|at| *at >= from)).max()?;
        Some(Span { from, ms: to.since(from).max(1) })
    }

    pub(super) fn span_words(&self, span: Span) -> String {
        let (from, to) = (span.from.zoned(&self.zone), span.from.later(span.ms).zoned(&self.zone));
        let to =
            if from.date() == to.date() { to.strftime("%H:%M:%S %Z") } else { to.strftime("%Y-%m-%d %H:%M:%S %Z") };
        format!("{} to {to}", from.strftime("%Y-%m-%d %H:%M:%S"))
    }

    /// `batch 2`, and what became of it where that was not good.
    pub(super) fn batch_words(batch: &Batch) -> String {
        match batch.bad {
            0 => format!("batch {}", batch.number),
            1 => format!("batch {}: 1 failed", batch.number),
            bad => format!("batch {}: {bad} failed", batch.number),
        }
    }
}

/// What the axis of time reaches over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Moment,
    pub(super) ms: u64,
}

/// When the next generation was main, or the reload had failed.
pub(super) fn ended(reload: &Reload) -> Moment {
    reload.began.later(reload.reload_ms.unwrap_or(0))
}

/// When the old generation was gone, as far as that is known.
pub(super) fn drained(reload: &Reload) -> Option<Moment> {
    let drain = reload.drain.as_ref()?;
    Some(drain.began.later(drain.ms?))
}

fn batches(machines: &[Lane], gap: u64) -> Vec<Batch> {
    let mut all: Vec<(Moment, Moment, usize, &Reload)> = Vec::new();
    for (lane, machine) in machines.iter().enumerate() {
        all.extend(machine.view.each_reload().map(|reload| (reload.began, ended(reload), lane, reload)));
    }
    all.sort_by_key(|(began, _, lane, _)| (*began, *lane));
    let (mut batches, mut within): (Vec<Batch>, BTreeSet<usize>) = (Vec::new(), BTreeSet::new());
    for (began, ended, lane, reload) in all {
        let goes_on = batches.last().is_some_and(|last| began.since(last.ended) <= gap) && !within.contains(&lane);
        if !goes_on {
            within.clear();
            let number = batches.len() + 1;
            batches.push(Batch { number, began, ended, reloads: Vec::new(), bad: 0 });
        }
        within.insert(lane);
        let Some(batch) = batches.last_mut() else { continue };
        batch.ended = batch.ended.max(ended);
        batch.bad += usize::from(reload.outcome.is_bad());
        let machine = machines.get(lane).map(|lane| lane.machine.clone()).unwrap_or_default();
        batch.reloads.push(Place { machine, reload: reload.number, lane });
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::super::super::model::Teller;
    use super::*;

    fn lane(machine: &str, reloads: &[(i64, u64)]) -> Lane {
        let row = |(number, (at, ms)): (usize, &(i64, u64))| {
            let mut reload = Reload::new(Moment(at * 1000), Teller::Handover);
            (reload.number, reload.reload_ms, reload.outcome) = (number + 1, Some(*ms), Outcome::HandedOver);
            Row::Reload(Box::new(reload))
        };
        let rows = reloads.iter().enumerate().map(row).collect();
        Lane { machine: machine.to_owned(), view: View::new("web.service".into(), rows, 0, true, TimeZone::UTC) }
    }

    fn batches_of(lanes: Vec<Lane>) -> Vec<Vec<String>> {
        let fleet = Fleet::new("web.service".into(), lanes, Duration::from_secs(5), TimeZone::UTC);
        let names = |batch: &Batch| batch.reloads.iter().map(|place| place.machine.clone()).collect();
        fleet.batches.iter().map(names).collect()
    }

    #[test]
    fn what_goes_on_together_is_a_batch() {
        let lanes = vec![lane("c", &[(61_000, 90)]), lane("a", &[(0, 80)]), lane("b", &[(60_000, 900)])];
        assert_eq!(batches_of(lanes), [vec!["a"], vec!["b", "c"]]);
    }

    #[test]
    fn a_machine_is_in_a_batch_once() {
        let lanes = vec![lane("a", &[(0, 80), (2_000, 80)]), lane("b", &[(1_000, 80), (2_500, 80)])];
        assert_eq!(batches_of(lanes), [vec!["a", "b"], vec!["a", "b"]]);
    }

    #[test]
    fn a_clock_far_off_is_no_panic() {
        let lanes = vec![lane("a", &[(i64::MAX / 1000, u64::MAX)]), lane("b", &[(i64::MIN / 1000, 1)])];
        assert_eq!(batches_of(lanes), [["b"], ["a"]]);
    }
}
