//! A client on a thread of its own that connects anew again and again: it sees when the new process
//! answers first.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::family::{Family, peer};
use super::plan::Plan;
use super::report::Teller;
use super::server::{Server, probe};
use super::usage::lock;
use handover::supervise::proc::{Diag, holds, stat};
use handover_load::{Probe, Stats, Waits};

/// So many answers of the new one in a row, and nobody looks any more who answers until the next
/// reload.
const SETTLED: u32 = 200;
/// After a failed probe: a refusal comes back at once, and a server that is away is not helped by a
/// storm.
const AFTER_LOSS: Duration = Duration::from_micros(200);

/// What was seen of a reload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Who answered before it.
    pub(crate) before: Option<u32>,
    /// When the first answer of a new one was complete, and whose it was.
    pub(crate) first_new: Option<(Instant, u32)>,
    /// When the last answer of an old one was complete.
    pub(crate) last_old: Option<Instant>,
    pub(crate) longest_gap: Duration,
    /// In as much time before.
    pub(crate) gap_before: Duration,
    /// The longest time from the beginning of one probe to that of the next, up to the first answer
    /// of a new one.
    pub(crate) resolution: Duration,
    /// The window is over.
    pub(crate) over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    /// Those of the last window's time, and one before.
    answers: VecDeque<Answer>,
    /// Of the reload that began last.
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// When it was complete.
    at: Instant,
    /// How long after the one before.
    gap: Duration,
    /// Who answered, as far as is known.
    by: Option<u32>,
}

#[derive(Debug)]
struct Window {
    at: Instant,
    /// The processes of the server just before.
    old: Arc<BTreeSet<u32>>,
    seen: Seen,
    in_a_row: u32,
}

/// Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Prober {
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<Waits>,
}

impl Prober {
    pub(super) fn start(plan: &Plan, server: &Server, stats: &Arc<Stats>) -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let now = Instant::now();
        let probing = Probing {
            probe: probe(plan, stats),
            family: server.family.clone(),
            window: plan.window,
            every: plan.probe_every,
            diag: (server.teller == Teller::Process).then(Diag::open).transpose()?,
            shared: Arc::downgrade(&shared),
            last: now,
            begun: now,
            periods: Waits::default(),
        };
        let thread = std::thread::Builder::new().name("prober".into()).spawn(move || probing.run(&runtime))?;
        Ok(Self { shared, thread })
    }

    /// A reload has begun. `old` has the processes of the server just before, `window` is as much
    /// time as is looked at before and after.
    pub(crate) fn begin(&self, at: Instant, old: BTreeSet<u32>, window: Duration) {
        let mut shared = lock(&self.shared);
        let opened = Window::open(at, old, shared.answers.make_contiguous(), window);
        shared.window = Some(opened);
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.shared).window.as_ref().map(|window| window.seen.clone()).unwrap_or_default()
    }

    /// Whether there has been an answer, and who gave the last one, as far as is known.
    pub(crate) fn last(&self) -> (bool, Option<u32>) {
        let shared = lock(&self.shared);
        (!shared.answers.is_empty(), shared.by())
    }

    /// How far apart probes began. `None`: the thread has panicked.
    pub(crate) fn stop(self) -> Option<Waits> {
        drop(self.shared);
        self.thread.join().ok()
    }
}

struct Probing {
    probe: Probe,
    family: Family,
    window: Duration,
    /// Between the beginnings of two probes.
    every: Duration,
    diag: Option<Diag>,
    /// Gone with the prober: then this is over.
    shared: Weak<Mutex<Shared>>,
    last: Instant,
    begun: Instant,
    periods: Waits,
}

impl Probing {
    fn run(mut self, runtime: &Runtime) -> Waits {
        while let Some(shared) = self.shared.upgrade() {
            runtime.block_on(self.probe(&shared));
            if let Some(window) = &mut lock(&shared).window {
                window.seen.over = window.at + self.window <= self.last.max(self.begun);
            }
            drop(shared);
            std::thread::sleep(self.every.saturating_sub(self.begun.elapsed()));
        }
        self.periods
    }

