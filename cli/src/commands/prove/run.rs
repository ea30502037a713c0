//! One run: the load begins, reload after reload is asked for and watched, the load ends.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use super::assemble::{Record, STEP};
use super::family::Family;
use super::plan::Plan;
use super::prober::{Prober, Seen};
use super::progress::Progress;
use super::report::{Leaving, ReloadRow, Report, Teller, TurnoverRow, Unseen, Usage, UsageRow, ms, seconds};
use super::server::Server;
use super::trigger::{Asked, Reloads};
use super::usage::{Sampler, held_by, pss};
use crate::failure::Failure;
use crate::terminal::Ink;
use handover::supervise::proc::stat;
use handover_load::{Conductor, Expect, Flow, Kind, Since, Stats, When, start};

/// Between two looks at what the prober has seen.
const LOOK: Duration = Duration::from_millis(1);
/// What a thousand connections may take to be opened.
const OPEN_1000: Duration = Duration::from_secs(2);
/// For clients to end, beyond what their requests take.
const END: Duration = Duration::from_secs(10);
/// A reload that has not started any process by then does not start one: nobody new is waited for.
const START: Duration = Duration::from_secs(5);

/// A load under way. Dropped, it ends at once.
pub(crate) struct Run<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    stats: Arc<Stats>,
    conductor: Conductor,
    clients: JoinSet<()>,
    prober: Prober,
    sampler: Sampler,
    server: Server,
    started: Instant,
    /// When the load was there as a whole.
    begun: Instant,
    reloads: Vec<ReloadRow>,
    /// A reload that showed nobody new was waited for; the others need not be.
    waited: bool,
}

impl<'a> Run<'a> {
    /// Starts the clients, and waits until each kind has had an answer, and the prober, too.
    pub(crate) async fn start(plan: &'a Plan, server: Server, progress: &'a Progress) -> Result<Self, Failure> {
        let flow = Flow::new(STEP);
        let started = flow.started();
        let stats = Arc::new(Stats::with_flow(flow));
        let conductor = Conductor::default();
        let clients = start(&plan.clients, &plan.target, &plan.load, &stats, plan.seed, &conductor.signals());
        warm_up(plan, &stats, progress).await?;
        let cannot = |e| Failure::cannot_run(format!("a thread cannot be started: {e}"));
        let prober = Prober::start(plan, &server, &stats).map_err(cannot)?;
        let sampler = Sampler::start(server.family.clone(), started).map_err(cannot)?;
        let mut run = Self {
            plan,
            progress,
            stats,
            conductor,
            clients,
            prober,
            sampler,
            server,
            started,
            begun: Instant::now(),
            reloads: Vec::new(),
            waited: false,
        };
        run.first_probe().await?;
        run.begun = Instant::now();
        Ok(run)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits, showing what goes on.
    pub(crate) async fn wait(&self, until: Instant) {
        while Instant::now() < until {
            self.progress.tick(&self.stats.summary());
            tokio::time::sleep_until(until.min(Instant::now() + Progress::TICK).into()).await;
        }
    }

    /// Waits until that process answers the prober; `false`: it does not, for that long.
    pub(crate) async fn is_answered_by(&self, pid: u32, limit: Duration) -> bool {
        self.until(limit, || self.prober.last().1 == Some(pid)).await
    }

    /// Asks for a reload at that time, or as soon after as the windows do not overlap, and watches
    /// it.
    pub(crate) async fn reload(&mut self, at: Instant, server: &mut impl Reloads) {
        let at = at.max(Instant::now() + self.plan.window);
        self.wait(at - self.plan.window).await;
        // The one before is over: what its generations held at most is known.
        let (before, peak) = self.sampler.turn();
        let pss_before = proportional(&self.server.family).await;
        let usage = (before.processes > 0).then(|| UsageRow { before, pss_before, ..UsageRow::default() });
        let number = u32::try_from(self.reloads.len() + 1).unwrap_or(u32::MAX);
        self.stats.flow(|flow| flow.turn(When::Before(number)));
        self.wait(at).await;
        // Not sooner: the manager may hear of a new main process after clients do.
        let main = self.last_is_over(peak, server).await;
        let row = self.watch(number, usage, main, server).await;
        self.waited |= row.unseen.is_some();
        self.reloads.push(row);
    }

    /// Returns the main process that the last one has left behind, where there is somebody to say.
    async fn last_is_over(&mut self, peak: Usage, server: &impl Reloads) -> Option<u32> {
        let main = server.main().await;
        if let Some(last) = self.reloads.last_mut() {
            last.main_pid = main;
            if let Some(usage) = &mut last.usage {
                usage.peak = peak;
            }
        }
        main
    }

    /// Shows what became of the last reload, before what the clients saw of it.
    pub(crate) fn tell(&self, what: &[(Ink, &str)]) {
        if let Some(row) = self.reloads.last() {
            self.progress.reload(row, what, &self.stats.summary());
        }
    }

    /// Lets every client finish its request. `how` the server was told to reload.
    pub(crate) async fn end(mut self, how: String, server: &impl Reloads) -> Report {
        let mut problems = Vec::new();
        let (_, peak) = self.sampler.turn();
        self.last_is_over(peak, server).await;
        // Without its clients an old process has no reason to stay.
        let gone = self.sampler.gone();
        self.conductor.stop();
        let took = self.begun.elapsed();
        let limit = self.plan.longest_request() + END;
        let all = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            problems.push(format!("{} clients did not come to an end within {limit:?}", self.clients.len()));
        }
        let (prober, sampler) = (self.prober, self.sampler);
        let periods = tokio::task::spawn_blocking(move || prober.stop()).await.ok().flatten();
        let processes = tokio::task::spawn_blocking(move || sampler.stop()).await.unwrap_or_default();
        let Server { teller, notes, .. } = self.server;
        let journal = server.journal(&self.reloads.iter().map(|row| row.wall).collect::<Vec<_>>()).await;
        let (stats, reloads) = (self.stats, self.reloads);
        let record = Record { stats, teller, reloads, periods, processes, gone, problems, notes, took };
        record.report(self.plan, how, journal)
    }

