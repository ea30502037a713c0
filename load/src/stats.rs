//! What the load counted: every request ends here exactly once, answered or lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::kind::{Cause, Kind};
use super::turnover::{Close, Since, Turnover};

/// Names of generations that are kept: a server may have a new one for each answer. All others are
/// one.
const MOST_NAMES: usize = 4096;
const OTHERS: u32 = u32::MAX / 2;

/// One lost request.
#[derive(Debug, Clone)]
pub struct Loss {
    pub kind: Kind,
    pub cause: Cause,
    pub detail: String,
    /// When its connection was made, if it was.
    pub connected: Option<Instant>,
    /// When its first byte was about to be written.
    pub sent: Option<Instant>,
    pub failed: Instant,
    /// The pid that had answered on this connection before.
    pub served_by: Option<u32>,
}

/// On a busy machine a client hears so late that its connection has ended, and may have written to
/// it meanwhile.
const LATE_NEWS: Duration = Duration::from_millis(100);

/// The main process was killed on purpose.
#[derive(Debug, Clone)]
pub struct Kill {
    pub pid: u32,
    /// From then on it alone accepted.
    pub main_since: Instant,
    /// Just before the signal was sent.
    pub at: Instant,
    /// When it was seen dead, its sockets closed.
    pub dead: Instant,
    /// When its successor was ready.
    pub over: Option<Instant>,
}

impl Loss {
    /// Whether this request was in flight in the killed process: written to an established
    /// connection of that very process before the client could know that it was dead. Whatever else
    /// goes wrong around a kill, a refused connection above all, is an ordinary loss.
    fn was_in_flight_in(&self, kill: &Kill) -> bool {
        let cut = matches!(self.cause, Cause::Closed | Cause::Reset | Cause::Truncated);
        let (Some(connected), Some(sent)) = (self.connected, self.sent) else { return false };
        let under_way = connected <= kill.dead && sent <= kill.dead + LATE_NEWS && self.failed >= kill.at;
        let served_there = match self.served_by {
            Some(pid) => pid == kill.pid,
            None => connected >= kill.main_since,
        };
        cut && under_way && served_there
    }
}

impl Loss {
    /// What helps to find the reason: whose connection it was, and when it broke.
    pub fn describe(&self, kills: &[Kill]) -> String {
        let mut text = self.detail.clone();
        if let Some(pid) = self.served_by {
            let _ = write!(text, ", on a connection of pid {pid}");
        }
        if let Some(sent) = self.sent {
            let _ = write!(text, ", {:.1?} after it was sent", self.failed - sent);
        }
        for kill in kills {
            let (side, apart) = match self.failed.checked_duration_since(kill.at) {
                Some(apart) => ("after", apart),
                None => ("before", kill.at - self.failed),
            };
            let _ = write!(text, ", {apart:.1?} {side} the kill");
        }
        text
    }
}

/// The counters of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub answered: u64,
    pub lost: u64,
    pub lost_to_kill: u64,
    /// Idle connections that the server closed without having announced it. No loss: nothing was
    /// under way.
    pub idle_closed: u64,
    /// Begun. Each one ends answered, lost or handed back; bytes that nobody asked for are a loss
    /// without a request.
    pub sent: u64,
    /// The server announced that it will not have acted on them: pipelined behind a `Connection:
    /// close`, above the last stream of a GOAWAY, or refused by REFUSED_STREAM. No loss: the client
    /// knows that it may send them again.
    pub handed_back: u64,
    /// Connections that the server closed as it had announced.
    pub announced: u64,
    /// Of clients that would have gone on with theirs.
    pub turnover: Turnover,
    /// Connections of theirs that ended with a process that was killed on purpose, or later, up to
    /// the next reload.
    pub closed_by_kill: u64,
    /// The longest wait of those that met a kill, beyond what the request itself takes.
    pub longest_over_kill: Duration,
}

impl Count {
    pub fn requests(&self) -> u64 {
        self.answered + self.lost + self.lost_to_kill
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.lost_to_kill += other.lost_to_kill;
        self.idle_closed += other.idle_closed;
        self.sent += other.sent;
        self.handed_back += other.handed_back;
        self.announced += other.announced;
        self.turnover.add(&other.turnover);
        self.closed_by_kill += other.closed_by_kill;
        self.longest_over_kill = self.longest_over_kill.max(other.longest_over_kill);
    }
}

