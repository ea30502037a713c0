//! The driver: one event at a time, through the lifecycle of the generation that it happens to.
//!
//! ```text
//! input ──► Parts::take ──► event ──► Machine ──► action ──► Parts::perform
//!                 ▲                                                 │
//!                 └───────────── events that follow ◄───────────────┘
//! ```
//!
//! The way is one way: a part never calls the driver, it leaves an event in [`Lifecycles`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::lifecycle::{Action, Event, LifeState, Machine};
use crate::reload::clock::{at, now};

/// So many inputs in a row are taken before a deadline that has passed: whoever says a lot must not
/// keep the time from passing.
const MAX_INPUTS: usize = 64;

/// What the driver drives: everything that has an effect outside of the lifecycle.
pub(crate) trait Parts {
    /// What comes from outside: signals, requests, other generations, what tasks have found out.
    type Input;

    /// Waits for the next input.
    ///
    /// # Cancel safety
    /// No input is lost.
    async fn next(&mut self) -> Self::Input;

    /// Takes an input, and leaves the events that it means.
    fn take(&mut self, lives: &mut Lifecycles, input: Self::Input);

    fn perform(&mut self, lives: &mut Lifecycles, number: u64, action: Action);

    /// Takes notice that a generation is in another state; its actions follow.
    fn entered(&mut self, number: u64, state: LifeState);

    /// Names the event of a deadline that has passed; `None` leaves it to the lifecycle.
    fn overdue(&self, number: u64, state: LifeState) -> Option<Event>;

    /// Tells when [`Parts::on_time`] must be called, if nothing happens before.
    fn deadline(&self, _lives: &Lifecycles) -> Option<Instant> {
        None
    }

    fn on_time(&mut self, _lives: &mut Lifecycles, _now: Instant) {}

    /// Takes notice that all that followed from an input is done.
    fn settled(&mut self, _lives: &mut Lifecycles) {}

    fn is_over(&self, lives: &Lifecycles) -> bool;
}

/// The lifecycles of the generations that are driven, and the events that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Lifecycles {
    machines: BTreeMap<u64, Machine>,
    queue: VecDeque<(u64, Event)>,
}

impl Lifecycles {
    pub(crate) fn insert(&mut self, number: u64, machine: Machine) {
        self.machines.insert(number, machine);
    }

    /// Forgets a generation. Events that still come for it mean nothing.
    #[cfg(feature = "supervise")]
    pub(crate) fn remove(&mut self, number: u64) {
        self.machines.remove(&number);
    }

    /// Where a generation is in its life. One that is not there is over.
    pub(crate) fn state(&self, number: u64) -> LifeState {
        self.machines.get(&number).map_or(LifeState::Exited, Machine::state)
    }

    /// Leaves an event; it is handled when everything before it has been.
    pub(crate) fn push(&mut self, number: u64, event: Event) {
        self.queue.push_back((number, event));
    }

    /// Whether no event waits.
    #[cfg(feature = "supervise")]
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives the next generation of this one more time to get ready.
    #[cfg(feature = "supervise")]
    pub(crate) fn extend(&mut self, number: u64, until: Instant) {
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.extend(until);
        }
    }

    /// Gives a generation that drains so much more time.
    pub(crate) fn postpone(&mut self, number: u64, by: Duration) {
        if let Some(machine) = self.machines.get_mut(&number) {
            machine.postpone(by);
        }
    }

    /// When the present state of a generation ends by itself.
    #[cfg(feature = "supervise")]
    pub(crate) fn deadline_of(&self, number: u64) -> Option<Instant> {
        self.machines.get(&number)?.deadline()
    }

    fn deadline(&self) -> Option<Instant> {
        self.machines.values().filter_map(Machine::deadline).min()
    }

    fn overdue(&self, now: Instant) -> Vec<(u64, LifeState)> {
        let overdue = self.machines.iter().filter(|(_, machine)| machine.deadline().is_some_and(|at| at <= now));
        overdue.map(|(number, machine)| (*number, machine.state())).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Driver<P> {
    lives: Lifecycles,
    parts: P,
}

impl<P: Parts> Driver<P> {
    pub(crate) fn new(lives: Lifecycles, parts: P) -> Self {
        Self { lives, parts }
    }

    /// Runs until the parts say that it is over, and returns them for their end.
    pub(crate) async fn run(mut self) -> P {
        let mut taken = 0;
        loop {
            self.settle();
            if self.parts.is_over(&self.lives) {
                return self.parts;
            }
            let own = self.parts.deadline(&self.lives);
            let deadline = [self.lives.deadline(), own].into_iter().flatten().min();
            if taken >= MAX_INPUTS && deadline.is_some_and(|at| at <= now()) {
                taken = 0;
                self.on_time(now());
                continue;
            }
            tokio::select! {
                // Whoever was ready in time is, also where this process was late to see it.
                biased;
                input = self.parts.next() => {
                    taken += 1;
                    self.parts.take(&mut self.lives, input);
                }
                () = at(deadline) => {
                    taken = 0;
                    self.on_time(now());
                }
            }
        }
    }

    fn settle(&mut self) {
        loop {
            while let Some((number, event)) = self.lives.queue.pop_front() {
                self.step(number, |machine| {
                    let shown = format!("{event:?}");
                    (machine.handle(now(), event), shown)
                });
            }
            self.parts.settled(&mut self.lives);
            if self.lives.queue.is_empty() {
                return;
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        for (number, state) in self.lives.overdue(now) {
            match self.parts.overdue(number, state) {
                Some(event) => self.lives.push(number, event),
                None => self.step(number, |machine| (machine.timeout(now), "timeout".to_owned())),
            }
        }
        self.parts.on_time(&mut self.lives, now);
    }

    fn step(&mut self, number: u64, change: impl FnOnce(&mut Machine) -> (Vec<Action>, String)) {
        let Some(machine) = self.lives.machines.get_mut(&number) else { return };
        let before = machine.state();
        let (actions, event) = change(machine);
        let after = machine.state();
        if before != after {
            debug!(generation = number, ?before, ?after, event, "state");
            self.parts.entered(number, after);
        }
        for action in actions {
            self.parts.perform(&mut self.lives, number, action);
        }
    }
}
