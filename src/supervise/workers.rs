//! The workers, and the generations that each is made of: a main one, perhaps a next one, and those
//! that drain.

use std::collections::BTreeMap;

use crate::supervise::crash::LastGood;
use crate::supervise::generation::ProgramGeneration;
use crate::supervise::image::Image;
use crate::supervise::terms::Senders;

/// One of the workers, by whatever generation.
#[derive(Debug, Clone, Default)]
struct WorkerSlot {
    main: Option<u64>,
    /// The generation that is on its way to be main.
    next: Option<u64>,
    /// The newest generation that was tried.
    newest: u64,
    /// The version that was started last.
    image: Option<Image>,
}

/// All generations of the program.
#[derive(Debug)]
pub(crate) struct Workers {
    slots: Vec<WorkerSlot>,
    generations: BTreeMap<u64, ProgramGeneration>,
    last_number: u64,
    /// The last version that was good.
    good: Option<Image>,
}

impl Workers {
    /// Numbers the generations from that number on.
    pub(crate) fn new(count: usize, last_number: u64, good: Option<Image>) -> Self {
        Self { slots: vec![WorkerSlot::default(); count], generations: BTreeMap::new(), last_number, good }
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no generation left.
    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&ProgramGeneration> {
        self.generations.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut ProgramGeneration> {
        self.generations.get_mut(&number)
    }

    /// All generations, the oldest first.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &ProgramGeneration> {
        self.generations.values()
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.generations.keys().copied().collect()
    }

    pub(crate) fn main(&self, slot: usize) -> Option<&ProgramGeneration> {
        self.get(self.slots[slot].main?)
    }

    pub(crate) fn next(&self, slot: usize) -> Option<&ProgramGeneration> {
        self.get(self.slots[slot].next?)
    }

    /// The main generation of the worker that this generation is of.
    pub(crate) fn main_beside(&self, number: u64) -> Option<&ProgramGeneration> {
        self.main(self.get(number)?.slot)
    }

    /// The next generation of the worker that this generation is of.
    pub(crate) fn next_beside(&self, number: u64) -> Option<&ProgramGeneration> {
        self.next(self.get(number)?.slot)
    }

    /// The newest of the main generations.
    pub(crate) fn newest_main(&self) -> Option<&ProgramGeneration> {
        self.serving().max_by_key(|main| main.number)
    }

    /// The main generations, one of each worker that has one.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &ProgramGeneration> {
        self.slots.iter().filter_map(|worker| self.get(worker.main?))
    }

    /// Whether each worker has a main generation.
    pub(crate) fn all_serve(&self) -> bool {
        self.slots.iter().all(|worker| worker.main.is_some())
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The newest generation of the worker that was tried.
    pub(crate) fn newest(&self, slot: usize) -> u64 {
        self.slots[slot].newest
    }

    /// The generation that a notification of that process counts as one of.
    pub(crate) fn sender(&self, pid: u32, senders: Senders) -> Option<u64> {
        let own = self.all().find(|of| of.pid() == pid && !of.ended);
        let any = || self.all().find(|of| senders == Senders::All && of.process.family.has(pid));
        own.or_else(any).map(|of| of.number)
    }

    /// Numbers a generation of the worker that is about to be started.
    pub(crate) fn number_next(&mut self, slot: usize) -> u64 {
        self.last_number += 1;
        self.slots[slot].newest = self.last_number;
        self.last_number
    }

    /// The generation was started, and is the next one of its worker.
    pub(crate) fn started(&mut self, generation: ProgramGeneration) {
        let worker = &mut self.slots[generation.slot];
        worker.next = Some(generation.number);
        worker.image.clone_from(&generation.process.image);
        self.generations.insert(generation.number, generation);
    }

    /// Takes a generation that another process started, and that serves or drains.
    pub(crate) fn adopt(&mut self, generation: ProgramGeneration) {
        let serves = generation.drains_since.is_none();
        if let Some(worker) = self.slots.get_mut(generation.slot).filter(|_| serves) {
            worker.main = Some(generation.number);
            worker.image.clone_from(&generation.process.image);
        }
        self.generations.insert(generation.number, generation);
    }

    /// The generation is main; the number of the one before it is returned.
    pub(crate) fn crown(&mut self, slot: usize, number: u64) -> Option<u64> {
        self.slots[slot].next = None;
        self.slots[slot].main.replace(number)
    }

    /// The main generation of the worker has crashed; its next one is returned.
    pub(crate) fn lose_main(&mut self, slot: usize) -> Option<u64> {
        self.slots[slot].main = None;
        self.slots[slot].next
    }

    /// Nothing will come of the next generation of the worker.
    pub(crate) fn take_next(&mut self, slot: usize) -> Option<u64> {
        self.slots[slot].next.take()
    }

    /// No process of the generation is left.
    pub(crate) fn remove(&mut self, number: u64) {
        self.generations.remove(&number);
    }

    /// The version that the worker can go back to, and how that relates to what it ran last.
    pub(crate) fn last_good(&self, slot: usize) -> (LastGood, Option<Image>) {
        let good = self.good.clone().filter(Image::is_intact);
        let relation = match (&good, &self.slots[slot].image) {
            (None, _) => LastGood::Missing,
            (Some(good), Some(last)) if last.is(good) => LastGood::Same,
            (Some(_), _) => LastGood::Older,
        };
        (relation, good)
    }

    /// The version of this generation is the one to go back to.
    pub(crate) fn is_good(&mut self, number: u64) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.good = true;
        self.good = generation.process.image.clone().or(self.good.take());
    }

    pub(crate) fn good(&self) -> Option<&Image> {
        self.good.as_ref()
    }
}
