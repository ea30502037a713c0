//! One run: the load begins, reload after reload is asked for and watched, the load ends.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use super::family::Family;
use super::journal;
use super::options::Options;
use super::preflight::Ready;
use super::prober::{Begin, Config, Prober, Seen, Teller};
use super::progress::Progress;
use super::trigger::{Asked, Trigger};
use super::usage::{Point, Sampler, Usage, pss};
use crate::commands::timeline::Brief;
use crate::failure::Failure;
use handover_load::{Conductor, Flow, Kind, Probe, Stats, Waits, When, start};

/// One point of the plots.
pub(super) const STEP: Duration = Duration::from_millis(50);
/// Between two looks at what the prober has seen.
const LOOK: Duration = Duration::from_millis(1);
/// What a thousand connections may take to be opened.
const OPEN_1000: Duration = Duration::from_secs(2);

/// Everything that was seen, to be put in order.
pub(super) struct Record {
    pub(super) stats: Arc<Stats>,
    pub(super) reloads: Vec<Reloaded>,
    /// `None`: the prober's thread has panicked.
    pub(super) periods: Option<Waits>,
    pub(super) points: Vec<Point>,
    pub(super) problems: Vec<String>,
    /// Why there is nothing of the journal, where there could be.
    pub(super) unread: Option<String>,
    pub(super) took: Duration,
}

pub(super) struct Reloaded {
    pub(super) number: u32,
    pub(super) at: Instant,
    /// The same moment, by the clock that the journal goes by.
    pub(super) wall: SystemTime,
    pub(super) asked: Duration,
    pub(super) failed: Option<String>,
    pub(super) seen: Seen,
    pub(super) before: Usage,
    pub(super) peak: Usage,
    pub(super) new: Option<Usage>,
    /// The main process afterwards, where there is somebody to say so.
    pub(super) main: Option<u32>,
    pub(super) pss_before: Option<u64>,
    pub(super) pss_at_first_new: Option<u64>,
    pub(super) journal: Option<Brief>,
}

pub(super) async fn run(options: &Options, ready: Ready, progress: &Progress) -> Result<Record, Failure> {
    let Ready { target, plan, mut trigger, mut family, teller, .. } = ready;
    let stats = Arc::new(Stats::with_flow(Flow::new(STEP)));
    let conductor = Conductor::default();
    let counts = options.clients.counts();
    let mut clients = start(&counts, &target, &plan, &stats, options.seed, &conductor.signals());
    warm_up(options, &counts, &stats, progress).await?;

    let window = options.window.min(options.every / 2);
    let probe = Probe {
        target: Arc::clone(&target),
        stats: Arc::clone(&stats),
        path: plan.path.clone(),
        expect: plan.expect.clone(),
        limit: options.timeout,
    };
    let config = Config { probe, teller, family: family.clone(), window };
    let cannot = |e| Failure::usage(format!("a thread cannot be started: {e}"));
    let prober = Prober::start(config).map_err(cannot)?;
    let sampler = Sampler::start(family.clone()).map_err(cannot)?;

    let (begun, mut problems, mut reloads) = (Instant::now(), Vec::new(), Vec::<Reloaded>::new());
    for number in 1..=options.reloads {
        let planned = begun + options.every * number;
        let at = planned.max(Instant::now() + window);
        wait(at - window, &stats, progress).await;
        // The one before is over: what its generations held at most is known.
        let (before, peak) = sampler.turn();
        if let Some(last) = reloads.last_mut() {
            last.peak = peak;
        }
        let pss_before = proportional(&family).await;
        stats.flow(|flow| flow.turn(When::Before(number)));
        wait(at, &stats, progress).await;
        // Not sooner: the manager may hear of a new main process after clients do.
        if let Some(last) = reloads.last_mut() {
            last.main = trigger.main().await;
        }

        let mut reloaded =
            reload(options, number, &mut trigger, &mut family, &prober, &sampler, &stats, &conductor, window, teller)
                .await;
        (reloaded.before, reloaded.pss_before) = (before, pss_before);
        progress.reload(&reloaded, &stats);
        reloads.push(reloaded);
    }
    let end = begun + options.duration.unwrap_or_default();
    wait(end.max(Instant::now() + options.every), &stats, progress).await;
    if let Some(last) = reloads.last_mut() {
        last.peak = sampler.turn().1;
        last.main = trigger.main().await;
    }

    conductor.stop();
    let took = begun.elapsed();
    let limit =
        options.timeout + options.clients.slow_time.end + options.clients.download_time + Duration::from_secs(10);
    if let Some(left) = end_all(&mut clients, limit).await {
        problems.push(format!("{left} clients did not come to an end within {limit:?}"));
    }
    let periods = tokio::task::spawn_blocking(move || prober.stop()).await.ok().flatten();
    let points = tokio::task::spawn_blocking(move || sampler.stop()).await.unwrap_or_default();
    let unread = match journal::read(&trigger, &reloads).await {
        Ok(told) => {
            for (reloaded, brief) in reloads.iter_mut().zip(told) {
                reloaded.journal = brief;
            }
            None
        }
        Err(why) => Some(why),
    };
    problems.splice(0..0, reloads.iter().filter_map(|reloaded| problem(options, reloaded, teller)));
    Ok(Record { stats, reloads, periods, points, problems, unread, took })
}

