//! A client on a thread of its own that connects anew, back to back: what it sees of a reload it sees to a fraction of a millisecond.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::family::Family;
use super::who::peer;
use crate::diag::{Diag, holds};
use crate::load::{Probe, Waits};
use crate::stat::stat;

/// So many answers of the new one in a row, and nobody looks any more who answers until the next reload.
const SETTLED: u32 = 200;
/// After a failed probe: a refusal comes back at once, and a server that is away is not helped by a storm.
const AFTER_LOSS: Duration = Duration::from_micros(200);

/// How it is known who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Teller {
    /// A response header.
    Header,
    /// A part of the body.
    Body,
    /// The process that holds the server's end of the connection.
    Process,
    Nothing,
}

/// A reload has begun.
#[derive(Debug, Clone)]
pub(super) struct Begin {
    pub(super) number: u32,
    pub(super) at: Instant,
    /// The processes of the server just before.
    pub(super) old: BTreeSet<u32>,
}

/// What was seen of a reload.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) number: u32,
    /// Who answered before it.
    pub(super) before: Option<u32>,
    /// When the first answer of a new one was complete, and whose it was.
    pub(super) first_new: Option<(Instant, u32)>,
    /// When the last answer of an old one was complete.
    pub(super) last_old: Option<Instant>,
    pub(super) longest_gap: Duration,
    /// In as much time before.
    pub(super) gap_before: Duration,
    /// The longest time from the beginning of one probe to that of the next, up to the first answer of a new one.
    pub(super) resolution: Duration,
    /// The window is over.
    pub(super) over: bool,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    begin: Mutex<Option<Begin>>,
    /// What is seen of the reload that began last.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
pub(super) struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Waits>>,
}

pub(super) struct Config {
    pub(super) probe: Probe,
    pub(super) teller: Teller,
    pub(super) family: Family,
    pub(super) window: Duration,
}

impl Prober {
    pub(super) fn start(config: Config) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            begin: Mutex::new(None),
            seen: Mutex::new(Seen::default()),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let diag = if config.teller == Teller::Process { Some(Diag::open()?) } else { None };
        let (started, running) = mpsc::channel();
        let with = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("prober".into()).spawn(move || {
            let _ = started.send(());
            let now = Instant::now();
            let probing = Probing {
                config,
                diag,
                shared: with,
                answers: VecDeque::new(),
                last: now,
                begun: now,
                by: None,
                open: None,
                periods: Waits::new(),
            };
            probing.run(&runtime)
        })?;
        let _ = running.recv();
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn begin(&self, begin: Begin) {
        let seen = Seen { number: begin.number, ..Seen::default() };
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        *self.shared.begin.lock().unwrap_or_else(PoisonError::into_inner) = Some(begin);
    }

    pub(super) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far apart probes began. `None`: the thread has panicked.
    pub(super) fn stop(mut self) -> Option<Waits> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Probing {
    config: Config,
    diag: Option<Diag>,
    shared: Arc<Shared>,
    /// When answers were complete in the last window's time, and how long after the one before.
    answers: VecDeque<(Instant, Duration)>,
    last: Instant,
    begun: Instant,
    /// Who answers, as far as is known.
    by: Option<u32>,
    open: Option<Window>,
    periods: Waits,
}

struct Window {
    begin: Begin,
    seen: Seen,
    in_a_row: u32,
}

impl Probing {
    fn run(mut self, runtime: &Runtime) -> Waits {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let begin = self.shared.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(begin) = begin {
                self.open(begin);
            }
            runtime.block_on(self.probe());
            self.tell();
        }
        self.periods
    }

    fn open(&mut self, begin: Begin) {
        let gaps = self.answers.iter().filter(|(at, _)| *at <= begin.at).map(|(_, gap)| *gap);
        let gap_before = gaps.max().unwrap_or_default();
        let seen = Seen { number: begin.number, before: self.by, gap_before, ..Seen::default() };
        let mut window = Window { begin, seen, in_a_row: 0 };
        // What was answered since the signal, before we knew of it, was answered by the old one.
        for (at, gap) in self.answers.iter().filter(|(at, _)| *at > window.begin.at) {
            window.seen.longest_gap = window.seen.longest_gap.max(*gap);
            window.seen.last_old = Some(*at);
        }
        self.open = Some(window);
    }

    async fn probe(&mut self) {
        let begun = Instant::now();
        let period = begun - self.begun;
        self.periods.record(period);
        if let Some(window) = self.open.as_mut().filter(|w| w.seen.first_new.is_none()) {
            window.seen.resolution = window.seen.resolution.max(period);
        }
        self.begun = begun;
        let answer = self.config.probe.ask().await;
        let answered = Instant::now();
        let Ok((connection, named)) = answer else {
            tokio::time::sleep(AFTER_LOSS).await;
            return;
        };
        let gap = answered - self.last;
        self.last = answered;
        self.answers.push_back((answered, gap));
        while self.answers.front().is_some_and(|(at, _)| answered - *at > self.config.window) {
            self.answers.pop_front();
        }
        let by = match (named, &self.diag, connection.stream()) {
            (Some(named), ..) => Some(named),
            (None, Some(diag), Some(stream)) if self.looks() => {
                let old = self.open.as_ref().map(|w| &w.begin.old);
                peer(diag, stream).ok().flatten().and_then(|inode| holder(&mut self.config.family, inode, old, self.by))
            }
            _ => self.by,
        };
        connection.end();
        self.config.probe.answered(begun, by);
        if let Some(window) = &mut self.open {
            window.answered(answered, gap, by);
        }
        self.by = by.or(self.by);
    }

    /// Whether it is worth the time to see who answered.
    fn looks(&self) -> bool {
        match &self.open {
            None => self.by.is_none(),
            Some(window) => window.in_a_row < SETTLED,
        }
    }

    fn tell(&mut self) {
        let Some(window) = &mut self.open else { return };
        let over = window.begin.at + self.config.window <= self.last.max(self.begun);
        window.seen.over = over;
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Another reload may have begun.
        if seen.number == window.seen.number {
            seen.clone_from(&window.seen);
        }
        drop(seen);
    }
}

impl Window {
    fn answered(&mut self, at: Instant, gap: Duration, by: Option<u32>) {
        let before = self.seen.before;
        let new = by.filter(|by| Some(*by) != before && !self.begin.old.contains(by) && before.is_some());
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

/// The new ones hold few connections, so they are asked first; then who answered before; then all others.
fn holder(family: &mut Family, inode: u64, old: Option<&BTreeSet<u32>>, before: Option<u32>) -> Option<u32> {
    let members = family.members();
    let is_new = |pid: &u32| old.is_some_and(|old| !old.contains(pid));
    // Between fork and exec a next generation has copies of all that the old one holds, and answers nothing.
    let is_copy = |pid| stat(pid).is_none_or(|one| one.forked) && before.is_some_and(|before| holds(before, inode));
    if let Some(pid) = members.iter().copied().filter(is_new).find(|pid| holds(*pid, inode) && !is_copy(*pid)) {
        return Some(pid);
    }
    if old.is_some() {
        return before;
    }
    members.into_iter().find(|pid| holds(*pid, inode))
}
