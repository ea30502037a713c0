//! A version of a program: the file that was started, kept so that it can be started again after
//! its path has another one.
//!
//! It is kept by an open fd, which a file that is renamed over it does not end. That works for what
//! the kernel loads itself (ELF). Of a script it would keep the first file and not what that reads,
//! so there is none.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use crate::sys::socket::duplicate_above;

/// Keeps one version.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    file: Arc<File>,
    id: Id,
}

/// Tells versions apart: another one means another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Image {
    /// Opens the version at the path. `None`: it is a script, or nothing that can be read.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        // Whatever is there: to open a FIFO would wait for a writer.
        Self::of(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?)
    }

    pub(crate) fn of(mut file: File) -> Option<Self> {
        use std::io::Seek as _;
        let mut magic = [0; 4];
        file.rewind().ok()?;
        file.read_exact(&mut magic).ok()?;
        let id = Id::of(&file)?;
        (magic == *b"\x7fELF").then(|| Self { file: Arc::new(file), id })
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the file still is what it was. False: it was written over in place.
    pub(crate) fn is_intact(&self) -> bool {
        Id::of(&self.file) == Some(self.id)
    }

    /// Makes an fd of a number above `above`; it is the program at `/proc/self/fd/…`.
    pub(crate) fn fd_above(&self, above: RawFd) -> std::io::Result<OwnedFd> {
        duplicate_above(self.file.as_fd(), above)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn path_of(fd: &OwnedFd) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }
}

impl Id {
    fn of(file: &File) -> Option<Self> {
        let of = file.metadata().ok()?;
        // Not ctime: a rename over the path changes the link count, and with it ctime.
        let changed = (of.mtime(), of.mtime_nsec());
        Some(Self { device: of.dev(), inode: of.ino(), size: of.size(), changed })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_version_outlives_its_path_but_not_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        std::fs::write(&path, b"#!/bin/sh\n").unwrap();
        assert!(Image::at(&path).is_none(), "a script");
        std::fs::write(&path, b"\x7fELF one").unwrap();
        let first = Image::at(&path).unwrap();
        let new = directory.path().join("new");
        std::fs::write(&new, b"\x7fELF two").unwrap();
        std::fs::rename(&new, &path).unwrap();
        let second = Image::at(&path).unwrap();
        assert!(first.is_intact() && !first.is(&second) && first.is(&first.clone()));
        let fd = first.fd_above(50).unwrap();
        assert!(fd.as_raw_fd() >= 50);
        assert_eq!(std::fs::read(Image::path_of(&fd)).unwrap(), b"\x7fELF one");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert!(!second.is_intact());
        assert!(Image::at(Path::new("/nonexistent")).is_none());
    }
}
