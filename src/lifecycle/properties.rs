//! Random orders of events over a whole line of generations: the promises hold in each.
//!
//! The world below delivers messages between generations in any order that sockets allow, lets new
//! versions fail at any point, crashes main generations, and asks for reloads and stops whenever it
//! likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};

use super::table::config;
use super::{Action, Config, Event, LifeState, Machine, ReloadAnswer};

#[derive(Debug, Clone)]
enum Step {
    Reload,
    Stop,
    /// The same, and the main generation knows that it is a restart.
    Restart,
    /// The generation that is starting fails in its own way.
    FailNext,
    /// It never gets further.
    HangNext,
    /// The service manager is too busy to confirm the handover.
    LoseBarrier,
    /// SIGKILL of the oldest main generation.
    CrashMain,
    /// SIGKILL of the newest generation.
    CrashNewest,
    /// Deliver one message to the n-th generation that has one.
    Deliver(usize),
    /// If no message is on its way: let time pass until the deadline of the n-th generation.
    Time(usize),
}

fn steps(faults: bool, stops: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Reload),
        u32::from(stops) => Just(Step::Stop),
        u32::from(stops) => Just(Step::Restart),
        u32::from(faults) * 2 => Just(Step::FailNext),
        u32::from(faults) => Just(Step::HangNext),
        u32::from(faults) => Just(Step::LoseBarrier),
        u32::from(faults) => Just(Step::CrashMain),
        u32::from(faults) => Just(Step::CrashNewest),
        14 => (0..4usize).prop_map(Step::Deliver),
        3 => (0..4usize).prop_map(Step::Time),
    ];
    prop::collection::vec(step, 1..120)
}

struct Generation {
    machine: Machine,
    inbox: VecDeque<Event>,
    open: bool,
    alive: bool,
    next: Option<usize>,
    previous: Option<usize>,
    crashed_neighbour: bool,
}

struct World {
    now: Instant,
    config: Config,
    line: Vec<Generation>,
    /// What the service manager believes.
    main: usize,
    reloading: bool,
    stopping: bool,
    crashed: bool,
    asked: u64,
    answers: BTreeMap<u64, ReloadAnswer>,
}

impl World {
    fn new(config: Config) -> Self {
        let mut world = Self {
            now: Instant::now(),
            config,
            line: Vec::new(),
            main: 0,
            reloading: false,
            stopping: false,
            crashed: false,
            asked: 0,
            answers: BTreeMap::new(),
        };
        world.spawn(None);
        world.feed(0, Event::Started);
        world
    }

    fn spawn(&mut self, previous: Option<usize>) -> usize {
        let config = Config { successor: previous.is_some(), ..self.config.clone() };
        self.line.push(Generation {
            machine: Machine::new(config),
            inbox: VecDeque::new(),
            open: false,
            alive: true,
            next: None,
            previous,
            crashed_neighbour: false,
        });
        self.line.len() - 1
    }

    fn feed(&mut self, who: usize, event: Event) {
        let actions = self.line[who].machine.handle(self.now, event);
        self.perform(who, actions);
    }

    fn send(&mut self, to: Option<usize>, event: Event) {
        if let Some(to) = to.filter(|&to| self.line[to].alive) {
            self.line[to].inbox.push_back(event);
        }
    }

    fn perform(&mut self, who: usize, actions: Vec<Action>) {
        let from_main = who == self.main;
        for action in actions {
            let (next, previous) = (self.line[who].next, self.line[who].previous);
            match action {
                Action::TellReady | Action::TellRolledBack(_) if from_main => self.reloading = false,
                Action::TellReloading if from_main => self.reloading = true,
                Action::TellHandover => {
                    if from_main {
                        if let Some(next) = next.filter(|&n| self.line[n].alive) {
                            self.main = next;
                        }
                        self.reloading = false;
                    }
                    self.line[who].inbox.push_back(Event::Barrier);
                }
                Action::TellReclaim if from_main => self.reloading = false,
                Action::Spawn => {
                    let child = self.spawn(Some(who));
                    self.line[who].next = Some(child);
                    self.line[child].inbox.push_back(Event::Started);
                }
                Action::SendSwitch => self.send(next, Event::Switch),
                Action::SendMain { reload, stop } => self.send(next, Event::Main { reload, stop }),
                Action::EndNext { .. } => {
                    self.send(next, Event::Dismissed);
                    self.line[who].next = None;
                }
                Action::SayReady => self.send(previous, Event::NextReady),
                Action::SaySwitched => self.send(previous, Event::NextSwitched),
                Action::OpenGate => self.line[who].open = true,
                Action::ShutGate => {
                    self.line[who].open = false;
                    self.line[who].inbox.push_back(Event::GateShut);
                }
                Action::Settle => self.line[who].inbox.push_back(Event::Settled),
                Action::BeginDrain { .. } => self.line[who].inbox.push_back(Event::Drained),
                Action::Answer(ids, outcome) => {
                    for id in ids {
                        assert!(self.answers.insert(id, outcome.clone()).is_none(), "request {id} was answered twice");
                    }
                }
                Action::Exit(_) => self.gone(who),
                _ => {}
            }
        }
        self.check();
    }

    fn gone(&mut self, who: usize) {
        self.line[who].alive = false;
        self.line[who].open = false;
        let previous = self.line[who].previous;
        let handed_over = previous.is_some_and(|p| self.line[p].machine.state() == LifeState::Draining);
        if previous.is_some_and(|p| self.line[p].next == Some(who)) {
            let event = if handed_over { Event::SuccessorGone } else { Event::NextFailed("gone".into()) };
            self.send(previous, event);
        }
        let next = self.line[who].next;
        self.send(next, Event::PredecessorGone);
    }