#[expect(clippy::too_many_arguments, reason = "one step of the run, set apart to be read")]
async fn reload(
    options: &Options,
    number: u32,
    trigger: &mut Trigger,
    family: &mut Family,
    prober: &Prober,
    sampler: &Sampler,
    stats: &Stats,
    conductor: &Conductor,
    window: Duration,
    teller: Teller,
) -> Reloaded {
    let old = family.members();
    let (at, wall) = (Instant::now(), SystemTime::now());
    prober.begin(Begin { number, at, old });
    stats.flow(|flow| flow.turn(When::Within(number)));
    let refused = Cell::new(false);
    let asking = async {
        let Asked { failed } = trigger.ask(options.reload_timeout).await;
        refused.set(failed.is_some());
        (at.elapsed(), failed)
    };
    let family = &*family;
    let watching = async {
        conductor.reload(number);
        let (mut usage, mut turned) = (None, false);
        loop {
            tokio::time::sleep(LOOK).await;
            let seen = prober.seen();
            if at.elapsed() >= window && !turned {
                stats.flow(|flow| flow.turn(When::Quiet));
                turned = true;
            }
            if let (Some((_, new)), None) = (seen.first_new, usage) {
                usage = Some((sampler.of(new), proportional(family).await));
            }
            // Nobody new is to be waited for after a failure.
            let told = seen.first_new.is_some() || teller == Teller::Nothing || refused.get();
            let limit = at.elapsed() >= options.reload_timeout;
            if turned && ((seen.over && told) || limit) {
                break (usage.unwrap_or_default(), seen);
            }
        }
    };
    let ((asked, failed), ((new, pss_at_first_new), seen)) = tokio::join!(asking, watching);
    if let Some((_, new)) = seen.first_new {
        trigger.answered(seen.before, new);
    }
    let (before, peak) = (Usage::default(), Usage::default());
    Reloaded {
        number,
        at,
        wall,
        asked,
        failed,
        seen,
        before,
        peak,
        new,
        main: None,
        pss_before: None,
        pss_at_first_new,
        journal: None,
    }
}

fn problem(options: &Options, reloaded: &Reloaded, teller: Teller) -> Option<String> {
    let number = reloaded.number;
    let told = reloaded.journal.as_ref().map(|brief| format!("; the journal: {}", brief.words())).unwrap_or_default();
    match &reloaded.failed {
        Some(why) => Some(format!("reload {number} failed: {why}{told}")),
        None if reloaded.seen.first_new.is_none() && teller != Teller::Nothing => {
            let within = options.reload_timeout;
            Some(format!("reload {number}: no new process answered within {within:?}{told}"))
        }
        None => None,
    }
}

async fn proportional(family: &Family) -> Option<u64> {
    let mut family = family.clone();
    tokio::task::spawn_blocking(move || pss(&mut family)).await.ok().flatten()
}

/// Every kind that begins at once has had an answer, and every idle connection is open.
async fn warm_up(
    options: &Options,
    counts: &[(Kind, usize)],
    stats: &Stats,
    progress: &Progress,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    let limit = options.timeout + OPEN_1000 * u32::try_from(all.div_ceil(1000)).unwrap_or(u32::MAX);
    loop {
        let summary = stats.summary();
        let missing = counts.iter().find_map(|(kind, count)| {
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
            return Err(Failure::usage(format!(
                "{kind}: {answered} of {wanted} first requests were answered within {limit:?}{}",
                why.unwrap_or_default()
            )));
        }
        progress.tick(&summary);
        tokio::time::sleep(Progress::TICK).await;
    }
}

/// Waits, showing what goes on.
async fn wait(until: Instant, stats: &Stats, progress: &Progress) {
    while Instant::now() < until {
        progress.tick(&stats.summary());
        tokio::time::sleep_until(until.min(Instant::now() + Progress::TICK).into()).await;
    }
}

async fn end_all(clients: &mut JoinSet<()>, limit: Duration) -> Option<usize> {
    let all = async { while clients.join_next().await.is_some() {} };
    match tokio::time::timeout(limit, all).await {
        Ok(()) => None,
        Err(_) => Some(clients.len()),
    }
}
