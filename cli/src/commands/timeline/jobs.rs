//! systemd's jobs that reload the unit: each a pair of entries with one `JOB_ID`, and which reload
//! each of them asked for.
//!
//! A job and the reload that it asks for share no id. systemd sends the signal first and logs its
//! job then, so the first word of the service may stand before that of systemd; with
//! `ExecReload=/bin/kill` the job may be over before the service says anything. But jobs of a unit
//! run one after the other, and so do its reloads: what belongs together is the pairing that keeps
//! both orders, leaves as few alone as possible, and of these the one with the least time between
//! them.

use super::journal::{Entry, Stamp};
use super::model::Job;

/// How long systemd, and the service, may take from the signal to their own log entry, on a busy
/// machine.
pub(super) const LOGGED_LATE_MS: u64 = 2_000;
/// `ExecReload=/bin/kill` only asks: systemd may call its job done before the service has begun.
/// Within this time they are one, also on a busy machine.
const ASKED_BEFORE_MS: u64 = 5_000;

/// Which job an entry is about: `JOB_ID`s are unique for one manager in one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    boot: Option<String>,
    manager: Option<u64>,
    id: Option<u64>,
}

/// What systemd logged, in any order: beginnings, and ends with their results.
#[derive(Debug, Default)]
pub(super) struct Logged(Vec<(Stamp, Key, Option<String>)>);

/// One job.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) began: Stamp,
    pub(super) ended: Option<Stamp>,
    pub(super) job: Job,
    /// It asked while a reload was under way: the place of that. Such requests get one more reload,
    /// all together, so most of them have none of their own.
    pub(super) meanwhile: Option<usize>,
}

impl Key {
    fn of(entry: &Entry) -> Self {
        Self {
            boot: entry.get("_BOOT_ID").map(|boot| boot.into_owned()),
            manager: entry.number("_PID"),
            id: entry.number("JOB_ID"),
        }
    }

    /// Old versions of systemd leave the id out at the end.
    fn is(&self, began: &Self) -> bool {
        self == began || self.id.is_none()
    }
}

impl Logged {
    pub(super) fn is_empty(&self) -> bool {
        !self.0.iter().any(|(.., result)| result.is_none())
    }

    pub(super) fn began(&mut self, at: Stamp, entry: &Entry) {
        self.0.push((at, Key::of(entry), None));
    }

    pub(super) fn ended(&mut self, at: Stamp, entry: &Entry) {
        let result = entry.get("JOB_RESULT").unwrap_or("done".into()).into_owned();
        self.0.push((at, Key::of(entry), Some(result)));
    }

    /// The jobs in the order in which they began. Of those that began before what was read there is
    /// none.
    pub(super) fn finish(self) -> Vec<Timed> {
        let mut logged = self.0;
        // One process writes both, so its clock orders them; one that ends as it begins began
        // first.
        logged.sort_by_key(|(at, _, result)| (*at, result.is_some()));
        let (mut jobs, mut keys): (Vec<Timed>, Vec<Key>) = (Vec::new(), Vec::new());
        for (at, key, result) in logged {
            if result.is_none() {
                let job = Job { id: key.id, began: at.wall, ms: None, result };
                jobs.push(Timed { began: at, ended: None, job, meanwhile: None });
                keys.push(key);
            } else if let Some(which) = keys.iter().rposition(|began| key.is(began))
                && let Some(timed) = jobs.get_mut(which).filter(|timed| timed.ended.is_none())
            {
                timed.ended = Some(at);
                (timed.job.ms, timed.job.result) = (Some(at.since(timed.began)), result);
            }
        }
        jobs
    }
}

impl Timed {
    /// As far as it was logged, it did not fail.
    pub(super) fn is_done(&self) -> bool {
        self.job.result.as_deref().is_none_or(|result| result == "done")
    }
}

