//! One server with so many connections, reloaded some times.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::clients::{Clients, Close, REOPEN, Seen};
use crate::cgroup::Cgroup;
use crate::peer::{Peer, Server};

/// For all clients to be there.
const CONNECTED: Duration = Duration::from_secs(60);
/// In which the memory of the first generation becomes that of one in use.
const WARM: Duration = Duration::from_secs(5);
/// Before a reload: what requests cost without one.
const BEFORE: Duration = Duration::from_secs(2);
/// After the old process has gone: all that were closed have come back.
const AFTER: Duration = REOPEN.saturating_add(Duration::from_millis(500));
/// The same where nobody is connected.
const EMPTY: Duration = Duration::from_millis(500);
/// For the old process to be gone. All servers cut its connections after half of that.
const GONE: Duration = Duration::from_secs(20);
/// Between two looks at who is alive.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at the memory, which takes some milliseconds with many connections.
const WEIGH: Duration = Duration::from_millis(250);
/// Of which latencies are compared, before a reload and after it.
const SECOND: Duration = Duration::from_secs(1);

/// What one reload did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reload {
    /// Until the old process had gone; `None`: it had not after [`GONE`].
    pub(crate) gone: Option<Duration>,
    /// Whether there was a new process.
    pub(crate) renewed: bool,
    /// Connections that the server closed, by [`Close`].
    pub(crate) announced: usize,
    pub(crate) idle: usize,
    pub(crate) cut: usize,
    /// How many requests were lost for each reason.
    pub(crate) lost: Vec<String>,
    /// In µs, of all processes: from the signal until the old one had gone and all clients were
    /// there again, and before the reload.
    pub(crate) cpu: [u64; 2],
    /// Requests answered in the same times.
    pub(crate) requests: [usize; 2],
    /// In bytes: before, and the most until the old one had gone.
    pub(crate) memory: [u64; 2],
    /// In the second before, and in the one after.
    pub(crate) latency: [Vec<Duration>; 2],
}

/// What one server did with so many connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trial {
    pub(crate) reloads: Vec<Reload>,
    /// Connections that the server closed before the first reload.
    pub(crate) closed_before: usize,
    pub(crate) sent: usize,
    pub(crate) lost: usize,
}

/// The moments of a reload, from which all else follows.
struct Moments {
    before: Range<Instant>,
    after: Range<Instant>,
}

pub(crate) fn measure(peer: Peer, connections: usize, reloads: usize, seed: u64, group: &Cgroup) -> io::Result<Trial> {
    let server = peer.start(Some(group))?;
    let clients = Clients::start(server.port(), connections, seed)?;
    let measured = reload_often(&server, &clients, peer, connections, reloads, group);
    let seen = clients.stop();
    // what the server said is lost with it
    let (mut all, moments) =
        measured.map_err(|error| io::Error::other(format!("{error}\n{}", server.log().trim_end())))?;
    for (at, reload) in all.iter_mut().enumerate() {
        let until = moments.get(at + 1).map(|next| next.after.start);
        reload.fill(&seen, &moments[at], until);
    }
    let first = moments.first().map(|first| first.after.start);
    Ok(Trial {
        closed_before: seen.closed.iter().filter(|(at, _)| Some(*at) < first).count(),
        sent: seen.answered.len() + seen.lost.len(),
        lost: seen.lost.len(),
        reloads: all,
    })
}

fn reload_often(
    server: &Server,
    clients: &Clients,
    peer: Peer,
    connections: usize,
    reloads: usize,
    group: &Cgroup,
) -> io::Result<(Vec<Reload>, Vec<Moments>)> {
    let (warm, before, after) = if connections == 0 { (EMPTY, EMPTY, EMPTY) } else { (WARM, BEFORE, AFTER) };
    clients.wait_for(connections, CONNECTED)?;
    sleep(warm);
    let (mut all, mut moments) = (Vec::new(), Vec::new());
    for _ in 0..reloads {
        let mut reload = Reload::default();
        let main = server.main()?;
        let old: BTreeSet<u32> = group.processes()?.into_iter().filter(|pid| Some(*pid) != server.master()).collect();
        reload.memory = [group.memory()?; 2];
        let (from, spent) = (Instant::now(), group.cpu()?);
        sleep(before);
        reload.cpu[1] = group.cpu()? - spent;
        let (at, spent) = (Instant::now(), group.cpu()?);
        kill(Pid::from_raw(main.cast_signed()), peer.signal())?;
        reload.watch(server, &old, group)?;
        sleep(after);
        clients.wait_for(connections, CONNECTED)?;
        reload.cpu[0] = group.cpu()? - spent;
        moments.push(Moments { before: from..at, after: at..Instant::now() });
        all.push(reload);
    }
    Ok((all, moments))
}

