//! Two generations and systemd write about one reload, each when it comes to it, and the journal
//! has their entries as they came. What is shown is what happened, in whichever order it was
//! logged.

use std::fmt;

use handover::service::events;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::journal::{EPOCH_US, Journal, PROCESS_EXIT, RELOADED, RELOADING, STARTED, UNIT};
use crate::tool::reloads;

const CASES: u32 = 96;

/// How a reload is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `Type=notify-reload`, or an `ExecReload=` that waits: the job ends with the reload.
    Waiting,
    /// `ExecReload=/bin/kill -HUP $MAINPID`: the job ends when the signal is sent.
    Asking,
    /// `kill -HUP`: systemd knows nothing of it.
    Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    HandedOver,
    /// As it was, but the old process is killed before it can say so.
    Unsaid,
    RolledBack,
    InPlace,
    /// The main process is killed while the reload is under way; the unit starts anew.
    Crash,
}

/// One reload of a true history; times in microseconds.
#[derive(Debug, Clone)]
struct Act {
    by: By,
    end: End,
    pause: u64,
    /// From the signal to the service's attention.
    attention: u64,
    steps: [u64; 4],
    drain: u64,
    /// How late each entry is logged; systemd's own first.
    late: [u64; 8],
    /// Further jobs that ask while it is under way: they get one more reload, all together.
    again: usize,
}

/// What must be shown of each.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    id: Option<String>,
    job: Option<u64>,
    outcome: &'static str,
    generations: (u64, u64),
    pids: (u64, Option<u64>),
    drain: Option<(u64, &'static str)>,
    asked_again: u64,
}

#[derive(Debug, Default)]
struct World {
    /// When they came, and the entries.
    entries: Vec<(u64, Value)>,
    now: u64,
    generation: u64,
    pid: u64,
    job: u64,
    reload: u64,
    /// When systemd logged last: the entries of one process keep their order.
    systemd: u64,
    /// What was before was a signal of which systemd knows nothing.
    is_alone: bool,
    /// When the main process logged last. It does one thing after the other.
    main: u64,
    /// The last of those that asked meanwhile, for whom there is one more reload.
    waiting: Option<u64>,
    shown: Vec<Shown>,
}

/// Entries of one process that writes one after the other.
struct Process<'a> {
    world: &'a mut World,
    last: u64,
    fields: Vec<(&'static str, String)>,
}