    /// `main`: the main process before it, where there is somebody to say.
    async fn watch(
        &mut self,
        number: u32,
        mut usage: Option<UsageRow>,
        main: Option<u32>,
        server: &mut impl Reloads,
    ) -> ReloadRow {
        let old = self.server.family.members();
        let leaving = self.leaving(&old, main);
        if let Some(leaving) = leaving {
            self.sampler.wait_for(number, leaving.process());
        }
        let (at, wall) = (Instant::now(), SystemTime::now());
        self.prober.begin(at, old.clone(), self.plan.window);
        self.stats.flow(|flow| flow.turn(When::Within(number)));
        self.stats.closes_are_laid_to(Since::Reload(number));
        let answer = OnceCell::new();
        let asking = async {
            let asked = server.ask(self.plan.reload_timeout).await;
            let _ = answer.set(!matches!(asked, Asked::Done));
            (ms(at.elapsed()), asked)
        };
        self.conductor.reload(number);
        let ((asked_ms, asked), (seen, unseen)) = tokio::join!(asking, self.look(at, &old, &answer, &mut usage));
        if let Some((_, new)) = seen.first_new {
            server.answered(seen.before, new);
        }
        let refused = matches!(asked, Asked::Refused(_));
        let failed = match asked {
            Asked::Done => None,
            Asked::Failed(why) | Asked::Refused(why) => Some(why),
        };
        let since = |time: Instant| if time >= at { ms(time - at) } else { -ms(at - time) };
        let name = |tag| self.stats.name(tag);
        ReloadRow {
            n: number,
            at,
            wall,
            refused,
            unseen,
            at_s: seconds(at - self.started),
            asked_ms,
            failed,
            first_new_ms: seen.first_new.map(|(answered, _)| since(answered)),
            last_old_ms: seen.first_new.and(seen.last_old).map(since),
            resolution_ms: ms(seen.resolution),
            old: seen.before.map(name),
            new: seen.first_new.map(|(_, by)| name(by)),
            main_pid: None,
            lost: 0,
            turnover: TurnoverRow::default(),
            leaving,
            old_gone_ms: None,
            longest_gap_ms: ms(seen.longest_gap),
            gap_before_ms: ms(seen.gap_before),
            before: None,
            within: None,
            throughput_ratio: None,
            usage,
            journal: None,
        }
    }

