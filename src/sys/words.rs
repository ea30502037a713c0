//! Words that outlive the process that writes them: the memory of a memfd, whose fd somebody else
//! keeps.
//!
//! What a process has stored is there however it ends, SIGKILL included: the memory is the file's.
//!
//! # References
//! mmap(2) `MAP_SHARED`, memfd_create(2).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::sys::memfd::{self, Seals};

const WORD: usize = size_of::<AtomicU64>();

/// Words that are all 0 at first. Only those that are written take memory.
#[derive(Debug)]
pub(crate) struct Words {
    first: NonNull<AtomicU64>,
    count: NonZeroUsize,
    memfd: OwnedFd,
}

// SAFETY: what is pointed to is atomic, and mapped until the last owner drops it.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Makes so many.
    ///
    /// # Errors
    /// There is no fd, or no room in the address space.
    pub(crate) fn new(name: &CStr, count: NonZeroUsize) -> io::Result<Self> {
        let length = count.get().checked_mul(WORD).ok_or(io::ErrorKind::FileTooLarge)?;
        // Its size is sealed: a mapping never faults.
        let memfd = memfd::sized(name, u64::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, anywhere, of a file that is as long as that.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, memfd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(mapped.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, count, memfd })
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: within the mapping, which is aligned to a page and lives as long as `self`.
        (at < self.count.get()).then(|| unsafe { self.first.add(at).as_ref() })
    }

    /// Returns what keeps them when this process is gone.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, of which nobody has a reference any more.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.count.get() * WORD) };
    }
}

/// Reads the words that another process has left, at most so many.
///
/// # Errors
/// It is not what [`Words`] makes, or has more.
pub(crate) fn read(memfd: OwnedFd, most: usize) -> io::Result<Vec<u64>> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    if memfd::seals(memfd.as_fd())? != Seals::Sized {
        return Err(invalid("it is no memory file of a fixed size"));
    }
    let file = File::from(memfd);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > most.saturating_mul(WORD) {
        return Err(invalid("it is longer than any that is made"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.chunks_exact(WORD).filter_map(|word| word.try_into().ok()).map(u64::from_ne_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_written_is_read_by_whoever_has_the_fd() {
        let words = Words::new(c"test", NonZeroUsize::new(1000).unwrap()).unwrap();
        words.get(7).unwrap().store(42, Ordering::Release);
        assert!(words.get(1000).is_none() && words.count() == 1000);
        let memfd = words.memfd().try_clone_to_owned().unwrap();
        drop(words);
        let read = read(memfd.try_clone().unwrap(), 1000).unwrap();
        assert_eq!((read.len(), read[7], read[8]), (1000, 42, 0));
        assert!(super::read(memfd, 999).unwrap_err().to_string().contains("longer"));
        let other = memfd::sealed(c"test", b"12345678").unwrap();
        assert!(super::read(other, 1000).unwrap_err().to_string().contains("no memory file of a fixed size"));
    }
}