/// Shared by all clients.
#[derive(Debug, Default)]
pub struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: BTreeMap<Kind, Count>,
    losses: Vec<Loss>,
    kills: Vec<Kill>,
    flow: Option<Flow>,
    since: Since,
    /// By the number of the reload.
    turnovers: BTreeMap<u32, Turnover>,
    names: HashMap<String, u32>,
}

/// The counts at one moment, losses sorted by whose they are.
#[derive(Debug, Default)]
pub struct Summary {
    pub counts: BTreeMap<Kind, Count>,
    pub total: Count,
    pub lost: BTreeMap<(Kind, Cause), (u64, String)>,
    pub lost_to_kill: BTreeMap<(Kind, Cause), u64>,
}

impl Stats {
    /// Which also keeps what happened over time.
    pub fn with_flow(flow: Flow) -> Self {
        Self { inner: Mutex::new(Inner { flow: Some(flow), ..Inner::default() }) }
    }

    pub fn sent(&self, kind: Kind) {
        self.lock().counts.entry(kind).or_default().sent += 1;
    }

    pub(super) fn handed_back(&self, kind: Kind) {
        self.lock().counts.entry(kind).or_default().handed_back += 1;
    }

    pub(super) fn announced(&self, kind: Kind) {
        self.lock().counts.entry(kind).or_default().announced += 1;
    }

    /// From now on closes are laid to that.
    pub fn closes_are_laid_to(&self, since: Since) {
        self.lock().since = since;
    }

    /// The server closed a connection with which its client would have gone on; what that is laid
    /// to.
    pub(super) fn closed(&self, kind: Kind, how: Close) -> Since {
        let mut inner = self.lock();
        let since = inner.since;
        let count = inner.counts.entry(kind).or_default();
        match since {
            Since::Kill => count.closed_by_kill += 1,
            Since::Start | Since::Reload(_) => count.turnover.close(how),
        }
        if let Since::Reload(number) = since {
            inner.turnovers.entry(number).or_default().close(how);
        }
        since
    }

    /// A client has one again in its place.
    pub(super) fn opened_anew(&self, kind: Kind, since: Since) {
        let mut inner = self.lock();
        if since != Since::Kill {
            inner.counts.entry(kind).or_default().turnover.opened_anew += 1;
        }
        if let Since::Reload(number) = since {
            inner.turnovers.entry(number).or_default().opened_anew += 1;
        }
    }

    /// What was closed and opened anew because of each reload, by its number. There is nothing of
    /// one that closed nothing.
    pub fn turnovers(&self) -> BTreeMap<u32, Turnover> {
        self.lock().turnovers.clone()
    }

    /// The number for a generation's name: the name itself where it is a number.
    pub fn tag(&self, name: Option<String>) -> Option<u32> {
        let name = name?;
        if let Ok(number) = name.parse() {
            return Some(number);
        }
        let mut inner = self.lock();
        // Above every pid, which are below 2^22.
        let next = u32::MAX - u32::try_from(inner.names.len()).unwrap_or(0);
        if inner.names.len() >= MOST_NAMES && !inner.names.contains_key(&name) {
            return Some(OTHERS);
        }
        Some(*inner.names.entry(name).or_insert(next))
    }

    /// What `tag` was given.
    pub fn name(&self, tag: u32) -> String {
        if tag == OTHERS {
            return "others".to_owned();
        }
        let inner = self.lock();
        inner.names.iter().find(|(_, t)| **t == tag).map_or_else(|| tag.to_string(), |(name, _)| name.clone())
    }

    /// What happens over time, if that is kept.
    pub fn flow<T>(&self, ask: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        self.lock().flow.as_mut().map(ask)
    }

    /// Ends what happens over time, and hands it out if that is kept.
    pub fn end_flow(&self) -> Option<Flow> {
        let mut flow = self.lock().flow.take()?;
        flow.finish();
        Some(flow)
    }

    /// All losses so far, but for what was in flight in a process that was killed on purpose.
    pub fn losses(&self) -> Vec<Loss> {
        let inner = self.lock();
        let is_ordinary = |loss: &&Loss| !inner.kills.iter().any(|kill| loss.was_in_flight_in(kill));
        inner.losses.iter().filter(is_ordinary).cloned().collect()
    }

    /// A request that began at `begun` and by itself takes that long was answered right now.
    pub fn answered(&self, kind: Kind, begun: Instant, takes: Duration, by: Option<u32>) {
        let mut inner = self.lock();
        let met_kill = inner.kills.iter().any(|kill| kill.over.is_none_or(|over| begun <= over));
        let count = inner.counts.entry(kind).or_default();
        count.answered += 1;
        let wait = begun.elapsed().saturating_sub(takes);
        if met_kill {
            count.longest_over_kill = count.longest_over_kill.max(wait);
        }
        if let Some(flow) = &mut inner.flow {
            flow.answered(kind, by, begun, Some(wait).filter(|_| !met_kill));
        }
    }