    async fn probe(&mut self, shared: &Mutex<Shared>) {
        let begun = Instant::now();
        let period = begun - self.begun;
        self.periods.record(period);
        if let Some(window) = lock(shared).window.as_mut().filter(|w| w.seen.first_new.is_none()) {
            window.seen.resolution = window.seen.resolution.max(period);
        }
        self.begun = begun;
        let answer = self.probe.ask().await;
        let answered = Instant::now();
        let Ok((connection, named)) = answer else {
            tokio::time::sleep(AFTER_LOSS).await;
            return;
        };
        let gap = answered - self.last;
        self.last = answered;
        let (before, is_worth_a_look, old) = lock(shared).known();
        let by = match (named, &self.diag, connection.stream()) {
            (Some(named), ..) => Some(named),
            (None, Some(diag), Some(stream)) if is_worth_a_look => {
                let inode = peer(diag, stream).ok().flatten();
                inode.and_then(|inode| holder(&mut self.family, inode, old.as_deref(), before))
            }
            _ => before,
        };
        connection.end();
        self.probe.answered(begun, by);
        let mut shared = lock(shared);
        let answer = Answer { at: answered, gap, by };
        if let Some(window) = &mut shared.window {
            window.answered(answer);
        }
        shared.answers.push_back(Answer { by: by.or(before), ..answer });
        while shared.answers.get(1).is_some_and(|second| answered - second.at > self.window) {
            shared.answers.pop_front();
        }
    }
}

impl Shared {
    /// Who answers, as far as is known.
    fn by(&self) -> Option<u32> {
        self.answers.back().and_then(|answer| answer.by)
    }

    /// Who answers, whether it is worth the time to see who does, and who did before the reload.
    fn known(&self) -> (Option<u32>, bool, Option<Arc<BTreeSet<u32>>>) {
        match &self.window {
            None => (self.by(), self.by().is_none(), None),
            Some(window) => (self.by(), window.in_a_row < SETTLED, Some(Arc::clone(&window.old))),
        }
    }
}

impl Window {
    /// `answers`: all lately, the last one last. One or two may have come since it began.
    fn open(at: Instant, old: BTreeSet<u32>, answers: &[Answer], time: Duration) -> Self {
        let (earlier, since) = answers.split_at(answers.partition_point(|answer| answer.at <= at));
        let gaps = earlier.iter().filter(|answer| at - answer.at <= time).map(|answer| answer.gap);
        let gap_before = gaps.max().unwrap_or_default();
        let before = earlier.last().and_then(|answer| answer.by);
        let mut window =
            Self { at, old: Arc::new(old), seen: Seen { before, gap_before, ..Seen::default() }, in_a_row: 0 };
        since.iter().for_each(|answer| window.answered(*answer));
        window
    }

    fn answered(&mut self, Answer { at, gap, by }: Answer) {
        let before = self.seen.before;
        let new = by.filter(|by| Some(*by) != before && !self.old.contains(by) && before.is_some());
        if !self.seen.over {
            self.seen.longest_gap = self.seen.longest_gap.max(gap);
        }
        match new {
            Some(by) => {
                self.in_a_row += 1;
                self.seen.first_new.get_or_insert((at, by));
            }
            // Who has not been seen yet is the old one: what is new is looked for first.
            None if self.in_a_row < SETTLED => {
                self.in_a_row = 0;
                self.seen.last_old = Some(at);
            }
            None => {}
        }
    }
}

/// The new ones hold few connections, so they are asked first; then who answered before; then all
/// others.
fn holder(family: &mut Family, inode: u64, old: Option<&BTreeSet<u32>>, before: Option<u32>) -> Option<u32> {
    let members = family.members();
    let is_new = |pid: &u32| old.is_some_and(|old| !old.contains(pid));
    // Between fork and exec a next generation has copies of all that the old one holds, and answers
    // nothing.
    let is_copy = |pid| stat(pid).is_none_or(|one| one.forked) && before.is_some_and(|before| holds(before, inode));
    if let Some(pid) = members.iter().copied().filter(is_new).find(|pid| holds(*pid, inode) && !is_copy(*pid)) {
        return Some(pid);
    }
    if old.is_some() {
        return before;
    }
    members.into_iter().find(|pid| holds(*pid, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_new_one_before_the_window_was_opened_is_seen() {
        let start = Instant::now();
        let answer =
            |at, by| Answer { at: start + Duration::from_millis(at), gap: Duration::from_millis(1), by: Some(by) };
        let open = |answers: &[Answer]| {
            Window::open(start + Duration::from_millis(300), BTreeSet::from([7]), answers, Duration::from_millis(200))
        };
        let longest = Answer { gap: Duration::from_millis(50), ..answer(50, 7) };
        let window = open(&[longest, answer(299, 7), answer(301, 7), answer(307, 8)]);
        let Seen { before, first_new, last_old, gap_before, .. } = window.seen;
        assert_eq!((before, first_new), (Some(7), Some((start + Duration::from_millis(307), 8))));
        assert_eq!(last_old, Some(start + Duration::from_millis(301)));
        assert_eq!(gap_before, Duration::from_millis(1), "what was longer ago than that does not count");
        // And so it goes on, if nobody new has answered by then.
        let mut window = open(&[answer(299, 7)]);
        assert_eq!(window.seen.first_new, None);
        window.answered(answer(302, 8));
        assert!(window.seen.first_new.is_some_and(|(_, by)| by == 8));
    }
}
