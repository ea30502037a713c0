//! Marks: where each connection is, in memory that outlives the process.
//!
//! A mark is one word: the number of its connection, and whether that is between two requests. A
//! number is never given a second time, so that a copy that was forgotten in some mailbox cannot be
//! taken for a connection that has its place now.
//!
//! A mark says "in the middle" before the first byte of a request can be taken from the socket, and
//! "between" again when the reply is written and nothing was read ahead. So whoever finds it
//! "between" knows that all that the client has sent since is still in the socket.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::words::{self, Words};
use crate::wire::parcel::millis;

/// The most places: as many as connections that a process can have, and not more than this.
const MOST: usize = 1 << PLACE_BITS;
/// How many bits of a number say which place it has.
const PLACE_BITS: u32 = 20;
/// The place of the word that tells when the process was alive last.
const BEAT: usize = 0;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Between two requests: all of a reply is written, and nothing is read.
    Between = 1,
    /// In the middle of a request, or of its reply.
    Middle = 2,
    /// It is still another process's: no copy of ours is of use so far.
    Withheld = 3,
}

/// The marks of one process.
#[derive(Debug)]
pub(super) struct Marks {
    words: Words,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    /// Those that are free again.
    free: Vec<usize>,
    /// The first that nobody has had.
    fresh: usize,
    /// How many numbers were given.
    given: u64,
}

/// The marks that a process has left.
#[derive(Debug)]
pub(crate) struct LeftMarks(Vec<u64>);

fn word(id: u64, state: State) -> u64 {
    id << 2 | state as u64
}

fn place(id: u64) -> usize {
    // no more than PLACE_BITS of it
    usize::try_from(id % (1 << PLACE_BITS)).unwrap_or(BEAT)
}

impl Marks {
    /// Makes room for so many connections.
    pub(super) fn new(connections: usize) -> io::Result<Self> {
        let count =
            NonZeroUsize::MIN.saturating_add(connections).min(NonZeroUsize::new(MOST).unwrap_or(NonZeroUsize::MIN));
        let words = Words::new(c"handover-marks", count)?;
        let places = Mutex::new(Places { free: Vec::new(), fresh: BEAT + 1, given: 0 });
        Ok(Self { words, places })
    }

    /// Gives a new number, and marks its connection so; `None`: there is no place.
    pub(super) fn take(&self, state: State) -> Option<u64> {
        let mut places = self.places();
        let place = match places.free.pop() {
            Some(place) => place,
            None if places.fresh < self.words.count() => {
                places.fresh += 1;
                places.fresh - 1
            }
            None => return None,
        };
        places.given += 1;
        let id = places.given << PLACE_BITS | place as u64;
        drop(places);
        self.set(id, state);
        Some(id)
    }

    #[inline]
    pub(super) fn set(&self, id: u64, state: State) {
        if let Some(mark) = self.words.get(place(id)) {
            mark.store(word(id, state), Ordering::Release);
        }
    }

    /// Ends the number: no copy of its connection is of use from now on.
    pub(super) fn end(&self, id: u64) {
        if let Some(mark) = self.words.get(place(id)) {
            mark.store(0, Ordering::Release);
            self.places().free.push(place(id));
        }
    }

    /// Returns whether it has not ended.
    pub(super) fn has(&self, id: u64) -> bool {
        self.words.get(place(id)).is_some_and(|mark| mark.load(Ordering::Acquire) >> 2 == id)
    }

    /// Notes that this process is alive.
    pub(super) fn beat(&self, now: Duration) {
        if let Some(beat) = self.words.get(BEAT) {
            beat.store(millis(now), Ordering::Release);
        }
    }

    pub(super) fn memfd(&self) -> BorrowedFd<'_> {
        self.words.memfd()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeftMarks {
    /// Reads them.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn read(memfd: OwnedFd) -> io::Result<Self> {
        words::read(memfd, MOST).map(Self)
    }

    /// Returns where a connection was; `None`: it had ended, or was somebody else's. It is between
    /// or in the middle.
    pub(crate) fn of(&self, id: u64) -> Option<State> {
        let found = *self.0.get(place(id)).filter(|_| place(id) != BEAT)?;
        [State::Between, State::Middle].into_iter().find(|state| word(id, *state) == found)
    }

    /// Returns how many connections there were.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().enumerate().filter(|(at, word)| *at != BEAT && **word != 0).count()
    }

    /// Returns when the process was alive, by the clock of a mailbox.
    pub(crate) fn beat(&self) -> Duration {
        Duration::from_millis(self.0.get(BEAT).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(marks: &Marks) -> LeftMarks {
        LeftMarks::read(marks.memfd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_place_is_given_again_and_a_number_never() {
        let marks = Marks::new(2).unwrap();
        let (one, two) = (marks.take(State::Middle).unwrap(), marks.take(State::Between).unwrap());
        assert!(marks.take(State::Between).is_none(), "there are two places");
        marks.end(one);
        let three = marks.take(State::Between).unwrap();
        assert_eq!((place(three), three == one), (place(one), false));
        marks.beat(Duration::from_millis(77));
        let found = left(&marks);
        assert_eq!((found.of(one), found.of(two), found.of(three)), (None, Some(State::Between), Some(State::Between)));
        marks.set(three, State::Middle);
        assert_eq!((left(&marks).of(three), found.beat()), (Some(State::Middle), Duration::from_millis(77)));
        assert!(marks.has(three) && !marks.has(one));
        marks.set(three, State::Withheld);
        assert!(marks.has(three) && left(&marks).of(three).is_none());
        for odd in [0, u64::MAX, 1 << PLACE_BITS, two + (1 << PLACE_BITS)] {
            assert_eq!(found.of(odd), None, "{odd}");
        }
    }
}
