//! Reloads and SIGKILLs at random moments, many of them: nobody is refused, what was acknowledged
//! stays counted, and the service holds as much afterwards as before. `tests/run soak` makes
//! thousands of them.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::counter::{Binds, Counter, Lost, Memory, UNIT};
use super::held::Held;
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Random};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("kills_and_reloads", kills_and_reloads).system_only(),
    Scenario::new("kills_and_reloads_of_own_port", kills_and_reloads_of_own_port).system_only(),
];

/// Main processes that are killed, and reloads that are handed over, at least; unless these two
/// variables say otherwise.
const KILLS: usize = 12;
const RELOADS: usize = 60;
const KILLS_VARIABLE: &str = "HANDOVER_STORM_KILLS";
const RELOADS_VARIABLE: &str = "HANDOVER_STORM_RELOADS";
const CLIENTS: usize = 4;
/// After a reload was asked for, the kill comes within this time: before the spawn, at the switch,
/// after the handover.
const KILL_WITHIN_MS: u64 = 15;
/// A restart waits for the generations beside the killed one, which hurry, for so long.
const RESTART: Duration = Duration::from_millis(600);

fn kills_and_reloads(lab: &Container) -> Outcome {
    storm(lab, Binds::Systemd)
}

fn kills_and_reloads_of_own_port(lab: &Container) -> Outcome {
    storm(lab, Binds::Service)
}

fn storm(lab: &Container, binds: Binds) -> Outcome {
    let counter = Counter::start(lab, binds, "StartLimitIntervalSec=0", "RestartSec=10ms\nLogRateLimitIntervalSec=0")?;
    assert_eq!(counter.count()?.total, 1);
    // The state, and the socket if systemd did not bind it.
    let entries = 1 + usize::from(binds == Binds::Service);
    counter.wait_stored(entries)?;

    let (size, memory) = (Size::wanted()?, Memory::default());
    // A generation that has had a predecessor, before as after.
    let one_reload = || {
        memory.wait_until(DEADLINE, |seen| seen.newest != 0);
        reload(&counter, &memory)
    };
    counter.under_clients(1, &memory, one_reload)?;
    let before = Held::alone(lab, UNIT)?;
    let names = counter.stored_names()?;
    let (mut kills, mut handed_over) = (Vec::new(), 0);
    counter.under_clients(CLIENTS, &memory, || {
        let (mut random, mut restarts) = (Random::new(load::seed(), 0), 0);
        while restarts < size.kills || handed_over < size.reloads {
            for _ in 0..random.within(1..size.most_reloads_in_a_row() + 1) {
                reload(&counter, &memory)?;
            }
            let (began, done, so_far) = kill(&counter, &memory, &mut random)?;
            kills.push((began, done));
            restarts = so_far;
            // Now, as the journal keeps no more than it may.
            handed_over += newly_handed_over(lab)?;
        }
        Ok(())
    })?;

    counter.under_clients(1, &memory, one_reload)?;
    handed_over += newly_handed_over(lab)?;
    let lost = judge(&counter, &memory, &kills, size, handed_over)?;
    counter.wait_stored(entries)?;
    assert_eq!(counter.stored_names()?, names);
    let after = Held::settled(lab, UNIT, &before)?;
    println!(
        "| {} | {} | {handed_over} | {} | {} | {} | {lost} | {before} | {after} |",
        lab.version(),
        if binds == Binds::Systemd { "systemd" } else { "the service" },
        kills.len(),
        main_and_restarts(lab)?.1,
        memory.look().answered,
    );
    Ok(())
}

/// How much of a storm it is.
#[derive(Debug, Clone, Copy)]
struct Size {
    kills: usize,
    reloads: usize,
}

impl Size {
    fn wanted() -> Outcome<Self> {
        let number = |variable: &str, default| match std::env::var(variable) {
            Ok(text) => text.parse().map_err(|e| format!("{variable}={text:?}: {e}")),
            Err(_) => Ok(default),
        };
        Ok(Self { kills: number(KILLS_VARIABLE, KILLS)?, reloads: number(RELOADS_VARIABLE, RELOADS)? })
    }

    /// Such that both numbers are reached at about the same time.
    fn most_reloads_in_a_row(self) -> usize {
        (2 * self.reloads / self.kills.max(1)).max(1)
    }
}