impl Process<'_> {
    fn log(&mut self, at: u64, late: u64, id: &str, more: &[(&'static str, u64)]) {
        self.last = (at + late).max(self.last + 1);
        let mut fields = self.fields.clone();
        fields.extend(more.iter().map(|(name, value)| (*name, value.to_string())));
        self.world.put(self.last, id, "_SYSTEMD_UNIT", &fields);
    }
}

impl World {
    fn put(&mut self, at: u64, id: &str, unit: &str, fields: &[(&'static str, String)]) {
        let mut entry = json!({"MESSAGE_ID": id, "__REALTIME_TIMESTAMP": at.to_string(), unit: UNIT, "_BOOT_ID": "b"});
        for (name, value) in fields {
            entry[*name] = json!(value);
        }
        self.entries.push((at, entry));
    }

    /// systemd's entries follow each other; returns when it was logged.
    fn systemd(&mut self, at: u64, id: &str, fields: &[(&'static str, String)]) -> u64 {
        self.systemd = at.max(self.systemd + 1);
        let own = [("_PID", "1".to_owned())];
        self.put(self.systemd, id, "UNIT", &[&own, fields].concat());
        self.systemd
    }

    fn job(&mut self, id: &str, job: u64, at: u64) -> u64 {
        let result = (id == RELOADED).then(|| ("JOB_RESULT", "done".to_owned()));
        let fields: Vec<_> = [("JOB_ID", job.to_string())].into_iter().chain(result).collect();
        self.systemd(at, id, &fields)
    }

    fn old(&mut self, with_next: bool) -> Process<'_> {
        let mut fields = vec![
            ("HANDOVER_ID", format!("{:032x}", self.reload)),
            ("GENERATION", self.generation.to_string()),
            ("OLD_PID", self.pid.to_string()),
        ];
        if with_next {
            fields.push(("NEW_PID", (self.pid + 1).to_string()));
        }
        Process { world: self, last: 0, fields }
    }

    fn act(&mut self, act: &Act) {
        let waiting = self.waiting.take();
        let by = if waiting.is_some() { By::Signal } else { act.by };
        self.now += if waiting.is_some() { act.pause.min(3_000) } else { act.pause };
        // Beside a job to within the time that entries are late, nobody could tell whose signal it
        // was.
        let alone = by == By::Signal && waiting.is_none();
        self.now += if alone || self.is_alone { 200_000 } else { 0 };
        self.is_alone = alone;
        self.reload += 1;
        let ms = |us: u64| us / 1000;
        let signal = self.now;
        let asked = (signal + act.attention).max(self.main + 1);
        // It logs each step before it begins the next one; the last two are not its own.
        let mut at = asked + act.late[1];
        let mut ends = [asked; 4];
        for (number, end) in ends.iter_mut().enumerate() {
            *end = at + act.steps[number];
            at = *end + act.late[number + 2];
        }
        let job = (by != By::Signal).then(|| {
            self.job += 1;
            self.job
        });
        // systemd sends the signal, and logs then; its next entry is of what comes to it later.
        let logged = job.map(|job| self.job(RELOADING, job, signal + act.late[0]));
        if let (By::Asking, Some(job), Some(logged)) = (by, job, logged) {
            self.job(RELOADED, job, logged + 200);
        }
        let over = match act.end {
            End::InPlace => ends[0],
            End::RolledBack | End::Crash => ends[1],
            End::HandedOver | End::Unsaid => ends[3],
        };
        let mut asked_again = 0;
        for _ in 0..act.again {
            let at = self.systemd.max(asked) + 300;
            if by == By::Asking && act.end != End::Crash && at + 250 < over {
                self.job += 1;
                let begun = self.job(RELOADING, self.job, at);
                self.job(RELOADED, self.job, begun + 100);
                asked_again += u64::from(self.waiting.replace(self.job).is_some());
            }
        }
        let (generation, pid, late) = (self.generation, self.pid, act.late);
        let mut end = over;
        let mut old = self.old(true);
        let of_old = old.fields.len() - 1;
        let next = old.fields.pop();
        old.log(asked, late[1], events::RELOAD_STARTED, &[]);
        old.fields.extend(next);
        match act.end {
            End::InPlace => {
                old.fields.truncate(of_old);
                old.log(ends[0], late[2], events::RELOADED_IN_PLACE, &[("RELOAD_MS", ms(ends[0] - asked))]);
            }
            _ => old.log(ends[0], late[2], events::SPAWNED, &[("SPAWN_MS", ms(ends[0] - asked))]),
        }
        match act.end {
            End::RolledBack => {
                old.log(ends[1], late[3], events::RELOAD_FAILED, &[("RELOAD_MS", ms(ends[1] - asked))]);
            }
            End::HandedOver | End::Unsaid => {
                old.log(ends[1], late[3], events::READY, &[("READY_MS", ms(ends[1] - asked))]);
                old.log(ends[2], late[4], events::SWITCHED, &[("SWITCH_MS", ms(ends[2] - asked))]);
                if act.end == End::HandedOver {
                    old.log(ends[3], late[5], events::HANDED_OVER, &[("HANDOVER_MS", ms(ends[3] - asked))]);
                    old.log(ends[3], late[5], events::DRAIN_STARTED, &[("CONNECTIONS", 3)]);
                    let moving = act.drain / 2;
                    let moved = [("MOVED", 3), ("STAYED", 0), ("MOVE_MS", ms(moving))];
                    old.log(ends[3] + moving, late[7], events::MOVED, &moved);
                    old.log(ends[3] + act.drain, late[6], events::DRAINED, &[("DRAIN_MS", ms(act.drain))]);
                }
            }
            End::InPlace | End::Crash => {}
        }
        let logged = old.last;
        self.main = logged;
        end = end.max(over);
        let handed_over = matches!(act.end, End::HandedOver | End::Unsaid);
        if handed_over {
            let mut new = self.old(true);
            new.fields[1].1 = (generation + 1).to_string();
            new.log(ends[3], late[7], events::MAIN, &[]);
            let logged = new.last;
            self.main = logged;
            (self.generation, self.pid) = (generation + 1, pid + 1);
        }
        if act.end == End::Crash {
            let killed = [("COMMAND", "ExecStart".to_owned()), ("MESSAGE", "Main process exited".to_owned())];
            // It is dead before systemd says so, and all that it logged was before.
            let died = self.entries.iter().map(|(at, _)| *at).max().unwrap_or(end).max(end) + 1;
            let noticed = self.systemd(died, PROCESS_EXIT, &killed);
            if let (By::Waiting, Some(job)) = (by, job) {
                self.systemd(noticed, RELOADED, &[("JOB_ID", job.to_string()), ("JOB_RESULT", "failed".to_owned())]);
            }
            (self.generation, self.pid) = (1, pid + 2);
            let serves = [("GENERATION", "1".to_owned()), ("NEW_PID", self.pid.to_string())];
            self.put(noticed + 500, events::SERVES, "_SYSTEMD_UNIT", &serves);
            end = self.systemd(noticed + 500 + late[7], STARTED, &[]);
        } else if let (By::Waiting, Some(job)) = (by, job) {
            // The service tells systemd that it is ready, and logs for itself.
            end = self.job(RELOADED, job, over + late[7] / 2);
        }
        self.now = end.max(if by == By::Asking { self.systemd } else { 0 }) + 1;
        self.shown.push(Shown {
            id: Some(format!("{:032x}", self.reload)),
            job: job.or(waiting),
            outcome: match act.end {
                End::HandedOver | End::Unsaid => "handed_over",
                End::RolledBack => "rolled_back",
                End::InPlace => "in_place",
                End::Crash => "interrupted",
            },
            generations: (generation, if act.end == End::InPlace { generation } else { generation + 1 }),
            pids: (pid, if act.end == End::InPlace { Some(pid) } else { Some(pid + 1) }),
            drain: (act.end == End::HandedOver).then_some((ms(act.drain), "drained")),
            asked_again,
        });
    }

    /// As they came: those of one microsecond in any order, and each reader of the kernel's queue a
    /// little late.
    fn journal(mut self, jitter: &[u64]) -> (String, Vec<Shown>) {
        let came = |place: usize, at: u64| at + jitter[place % jitter.len()];
        let mut order: Vec<_> = self.entries.drain(..).enumerate().map(|(n, (at, e))| (came(n, at), e)).collect();
        order.sort_by_key(|(at, _)| *at);
        (order.into_iter().map(|(_, entry)| format!("{entry}\n")).collect(), self.shown)
    }
}

fn of(reload: &Value) -> Shown {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let known = |word: &str, all: &[&'static str]| all.iter().find(|known| **known == word).copied().unwrap_or("?");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let outcomes = ["handed_over", "rolled_back", "in_place", "interrupted", "reloaded", "failed", "under_way"];
    let drain = &reload["drain"];
    Shown {
        id: text(&reload["handover_id"]),
        job: reload["job"]["id"].as_u64(),
        outcome: known(reload["outcome"].as_str().unwrap_or("?"), &outcomes),
        generations: (number(&reload["old"]["number"]), number(&reload["new"]["number"])),
        pids: (number(&reload["old"]["pid"]), reload["new"]["pid"].as_u64()),
        drain: drain["ms"]
            .as_u64()
            .map(|ms| (ms, known(drain["end"].as_str().unwrap_or("?"), &["drained", "unknown"]))),
        asked_again: number(&reload["asked_again"]),
    }
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![3 => Just(By::Waiting), 2 => Just(By::Asking), 1 => Just(By::Signal)]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => Just(End::HandedOver),
        1 => Just(End::Unsaid),
        1 => Just(End::RolledBack),
        1 => Just(End::InPlace),
        1 => Just(End::Crash),
    ]
}

/// Reloads follow each other at once or after a while; most entries come at once, and some up to 40
/// ms late.
fn act() -> impl Strategy<Value = Act> {
    let pause = prop_oneof![2 => 0_u64..3_000, 1 => 0_u64..30_000_000];
    let late = || prop_oneof![3 => 0_u64..400, 1 => 0_u64..40_000];
    let step = || prop_oneof![3 => 300_u64..9_000, 1 => 0_u64..900_000];
    (
        by(),
        end(),
        pause,
        0_u64..2_000,
        prop::array::uniform4(step()),
        0_u64..9_000_000,
        prop::array::uniform8(late()),
        0_usize..3,
    )
        .prop_map(|(by, end, pause, attention, steps, drain, late, again)| Act {
            by,
            end,
            pause,
            attention,
            steps,
            drain,
            late,
            again,
        })
}

/// Which of several jobs that ask at the same time is served by which reload, nobody can know, the
/// service least of all. But every one of them is accounted for, once.
fn without_jobs(all: &mut [Shown]) -> u64 {
    let mut jobs = 0;
    for shown in all {
        jobs += u64::from(shown.job.take().is_some()) + std::mem::take(&mut shown.asked_again);
    }
    jobs
}

/// Not of one line of millions of characters.
struct Short<'a>(&'a [Shown]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|shown| writeln!(f, "{shown:?}"))
    }
}

#[test]
fn what_is_shown_is_what_happened() {
    let seed = [20; 32];
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::with_cases(CASES) },
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed),
    );
    let jitter = prop::collection::vec(0_u64..2_000, 7);
    runner
        .run(&(prop::collection::vec(act(), 1..50), jitter, any::<bool>()), |(mut acts, jitter, insistent)| {
            if !insistent {
                acts.iter_mut().for_each(|act| act.again = 0);
            }
            let mut world = World { now: EPOCH_US, generation: 1, pid: 1001, ..World::default() };
            acts.iter().for_each(|act| world.act(act));
            if world.waiting.is_some() {
                world.act(&Act { again: 0, ..acts[0].clone() });
            }
            let (journal, mut truth) = world.journal(&jitter);
            let mut shown: Vec<_> = reloads(&journal).iter().map(of).collect();
            if insistent {
                prop_assert_eq!(without_jobs(&mut shown), without_jobs(&mut truth));
            }
            prop_assert_eq!(&shown, &truth, "shown:\n{}\ntrue:\n{}", Short(&shown), Short(&truth));
            Ok(())
        })
        .unwrap();
}

