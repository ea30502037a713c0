//! Reloads and SIGKILLs at random moments, hundreds of them: nobody is refused, and what was acknowledged stays counted.

use std::thread;
use std::time::Instant;

use super::counter::{Binds, Counter, Lost, Memory, UNIT};
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Random};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("kills_and_reloads", kills_and_reloads).system_only(),
    Scenario::new("kills_and_reloads_of_own_port", kills_and_reloads_of_own_port).system_only(),
];

/// Main processes that are killed, and reloads that are handed over, at least.
const KILLS: u32 = 200;
const RELOADS: usize = 1000;
const CLIENTS: usize = 6;
/// After a reload was asked for, the kill comes within this time: before the spawn, at the switch, after the handover.
const KILL_WITHIN_MS: u64 = 15;
/// Between two kills.
const MOST_RELOADS: usize = 10;

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
    let names = counter.stored_names()?;

    let memory = Memory::default();
    let mut kills = Vec::new();
    counter.under_clients(CLIENTS, &memory, || {
        let mut random = Random::new(load::seed(), 0);
        // Distinct processes that answered tell how many reloads there were, at most.
        while restarts(lab)? < KILLS || reloads(&memory) < RELOADS + RELOADS / 10 {
            for _ in 0..random.within(1..MOST_RELOADS + 1) {
                reload(&counter, &memory)?;
            }
            kills.push(kill(&counter, &memory, &mut random)?);
        }
        Ok(())
    })?;

    judge(&counter, &memory, &kills)?;
    counter.wait_stored(entries)?;
    assert_eq!(counter.stored_names()?, names);
    Ok(())
}

fn restarts(lab: &Container) -> Outcome<u32> {
    Ok(lab.show(UNIT, "NRestarts")?.parse()?)
}

fn reloads(memory: &Memory) -> usize {
    memory.look().generations.values().filter(|generation| **generation > 1).count()
}

/// Waits for an answer by somebody new.
fn reload(counter: &Counter<'_>, memory: &Memory) -> Outcome {
    let before = memory.look().newest;
    hup(counter, before)?;
    answer_by_another(counter, memory, before)
}

fn hup(counter: &Counter<'_>, pid: u32) -> Outcome {
    // Gone already, if it was never main.
    counter.lab.sh(&format!("kill -HUP {pid}")).map(drop)
}

fn answer_by_another(counter: &Counter<'_>, memory: &Memory, before: u32) -> Outcome {
    let what = format!("an answer by another process than {before}");
    counter.lab.wait_until(DEADLINE, &what, || Ok((memory.look().newest != before).then_some(())))
}

/// Kills in the middle of a reload whoever is main, or was or is about to be; when it began and when it was done.
fn kill(counter: &Counter<'_>, memory: &Memory, random: &mut Random) -> Outcome<(Instant, Instant)> {
    let lab = counter.lab;
    let main = lab.main_pid(UNIT)?;
    let before = restarts(lab)?;
    hup(counter, main)?;
    // Not to be right, but to be anywhere.
    thread::sleep(random.time(0..KILL_WITHIN_MS));
    let victim = if random.within(0..4) == 0 { memory.look().newest } else { main };
    let began = Instant::now();
    lab.sh(&format!("kill -KILL {victim}"))?;
    let done = Instant::now();
    // It was main, and there is another start; or it was not, and somebody else is.
    lab.wait_until(DEADLINE, "a main process", || {
        let again = restarts(lab)? > before;
        Ok(lab.main_pid(UNIT).ok().filter(|main| again || *main != victim).map(drop))
    })?;
    answer_after(counter, memory)?;
    Ok((began, done))
}

/// Somebody answers, and is the one that will be asked to reload.
fn answer_after(counter: &Counter<'_>, memory: &Memory) -> Outcome {
    counter.lab.wait_until(DEADLINE, "an answer by the main process", || {
        let Ok(main) = counter.lab.main_pid(UNIT) else { return Ok(None) };
        let mut seen = memory.look();
        if !seen.generations.contains_key(&main) {
            return Ok(None);
        }
        seen.newest = main;
        Ok(Some(()))
    })
}

fn judge(counter: &Counter<'_>, memory: &Memory, kills: &[(Instant, Instant)]) -> Outcome {
    let seed = load::seed();
    let restarts = restarts(counter.lab)?;
    let entries = counter.lab.journal_json(UNIT)?;
    let handed_over = entries.iter().filter(|e| e.message().starts_with("handed over to generation")).count();
    let seen = memory.look();
    let in_flight = |(began, ended, _): &&(Instant, Instant, Lost)| {
        kills.iter().any(|(from, to)| began <= to && ended >= from)
    };
    let broken: Vec<_> = seen.lost.iter().filter(|l| !(matches!(l.2, Lost::Broken(_)) && in_flight(l))).collect();
    println!(
        "seed {seed}: {} kills, {restarts} of main processes; {handed_over} reloads handed over; {} requests answered, {} \
         lost in flight in a killed process",
        kills.len(),
        seen.answered,
        seen.lost.len() - broken.len()
    );
    assert!(broken.is_empty(), "lost without a kill (seed {seed}): {} as {:?}", broken.len(), broken.first().map(|l| l.2.why()));
    assert!(seen.wrong.is_empty(), "forgotten (seed {seed}): {} as {:?}", seen.wrong.len(), seen.wrong.first());
    assert!(restarts >= KILLS && handed_over >= RELOADS, "{restarts} kills, {handed_over} reloads (seed {seed})");
    drop(seen);
    let last = counter.count()?.total;
    assert!(last > memory.acknowledged(), "{last} after {} (seed {seed})", memory.acknowledged());
    Ok(())
}