/// How far a job and a reload are from each other, in microseconds; `None`: that job did not ask
/// for it.
fn distance(job: &Timed, next: Option<&Timed>, reload: Stamp, ends: &[Stamp]) -> Option<u64> {
    // One that nothing ended lasted, at the most, until the next one.
    let until = job.ended.or(next.map(|next| next.began));
    let micros = |from: Stamp, to: Stamp| to.order.0.abs_diff(from.order.0);
    // `ends` are in their order.
    let restarted =
        |from: Stamp, to: Stamp| ends.get(ends.partition_point(|end| *end <= from)).is_some_and(|end| *end < to);
    if reload < job.began {
        let late = micros(reload, job.began);
        return (late <= LOGGED_LATE_MS * 1000 && !restarted(reload, job.began)).then_some(late);
    }
    let Some(over) = until.filter(|until| reload > *until) else {
        // Within it; the first one after the signal, if there are several.
        return Some(micros(job.began, reload) / 1000);
    };
    let away = micros(over, reload);
    (away <= ASKED_BEFORE_MS * 1000 && job.is_done() && !restarted(over, reload)).then_some(away)
}

/// For each job the place of its reload among those, which are in the order of their beginnings.
/// `ends` are those of the unit's runs.
pub(super) fn pair(jobs: &[Timed], reloads: &[Stamp], ends: &[Stamp]) -> Vec<Option<usize>> {
    // Row by row, one a job: the best pairing of the jobs so far with the reloads before a place.
    // Only near reloads come into question, so a row begins at the first of these, and after its
    // end nothing changes any more.
    let mut rows: Vec<Row> = Vec::with_capacity(jobs.len());
    let (mut first, mut last) = (0, 0);
    for (number, job) in jobs.iter().enumerate() {
        let next = jobs.get(number + 1);
        let from = job.began.earlier(LOGGED_LATE_MS);
        let until = job.ended.or(next.map(|next| next.began)).map(|until| until.later(ASKED_BEFORE_MS));
        while reloads.get(first).is_some_and(|reload| *reload < from) {
            first += 1;
        }
        last = last.max(first);
        while reloads.get(last).is_some_and(|reload| until.is_none_or(|until| *reload <= until)) {
            last += 1;
        }
        let before = rows.last();
        let best_before = |place: usize| before.map_or(Score::default(), |row| row.at(place).score);
        let mut cells = vec![Cell { score: best_before(first), paired: false }];
        for place in first + 1..=last {
            let mut cell = Cell { score: best_before(place), paired: false };
            if let Some(left) = cells.last().filter(|left| left.score > cell.score) {
                cell = Cell { score: left.score, paired: false };
            }
            let reload = reloads.get(place - 1).copied();
            if let Some(micros) = reload.and_then(|reload| distance(job, next, reload, ends)) {
                let score = best_before(place - 1).and(micros, job.meanwhile.is_none());
                if score > cell.score {
                    cell = Cell { score, paired: true };
                }
            }
            cells.push(cell);
        }
        rows.push(Row { first, cells });
    }
    trace(&rows, reloads.len())
}

fn trace(rows: &[Row], reloads: usize) -> Vec<Option<usize>> {
    let mut pairs = vec![None; rows.len()];
    let mut place = reloads;
    for (number, row) in rows.iter().enumerate().rev() {
        place = place.min(row.first + row.cells.len() - 1);
        // To the left as long as the best is the same and no pair ends here.
        while place > row.first && !row.at(place).paired && row.at(place - 1).score == row.at(place).score {
            place -= 1;
        }
        if place >= row.first && row.at(place).paired {
            place -= 1;
            pairs[number] = Some(place);
        }
    }
    pairs
}

/// Better is the one that leaves fewer jobs unexplained, then the one of more pairs, then that with
/// less time between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    explained: usize,
    pairs: usize,
    micros: std::cmp::Reverse<u64>,
}

impl Score {
    fn and(self, micros: u64, explains: bool) -> Self {
        Self {
            explained: self.explained + usize::from(explains),
            pairs: self.pairs + 1,
            micros: std::cmp::Reverse(self.micros.0.saturating_add(micros)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    score: Score,
    paired: bool,
}

#[derive(Debug)]
struct Row {
    first: usize,
    /// Never empty.
    cells: Vec<Cell>,
}

impl Row {
    fn at(&self, place: usize) -> Cell {
        let last = self.cells.len() - 1;
        self.cells[place.saturating_sub(self.first).min(last)]
    }
}