/// Reloads that were handed over since it was last asked.
fn newly_handed_over(lab: &Container) -> Outcome<usize> {
    let text = format!("journalctl -q -o cat --cursor-file=/run/storm.cursor -u {UNIT}");
    Ok(lab.sh_ok(&text)?.lines().filter(|line| line.starts_with("handed over to generation")).count())
}

/// The main process, and how often systemd has restarted the service, which it must go on doing.
fn main_and_restarts(lab: &Container) -> Outcome<(u32, usize)> {
    let text = lab.systemctl_ok(&["show", "-p", "MainPID,NRestarts,ActiveState", UNIT])?;
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    if ["inactive", "failed"].contains(&value("ActiveState")) {
        let last = lab.sh_ok(&format!("journalctl -o short-precise -n 60 -u {UNIT}"))?;
        return Err(format!("systemd has given the service up: {text}\n{last}").into());
    }
    Ok((value("MainPID").parse()?, value("NRestarts").parse()?))
}

/// Waits for an answer by somebody new.
fn reload(counter: &Counter<'_>, memory: &Memory) -> Outcome {
    let before = memory.look().newest;
    // Gone already, if it was never main.
    counter.lab.signal_now(before, Signal::SIGHUP)?;
    match memory.wait_until(DEADLINE, |seen| seen.newest != before) {
        true => Ok(()),
        false => Err(format!("after {DEADLINE:?} no answer by another process than {before}").into()),
    }
}

/// Kills in the middle of a reload whoever is main, or was or is about to be; when it began and
/// when it was done. Whether it was main, the number of restarts will tell.
fn kill(counter: &Counter<'_>, memory: &Memory, random: &mut Random) -> Outcome<(Instant, Instant, usize)> {
    let lab = counter.lab;
    let (main, before) = main_and_restarts(lab)?;
    lab.signal_now(main, Signal::SIGHUP)?;
    // Not to be right, but to be anywhere.
    thread::sleep(random.time(0..KILL_WITHIN_MS));
    let victim = if random.within(0..4) == 0 { memory.look().newest } else { main };
    let began = Instant::now();
    lab.signal_now(victim, Signal::SIGKILL)?;
    let done = Instant::now();
    // It was main, and there is another start; or it was not, and somebody else is.
    let restarts = lab.wait_until(DEADLINE, "a main process that answers", || {
        let (main, restarts) = main_and_restarts(lab)?;
        let mut seen = memory.look();
        if main == 0 || main == victim && restarts == before || !seen.generations.contains_key(&main) {
            return Ok(None);
        }
        seen.newest = main;
        Ok(Some(restarts))
    })?;
    Ok((began, done, restarts))
}

/// What was lost, of which all has its reason.
fn judge(
    counter: &Counter<'_>,
    memory: &Memory,
    kills: &[(Instant, Instant)],
    size: Size,
    handed_over: usize,
) -> Outcome<String> {
    let seed = load::seed();
    let (_, restarts) = main_and_restarts(counter.lab)?;
    let seen = memory.look();
    // In the killed process; or, in the restart, in one beside it that had to hurry more than a
    // busy machine allowed.
    let (mut in_flight, mut hurried, mut broken) = (0, 0, Vec::new());
    for (began, ended, lost) in &seen.lost {
        let due_to = |after: Duration| kills.iter().any(|(kill, done)| *began <= *done + after && ended >= kill);
        match lost {
            Lost::Broken(_) if due_to(Duration::ZERO) => in_flight += 1,
            Lost::Broken(_) if due_to(RESTART) => hurried += 1,
            lost => broken.push(lost),
        }
    }
    let first = broken.first().map(|lost| lost.why());
    assert!(broken.is_empty(), "lost without a kill (seed {seed}): {} as {first:?}", broken.len());
    assert!(seen.wrong.is_empty(), "forgotten (seed {seed}): {} as {:?}", seen.wrong.len(), seen.wrong.first());
    assert!(
        restarts >= size.kills && handed_over >= size.reloads,
        "{restarts} kills, {handed_over} reloads (seed {seed})"
    );
    drop(seen);
    let last = counter.count()?.total;
    assert!(last > memory.acknowledged(), "{last} after {} (seed {seed})", memory.acknowledged());
    Ok(format!("{in_flight} + {hurried}"))
}