    pub fn lost(&self, loss: Loss) {
        let mut inner = self.lock();
        if let Some(flow) = &mut inner.flow {
            flow.lost();
        }
        inner.losses.push(loss);
    }

    pub(super) fn idle_closed(&self, kind: Kind) {
        self.lock().counts.entry(kind).or_default().idle_closed += 1;
    }

    pub fn killed(&self, kill: Kill) {
        self.lock().kills.push(kill);
    }

    /// The killed process has a successor that is ready.
    pub fn restarted(&self) {
        for kill in &mut self.lock().kills {
            kill.over.get_or_insert_with(Instant::now);
        }
    }

    /// Whose loss one is can only be told once the kill is known, so it is told here and not when
    /// it happens.
    pub fn summary(&self) -> Summary {
        let inner = self.lock();
        let mut summary = Summary { counts: inner.counts.clone(), ..Summary::default() };
        for loss in &inner.losses {
            let count = summary.counts.entry(loss.kind).or_default();
            if inner.kills.iter().any(|kill| loss.was_in_flight_in(kill)) {
                count.lost_to_kill += 1;
                *summary.lost_to_kill.entry((loss.kind, loss.cause)).or_default() += 1;
            } else {
                count.lost += 1;
                summary.lost.entry((loss.kind, loss.cause)).or_insert_with(|| (0, loss.describe(&inner.kills))).0 += 1;
            }
        }
        for count in summary.counts.values() {
            summary.total.add(count);
        }
        summary
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters are whole after every statement: a client that panicked elsewhere has not broken
        // them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    fn kill() -> Kill {
        Kill { pid: 7, main_since: at(100), at: at(1000), dead: at(1010), over: None }
    }

    fn loss() -> Loss {
        Loss {
            kind: Kind::KeepAlive,
            cause: Cause::Reset,
            detail: "x".into(),
            connected: Some(at(500)),
            sent: Some(at(990)),
            failed: at(1005),
            served_by: Some(7),
        }
    }

    #[test]
    fn only_what_was_in_flight_in_the_killed_process_is_set_apart() {
        assert!(loss().was_in_flight_in(&kill()));
        let ordinary = [
            ("refused", Loss { cause: Cause::Refused, connected: None, sent: None, ..loss() }),
            ("timed out", Loss { cause: Cause::Timeout, ..loss() }),
            ("answered wrongly", Loss { cause: Cause::WrongBody, ..loss() }),
            ("lost before the kill", Loss { failed: at(999), ..loss() }),
            ("sent when it was known to be dead", Loss { sent: Some(at(1111)), failed: at(1112), ..loss() }),
            ("connected when it was dead", Loss { connected: Some(at(1011)), ..loss() }),
            ("served by a draining generation", Loss { served_by: Some(6), ..loss() }),
            ("perhaps accepted by an older one", Loss { served_by: None, connected: Some(at(99)), ..loss() }),
        ];
        for (what, loss) in ordinary {
            assert!(!loss.was_in_flight_in(&kill()), "{what}");
        }
        assert!(Loss { served_by: None, ..loss() }.was_in_flight_in(&kill()), "a fresh connection to the main one");
    }

    #[test]
    fn every_request_is_counted_once() {
        let stats = Stats::with_flow(Flow::new(Duration::from_secs(60)));
        stats.answered(Kind::KeepAlive, Instant::now(), Duration::ZERO, Some(7));
        stats.answered(Kind::Slow, Instant::now(), Duration::from_secs(2), None);
        stats.idle_closed(Kind::KeepAlive);
        stats.lost(loss());
        stats.lost(Loss { cause: Cause::Refused, ..loss() });
        let before = stats.summary();
        assert_eq!((before.total.requests(), before.total.lost, before.total.lost_to_kill), (4, 2, 0));
        stats.killed(kill());
        let after = stats.summary();
        assert_eq!((after.total.requests(), after.total.lost, after.total.lost_to_kill), (4, 1, 1));
        assert_eq!(after.lost.keys().collect::<Vec<_>>(), [&(Kind::KeepAlive, Cause::Refused)]);
        assert_eq!(after.total.idle_closed, 1);
        let longest = stats.flow(|flow| flow.kinds[&Kind::Slow].percentiles().max);
        assert_eq!(longest, Some(Duration::ZERO), "what it takes by itself is no wait");
    }
}