impl Reload {
    /// Until the old processes have gone.
    fn watch(&mut self, server: &Server, old: &BTreeSet<u32>, group: &Cgroup) -> io::Result<()> {
        let began = Instant::now();
        let (mut known, mut weighed) = (0, began);
        while began.elapsed() < GONE {
            let alive = group.processes()?;
            let new = alive.iter().filter(|pid| !old.contains(*pid) && Some(**pid) != server.master()).count();
            self.renewed |= new > 0;
            if old.is_disjoint(&alive) {
                self.gone = Some(began.elapsed());
                break;
            }
            if alive.len() > known || weighed.elapsed() > WEIGH {
                self.memory[1] = self.memory[1].max(group.memory()?);
                (known, weighed) = (known.max(alive.len()), Instant::now());
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// From what the clients saw; `until`: the next reload.
    fn fill(&mut self, seen: &Seen, moments: &Moments, until: Option<Instant>) {
        let at = moments.after.start;
        let own = |moment: &Instant| *moment >= at && until.is_none_or(|until| *moment < until);
        for (_, close) in seen.closed.iter().filter(|(moment, _)| own(moment)) {
            match close {
                Close::Announced => self.announced += 1,
                Close::Idle => self.idle += 1,
                Close::Lost => self.cut += 1,
            }
        }
        self.lost = seen.lost.iter().filter(|(moment, _)| own(moment)).map(|(_, why)| why.clone()).collect();
        let during = |span: &Range<Instant>| seen.answered.iter().filter(|(sent, _)| span.contains(sent)).count();
        self.requests = [during(&moments.after), during(&moments.before)];
        let of = |span: Range<Instant>| {
            seen.answered.iter().filter(|(sent, _)| span.contains(sent)).map(|(_, took)| *took).collect()
        };
        self.latency = [of(at - SECOND..at), of(at..at + SECOND)];
    }
}

impl Trial {
    /// Adds what another pass measured of the same.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.reloads.append(&mut other.reloads);
        self.closed_before += other.closed_before;
        self.sent += other.sent;
        self.lost += other.lost;
    }

    pub(crate) fn closed_per_reload(&self) -> f64 {
        self.per_reload(|reload| reload.announced + reload.idle + reload.cut)
    }

    pub(crate) fn announced_per_reload(&self) -> f64 {
        self.per_reload(|reload| reload.announced)
    }

    pub(crate) fn lost_per_reload(&self) -> f64 {
        self.per_reload(|reload| reload.lost.len())
    }

    fn per_reload(&self, of: impl Fn(&Reload) -> usize) -> f64 {
        self.reloads.iter().map(of).sum::<usize>() as f64 / self.reloads.len().max(1) as f64
    }

    /// Until the old process had gone, in s: the median and the most; infinite where it had not.
    pub(crate) fn gone(&self) -> [f64; 2] {
        let seconds = |reload: &Reload| reload.gone.map_or(f64::INFINITY, |gone| gone.as_secs_f64());
        let mut all: Vec<f64> = self.reloads.iter().map(seconds).collect();
        all.sort_by(f64::total_cmp);
        [all.get(all.len() / 2), all.last()].map(|one| one.copied().unwrap_or(f64::NAN))
    }

    /// In ms, of all reloads together: in the second before and in the second after; `None`: there
    /// are fewer than 100 requests in one of them.
    pub(crate) fn p99(&self) -> [Option<f64>; 2] {
        [0, 1].map(|side| {
            let mut all: Vec<Duration> = self.reloads.iter().flat_map(|reload| reload.latency[side].clone()).collect();
            all.sort();
            let at = (all.len() * 99).div_ceil(100);
            (all.len() >= 100).then(|| all[at - 1].as_secs_f64() * 1e3)
        })
    }

    /// Processor time of a reload, in µs, without what its requests would have cost anyway.
    pub(crate) fn cpu_per_reload(&self) -> f64 {
        let sum = |of: fn(&Reload) -> u64| self.reloads.iter().map(of).sum::<u64>() as f64;
        let each = sum(|reload| reload.cpu[1]) / sum(|reload| reload.requests[1] as u64).max(1.0);
        let more = sum(|reload| reload.cpu[0]) - each * sum(|reload| reload.requests[0] as u64);
        more / self.reloads.len().max(1) as f64
    }

    /// In MiB: the median before a reload, and the most of all.
    pub(crate) fn memory(&self) -> [f64; 2] {
        let mut before: Vec<u64> = self.reloads.iter().map(|reload| reload.memory[0]).collect();
        before.sort_unstable();
        let most = self.reloads.iter().map(|reload| reload.memory[1]).max();
        [before.get(before.len() / 2).copied(), most].map(|bytes| bytes.unwrap_or(0) as f64 / 1_048_576.0)
    }
}
