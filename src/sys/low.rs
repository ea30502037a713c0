//! Low fd numbers, held for those that the next start passes on: then the new process needs a copy
//! of a short table only, however many connections have the numbers above.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use nix::unistd::dup3;

use crate::sys::socket::duplicate_above;

/// The first fd that sd_listen_fds(3) looks at.
pub(crate) const LISTEN_FDS_START: RawFd = 3;

/// Numbers that are open with nothing behind them.
#[derive(Debug)]
pub(crate) struct LowFds {
    /// The read end of a pipe without a writer.
    nothing: OwnedFd,
    slots: Mutex<Vec<OwnedFd>>,
}

/// Copies at held numbers, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    nothing: &'a OwnedFd,
    slots: MutexGuard<'a, Vec<OwnedFd>>,
    count: usize,
}

impl LowFds {
    /// Holds the lowest numbers that are free now and beyond what as many passed fds become.
    pub(crate) fn hold(count: usize) -> io::Result<Self> {
        let beyond = RawFd::try_from(count).ok().and_then(|count| count.checked_add(LISTEN_FDS_START));
        let beyond = beyond.ok_or(io::ErrorKind::InvalidInput)?;
        let nothing = OwnedFd::from(io::pipe()?.0);
        let slots = (0..count).map(|_| duplicate_above(nothing.as_fd(), beyond)).collect::<io::Result<_>>()?;
        Ok(Self { nothing, slots: Mutex::new(slots) })
    }

    /// Copies the fds to the held numbers. It returns `None` if they are more than are held.
    pub(crate) fn place(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Placed<'_>>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if fds.len() > slots.len() {
            return Ok(None);
        }
        let mut placed = Placed { nothing: &self.nothing, slots, count: 0 };
        for fd in fds {
            dup3(fd, &mut placed.slots[placed.count], OFlag::O_CLOEXEC)?;
            placed.count += 1;
        }
        Ok(Some(placed))
    }
}

impl Placed<'_> {
    pub(crate) fn numbers(&self) -> Vec<RawFd> {
        self.slots[..self.count].iter().map(|slot| slot.as_raw_fd()).collect()
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        for slot in &mut self.slots[..self.count] {
            // cannot fail: both are open
            let _ = dup3(self.nothing, slot, OFlag::O_CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe, write};
    use std::io::Read as _;

    #[test]
    fn copies_are_low_and_closed_again() {
        let low = LowFds::hold(2).unwrap();
        let held: Vec<_> = low.slots.lock().unwrap().iter().map(|slot| slot.as_raw_fd()).collect();
        let (read, write_end) = pipe().unwrap();
        let mut read = std::fs::File::from(read);
        let above: Vec<_> = (0..3).map(|_| duplicate_above(write_end.as_fd(), 500).unwrap()).collect();
        drop(write_end);
        let fds: Vec<_> = above.iter().map(|fd| fd.as_fd()).collect();
        assert!(low.place(&fds).unwrap().is_none(), "only two are held");
        for _ in 0..2 {
            let placed = low.place(&fds[..2]).unwrap().unwrap();
            assert_eq!(placed.numbers(), held);
            assert!(held.iter().all(|number| (5..500).contains(number)), "{held:?}");
            write(&placed.slots[1], b"x").unwrap();
            let mut byte = [0];
            read.read_exact(&mut byte).unwrap();
        }
        drop(above);
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "nobody has the write end any more");
    }
}
