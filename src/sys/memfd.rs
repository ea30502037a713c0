//! Memory files: bytes that two processes share, sealed so that nobody can change them, or changed
//! under a lock.
//!
//! # References
//! memfd_create(2), fcntl(2) "Open file description locks", fallocate(2).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Makes a memfd that holds these bytes and can never change again.
pub(crate) fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = create(name)?;
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file.into())
}

/// Makes an empty memfd, to be written and then [sealed](seal).
pub(crate) fn create(name: &CStr) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?))
}

/// Seals the file, so that nobody can change it any more.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Makes a memfd of that size for ever, so that a mapping of it never faults.
pub(crate) fn sized(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    let file = create(name)?;
    file.set_len(size)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Seals the file so that it can be written and can grow, but what is there stays, for ever.
pub(crate) fn seal_growing(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

/// Opens the same memory as an open file of its own: with locks and a position that no other holder
/// of `fd` shares.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Gives the memory of these bytes back; they are zero then.
pub(crate) fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let off_t = |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, off_t(offset)?, off_t(length)?)?)
}

/// What a lock is on. A byte of the file each, which need not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// What the file says.
    Content = 0,
    /// That there is somebody who has it open.
    Presence = 1,
    /// Who is the next to have the content.
    Turn = 2,
}

impl Lock {
    /// Tries to take the lock; false means that somebody else has it. The lock is the open file's,
    /// and ends with it: with the process at the latest.
    pub(crate) fn try_take(self, file: &File, exclusive: bool) -> io::Result<bool> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&self.describe(kind))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn release(self, file: &File) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&self.describe(libc::F_UNLCK)))?;
        Ok(())
    }

    /// Returns whether another open file has the lock.
    pub(crate) fn is_elsewhere(self, file: &File) -> io::Result<bool> {
        let mut lock = self.describe(libc::F_WRLCK);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
    }

    #[expect(clippy::cast_possible_truncation, reason = "constants of the kernel's, which fit")]
    fn describe(self, kind: libc::c_int) -> libc::flock {
        // An open file's locks have no process: l_pid must be 0.
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self as libc::off_t,
            l_len: 1,
            l_pid: 0,
        }
    }
}

/// What can still happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seals {
    /// It is no memfd.
    NoMemfd,
    /// It can change in size.
    Loose,
    /// It can be written and can grow, and that cannot be changed.
    Growing,
    /// Its size is fixed.
    Sized,
    /// It never changes.
    Sealed,
}

pub(crate) fn seals(fd: BorrowedFd<'_>) -> io::Result<Seals> {
    let seals = match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(seals) => SealFlag::from_bits_truncate(seals),
        Err(Errno::EINVAL) => return Ok(Seals::NoMemfd),
        Err(error) => return Err(error.into()),
    };
    let sized = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    Ok(match seals {
        seals if seals.contains(sized | SealFlag::F_SEAL_WRITE) => Seals::Sealed,
        seals if seals.contains(sized) => Seals::Sized,
        // Others, as the kernel adds on its own against execution, do not matter.
        seals
            if seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL)
                && !seals.intersects(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE) =>
        {
            Seals::Growing
        }
        _ => Seals::Loose,
    })
}

/// Reads all bytes of it.
pub(crate) fn read(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