    /// Until the window is over and somebody new has answered, unless nobody is to be waited for.
    /// `asked`: whether asking has failed.
    async fn look(
        &self,
        at: Instant,
        old: &BTreeSet<u32>,
        asked: &OnceCell<bool>,
        usage: &mut Option<UsageRow>,
    ) -> (Seen, Option<Unseen>) {
        let (mut is_met, mut is_quiet, mut looked) = (false, false, false);
        loop {
            tokio::time::sleep(LOOK).await;
            let (seen, waited) = (self.prober.seen(), at.elapsed());
            if waited >= self.plan.window && !is_quiet {
                self.stats.flow(|flow| flow.turn(When::Quiet));
                is_quiet = true;
            }
            if let (Some((_, new)), Some(usage), false) = (seen.first_new, usage.as_mut(), is_met) {
                usage.pss_at_first_new = proportional(&self.server.family).await;
                usage.new = held_by(new);
                is_met = true;
            }
            if !is_quiet {
                continue;
            }
            let late = waited >= self.plan.reload_timeout;
            let nobody = if late || (waited >= START && asked.get().is_some() && !looked) {
                looked = true;
                self.nobody_new(old)
            } else {
                false
            };
            let failed = asked.get() == Some(&true);
            let unseen = match self.server.teller {
                _ if seen.first_new.is_some() || failed => None,
                Teller::Nothing => None,
                _ if late || nobody || (self.waited && asked.get().is_some()) => Some(Unseen { waited, nobody }),
                // There is somebody to wait for.
                _ => continue,
            };
            if seen.over || late || unseen.is_some() {
                return (seen, unseen);
            }
        }
    }

    /// The process that a reload is to replace. A name that the server gives itself may be any
    /// number, and is none of a process unless that is what was asked for.
    fn leaving(&self, old: &BTreeSet<u32>, main: Option<u32>) -> Option<Leaving> {
        if self.server.teller == Teller::Process || matches!(self.plan.load.expect, Expect::Pid) {
            let answers = self.prober.last().1.filter(|pid| old.contains(pid));
            return answers.and_then(stat).map(Leaving::Answered);
        }
        main.and_then(stat).map(Leaving::WasMain)
    }

    /// Whether all that is there was there before. Where something else tells who answers, a
    /// process need not be a new one.
    fn nobody_new(&self, old: &BTreeSet<u32>) -> bool {
        self.server.teller == Teller::Process && self.server.family.clone().members().is_subset(old)
    }

    /// A prober that has not seen the old process answer would not know the new one.
    async fn first_probe(&self) -> Result<(), Failure> {
        let known = || match (self.server.teller, self.prober.last()) {
            (Teller::Nothing, (answered, _)) => answered,
            (_, (_, by)) => by.is_some(),
        };
        let limit = self.plan.load.limit;
        if self.until(limit, known).await {
            return Ok(());
        }
        let why = match self.prober.last() {
            (true, _) => "nothing in its answers tells who gave them",
            (false, _) => "it got none",
        };
        Err(Failure::failed(format!("no answer to the prober that tells who gave it, within {limit:?}: {why}")))
    }

    async fn until(&self, limit: Duration, is: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !is() {
            if begun.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

async fn proportional(family: &Family) -> Option<u64> {
    let mut family = family.clone();
    tokio::task::spawn_blocking(move || pss(&mut family)).await.ok().flatten()
}

/// Every kind that begins at once has had an answer, and every idle connection is open.
async fn warm_up(plan: &Plan, stats: &Stats, progress: &Progress) -> Result<(), Failure> {
    let begun = Instant::now();
    let thousands = u32::try_from(plan.clients_in_all().div_ceil(1000)).unwrap_or(u32::MAX);
    let limit = plan.load.limit + OPEN_1000 * thousands;
    loop {
        let summary = stats.summary();
        let missing = plan.clients.iter().find_map(|(kind, count)| {
            let answered = summary.counts.get(kind).map_or(0, |c| c.answered);
            let wanted = match kind {
                Kind::KeepAlive | Kind::Idle => *count as u64,
                Kind::Fresh | Kind::Pipelined | Kind::WebSocket => 1,
                _ => 0,
            };
            (answered < wanted).then_some((*kind, answered, wanted))
        });
        let Some((kind, answered, wanted)) = missing else { return Ok(()) };
        if begun.elapsed() > limit {
            let why = summary.lost.values().next().map(|(_, example)| format!(": {}", crate::safe::terminal(example)));
            return Err(Failure::failed(format!(
                "{kind}: {answered} of {wanted} first requests were answered within {limit:?}{}",
                why.unwrap_or_default()
            )));
        }
        progress.tick(&summary);
        tokio::time::sleep(Progress::TICK).await;
    }
}
