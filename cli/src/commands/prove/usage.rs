//! What all generations of the server hold together, sampled: resident memory and file descriptors;
//! and when those of them that were replaced have ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::family::Family;
use super::report::{ProcessPoint, Usage, seconds};
use handover::supervise::proc::{Stat, stat};

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
    /// Whose ends are waited for, each with the numbers of the reloads that are to replace it: those
    /// that failed, and one that did not.
    leaving: Vec<(Stat, Vec<u32>)>,
    /// When those were seen to have ended.
    gone: BTreeMap<u32, Instant>,
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

    /// From now on the end of that process is waited for.
    pub(crate) fn wait_for(&self, reload: u32, process: Stat) {
        let is_it = |one: &Stat| (one.pid, one.started) == (process.pid, process.started);
        let mut state = lock(&self.state);
        match state.leaving.iter_mut().find(|(one, _)| is_it(one)) {
            Some((_, reloads)) => reloads.push(reload),
            None => state.leaving.push((process, vec![reload])),
        }
    }

    /// When the processes have ended that were waited for, by the number of the reload: so far.
    pub(crate) fn gone(&self) -> BTreeMap<u32, Instant> {
        lock(&self.state).gone.clone()
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
        let State { leaving, gone, .. } = &mut *state;
        leaving.retain(|(process, reloads)| {
            let is_gone = has_ended(*process);
            if is_gone {
                gone.extend(reloads.iter().map(|reload| (*reload, Instant::now())));
            }
            !is_gone
        });
        drop(state);
        if last.is_none_or(|last| at - last >= POINT) {
            let each = |of: fn(&Usage) -> u64| held.iter().map(|(pid, usage)| (*pid, of(usage))).collect();
            points.push(ProcessPoint { at_s: seconds(at - started), fds: each(|u| u.fds), rss: each(|u| u.rss) });
            last = Some(at);
        }
        std::thread::sleep(EVERY);
    }
}

/// Whether all of that process has ended. One whose first thread has is a zombie already, while the
/// others still hold its sockets.
fn has_ended(process: Stat) -> bool {
    match stat(process.pid) {
        Some(now) if now.started == process.started => {
            let threads = || fs::read_dir(format!("/proc/{}/task", process.pid)).map_or(0, Iterator::count);
            now.dead && threads() <= 1
        }
        _ => true,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_has_ended_when_it_is_a_zombie_and_when_another_one_has_its_pid() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = stat(child.id()).unwrap();
        assert!(!has_ended(process));
        assert!(has_ended(Stat { started: process.started + 1, ..process }), "a stranger with its pid");
        let sampler = Sampler::start(Family::Unknown, Instant::now()).unwrap();
        sampler.wait_for(3, process);
        sampler.wait_for(4, process);
        assert!(sampler.gone().is_empty());
        let ends = Instant::now();
        drop(child.stdin.take());
        while sampler.gone().is_empty() {
            assert!(ends.elapsed() < Duration::from_secs(20), "nobody has waited for it, and it has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        let gone = sampler.gone();
        assert!(gone.len() == 2 && gone.values().all(|at| *at >= ends), "{gone:?}");
        child.wait().unwrap();
        assert!(has_ended(process));
    }
}
