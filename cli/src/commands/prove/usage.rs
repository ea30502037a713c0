//! What all generations of the server hold together: resident memory and file descriptors, sampled.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::family::Family;
use super::report::{ProcessPoint, Usage, seconds};

/// Between two samples.
const EVERY: Duration = Duration::from_millis(10);
/// Between two points of the plots.
const POINT: Duration = Duration::from_millis(100);
/// The kernel walks all pages for PSS and the server waits meanwhile: of more than that it is not
/// asked.
const PSS_LIMIT: u64 = 256 << 20;

#[derive(Debug, Default)]
struct State {
    last: Usage,
    /// The highest of each since the last call of `turn`.
    peak: Usage,
}

/// Dropped, it takes no more samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    state: Arc<Mutex<State>>,
    thread: JoinHandle<Vec<ProcessPoint>>,
}

impl Sampler {
    /// The points of the plots count from `started`.
    pub(crate) fn start(family: Family, started: Instant) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::downgrade(&state);
        let thread =
            std::thread::Builder::new().name("sampler".into()).spawn(move || sample(family, started, &shared))?;
        Ok(Self { state, thread })
    }

    /// The sums now, and the highest since the last call.
    pub(crate) fn turn(&self) -> (Usage, Usage) {
        let mut state = lock(&self.state);
        let now = state.last;
        (now, std::mem::replace(&mut state.peak, now))
    }

    pub(crate) fn stop(self) -> Vec<ProcessPoint> {
        drop(self.state);
        // A panic there has lost samples, nothing else.
        self.thread.join().unwrap_or_default()
    }
}

/// Proportional set sizes: shared pages count once in all. `None`: not to be had, or it would stall
/// the server.
pub(crate) fn pss(family: &mut Family) -> Option<u64> {
    let members = family.members();
    let rss: u64 = members.iter().filter_map(|pid| held_by(*pid)).map(|usage| usage.rss).sum();
    if members.is_empty() || rss > PSS_LIMIT {
        return None;
    }
    let pss = members.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    // Those that ended meanwhile hold nothing.
    let known: Vec<u64> = pss.flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<u64>() * 1024)
}

fn sample(mut family: Family, started: Instant, state: &Weak<Mutex<State>>) -> Vec<ProcessPoint> {
    let (mut points, mut last) = (Vec::new(), None);
    loop {
        let held = family.members().into_iter().filter_map(|pid| Some((pid, held_by(pid)?)));
        let held: Vec<(u32, Usage)> = held.collect();
        let now = held.iter().fold(Usage::default(), |sum, (_, one)| sum.with(*one, u64::saturating_add));
        let at = Instant::now();
        let Some(state) = state.upgrade() else { return points };
        let mut state = lock(&state);
        (state.last, state.peak) = (now, state.peak.with(now, u64::max));
        drop(state);
        if last.is_none_or(|last| at - last >= POINT) {
            let each = |of: fn(&Usage) -> u64| held.iter().map(|(pid, usage)| (*pid, of(usage))).collect();
            points.push(ProcessPoint { at_s: seconds(at - started), fds: each(|u| u.fds), rss: each(|u| u.rss) });
            last = Some(at);
        }
        std::thread::sleep(EVERY);
    }
}

/// What that process holds.
pub(super) fn held_by(pid: u32) -> Option<Usage> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let size = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    Some(Usage { processes: 1, rss: pages * size, fds: fds(pid).unwrap_or(0) })
}

/// Since Linux 6.2 the directory's size says how many there are.
fn fds(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path).ok()?.size() {
        0 => fs::read_dir(&path).ok().and_then(|entries| u64::try_from(entries.count()).ok()),
        n => Some(n),
    }
}

/// What a thread has left behind that panicked is as good as before.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