    fn crash(&mut self, who: usize) {
        if !self.line[who].alive {
            return;
        }
        self.crashed |= who == self.main;
        for neighbour in [self.line[who].previous, self.line[who].next].into_iter().flatten() {
            self.line[neighbour].crashed_neighbour = true;
        }
        self.line[who].inbox.clear();
        self.gone(who);
    }

    fn check(&self) {
        let mains: Vec<usize> = (0..self.line.len())
            .filter(|&i| self.line[i].alive)
            .filter(|&i| {
                matches!(
                    self.line[i].machine.state(),
                    LifeState::Serving
                        | LifeState::Reloading(_)
                        | LifeState::HandingOver
                        | LifeState::Leaving
                        | LifeState::Stopping
                )
            })
            .collect();
        assert!(mains.len() <= 1, "generations {mains:?} all believe that they are main");
        // Between the death of the one that accepts and the moment when its neighbour hears of it,
        // the kernel queues.
        let unheard = |e: &Event| matches!(e, Event::NextFailed(_));
        let heard = !self.line.iter().any(|g| g.alive && g.inbox.iter().any(unheard));
        if !self.stopping && !self.crashed && heard {
            assert!(self.line.iter().any(|g| g.alive && g.open), "nobody accepts");
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Reload if !self.line[self.main].alive => {}
            Step::Reload => {
                self.asked += 1;
                let id = self.asked;
                self.feed(self.main, Event::Reload(id));
            }
            Step::Stop | Step::Restart => {
                self.stopping = true;
                for who in 0..self.line.len() {
                    if self.line[who].alive {
                        let knows = who == self.main && matches!(step, Step::Restart);
                        self.feed(who, if knows { Event::Restart } else { Event::Stop });
                    }
                }
            }
            Step::FailNext => {
                let newest = self.line.len() - 1;
                if self.line[newest].alive && self.line[newest].machine.state() == LifeState::Starting {
                    self.line[newest].inbox.clear();
                    self.gone(newest);
                }
            }
            Step::HangNext => {
                let newest = self.line.len() - 1;
                if self.line[newest].machine.state() == LifeState::Starting {
                    self.line[newest].inbox.retain(|e| !matches!(e, Event::Started));
                }
            }
            Step::LoseBarrier => {
                self.line.iter_mut().for_each(|g| g.inbox.retain(|e| !matches!(e, Event::Barrier)));
            }
            Step::CrashMain => self.crash(self.main),
            Step::CrashNewest => self.crash(self.line.len() - 1),
            Step::Deliver(n) => {
                let waiting: Vec<usize> =
                    (0..self.line.len()).filter(|&i| self.line[i].alive && !self.line[i].inbox.is_empty()).collect();
                if let Some(&who) = waiting.get(n % waiting.len().max(1)) {
                    let event = self.line[who].inbox.pop_front().expect("it has one");
                    self.feed(who, event);
                }
            }
            Step::Time(_) if self.line.iter().any(|g| g.alive && !g.inbox.is_empty()) => {}
            Step::Time(n) => {
                let timed: Vec<usize> = (0..self.line.len())
                    .filter(|&i| self.line[i].alive && self.line[i].machine.deadline().is_some())
                    .collect();
                if let Some(&who) = timed.get(n % timed.len().max(1)) {
                    self.now = self.now.max(self.line[who].machine.deadline().expect("it has one"));
                    let actions = self.line[who].machine.timeout(self.now);
                    self.perform(who, actions);
                }
            }
        }
    }

    /// Deliver all there is, and let time pass, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.line.iter().any(|g| g.alive && !g.inbox.is_empty()) {
                self.step(&Step::Deliver(0));
            } else if self.line.iter().any(|g| g.alive && g.machine.deadline().is_some()) {
                self.step(&Step::Time(0));
            } else {
                return;
            }
        }
        panic!("the world does not come to rest");
    }
}

fn run(faults: bool, stops: bool, seed: u8, probation: Duration, managed: bool) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let runs = Runs { cases: 400, failure_persistence: None, ..Runs::default() };
    let config = Config { probation, managed, ..config() };
    TestRunner::new_with_rng(runs, rng)
        .run(&steps(faults, stops), |steps| {
            let mut world = World::new(config.clone());
            for step in &steps {
                world.step(step);
            }
            world.settle();
            let lost: Vec<u64> = (1..=world.asked).filter(|id| !world.answers.contains_key(id)).collect();
            // A killed process answers nobody; what it was asked dies with it.
            prop_assert!(lost.is_empty() || world.crashed, "reload requests {lost:?} were never answered");
            prop_assert!(!world.reloading || world.crashed || world.stopping, "RELOADING=1 without READY=1");
            if !world.stopping && !world.crashed {
                let main = &world.line[world.main];
                prop_assert!(main.alive && main.open, "the manager's main process does not serve");
                prop_assert_eq!(main.machine.state(), LifeState::Serving);
            }
            if world.stopping {
                prop_assert!(world.line.iter().all(|g| !g.alive || g.crashed_neighbour), "a stopped service lives on");
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
}

#[test]
fn promises_hold_without_faults() {
    run(false, false, 1, Duration::ZERO, true);
    run(false, false, 2, Duration::from_secs(10), true);
}

#[test]
fn promises_hold_when_new_versions_fail_and_processes_die() {
    run(true, false, 3, Duration::ZERO, true);
    run(true, false, 4, Duration::from_secs(10), true);
    run(true, false, 5, Duration::from_secs(10), false);
}

#[test]
fn promises_hold_when_the_service_is_stopped_at_any_moment() {
    run(false, true, 6, Duration::ZERO, true);
    run(true, true, 7, Duration::from_secs(10), true);
    run(true, true, 8, Duration::ZERO, false);
}
