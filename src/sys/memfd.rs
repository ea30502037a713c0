//! Sealed memory files: bytes that two processes can share and nobody can change.
//!
//! # References
//! memfd_create(2).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A memfd that holds these bytes and can never change again.
pub(crate) fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = create(name)?;
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file.into())
}

/// An empty one, to be written and then [sealed](seal).
pub(crate) fn create(name: &CStr) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?))
}

/// Nobody can change it any more.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Of that size for ever, so that a mapping of it never faults.
pub(crate) fn sized(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    let file = create(name)?;
    file.set_len(size)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// What can still happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seals {
    /// It is no memfd.
    NoMemfd,
    /// It can change in size.
    Loose,
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
        _ => Seals::Loose,
    })
}

/// All bytes of it.
pub(crate) fn read(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