/// As it was seen on 257: with `Type=notify-reload` the signal is there before systemd has logged
/// its job.
#[test]
fn a_job_that_is_logged_late_is_no_other_reload() {
    let mut world = World { now: EPOCH_US, generation: 1, pid: 1001, ..World::default() };
    for number in 0..40 {
        let late = [if number % 4 == 0 { 900 + number * 100 } else { 50 }, 10, 10, 10, 10, 10, 10, 10];
        let (by, end, steps) = (By::Waiting, End::HandedOver, [900, 4_000, 600, 800]);
        world.act(&Act { by, end, pause: 500, attention: 100, steps, drain: 1_000, late, again: 0 });
    }
    let (journal, truth) = world.journal(&[0]);
    let shown: Vec<_> = reloads(&journal).iter().map(of).collect();
    assert_eq!(shown.len(), 40, "{}", Short(&shown));
    assert_eq!(shown, truth);
}

/// The clock is set back by an hour in the middle of a reload, and the rows stay in their order.
#[test]
fn a_clock_that_is_set_back() {
    let mut world = World { now: EPOCH_US, generation: 1, pid: 1001, ..World::default() };
    for _ in 0..4 {
        let (by, end, steps) = (By::Waiting, End::HandedOver, [900, 4_000, 600, 800]);
        world.act(&Act { by, end, pause: 1_000_000, attention: 100, steps, drain: 1_000, late: [20; 8], again: 0 });
    }
    let middle = world.entries[world.entries.len() / 2 - 2].0;
    for (at, entry) in &mut world.entries {
        entry["__MONOTONIC_TIMESTAMP"] = json!((*at - EPOCH_US + 7_000_000).to_string());
        if *at >= middle {
            entry["__REALTIME_TIMESTAMP"] = json!((*at - 3_600_000_000).to_string());
        }
    }
    let (journal, truth) = world.journal(&[0]);
    let shown: Vec<_> = reloads(&journal).iter().map(of).collect();
    assert_eq!(shown, truth, "shown:\n{}", Short(&shown));
}

/// Backwards, as `journalctl -r` prints them.
#[test]
fn a_journal_that_is_read_backwards() {
    let journal = Journal::twenty().text;
    let reversed: String = journal.lines().rev().map(|line| format!("{line}\n")).collect();
    assert_eq!(reloads(&journal), reloads(&reversed));
}
