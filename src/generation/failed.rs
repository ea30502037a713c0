//! The file that a generation was started from which failed. It stays where it is, and so a crash
//! of the old generation would start it.

use std::fmt;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that was started, and failed.
#[derive(Debug, Clone)]
pub(crate) struct FailedFile {
    pub(crate) path: PathBuf,
    /// The generation that it was to be.
    pub(crate) generation: u64,
    pub(crate) failed_unix_ms: u64,
    /// `None`: it cannot be read, or nothing here can hash (only the feature `upgrade` brings
    /// that).
    pub(crate) sha256: Option<String>,
    identity: Identity,
}

/// What tells a file from the one that replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let found = metadata(path).ok().filter(|found| found.is_file())?;
        let modified = (found.mtime(), found.mtime_nsec());
        Some(Self { device: found.dev(), inode: found.ino(), size: found.size(), modified })
    }
}

impl FailedFile {
    /// Notes what is at the path now; `None`: there is no file.
    pub(crate) fn at(path: PathBuf, generation: u64) -> Option<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let failed_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Some(Self { identity: Identity::of(&path)?, path, generation, failed_unix_ms, sha256: None })
    }

    /// Reads all of it, so it blocks for as long as the disk takes.
    pub(crate) fn hashed(self) -> Self {
        Self { sha256: hash(&self.path), ..self }
    }

    /// Returns whether nobody has put another file in its place.
    pub(crate) fn is_still_there(&self) -> bool {
        Identity::of(&self.path) == Some(self.identity)
    }
}

impl fmt::Display for FailedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, generation, sha256, .. } = self;
        let of_day = self.failed_unix_ms / 1000 % 86_400;
        let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "a crash would start the file that failed as generation {generation}: {}, ", path.display())?;
        match sha256 {
            Some(sha256) => write!(f, "sha256 {sha256}")?,
            None => write!(f, "{} bytes", self.identity.size)?,
        }
        write!(f, ", at {hours:02}:{minutes:02}:{seconds:02} UTC")
    }
}

/// The hash is for people who compare files; a service that never upgrades itself need not bring a
/// library for it.
#[cfg(not(feature = "upgrade"))]
fn hash(_: &Path) -> Option<String> {
    None
}

#[cfg(feature = "upgrade")]
fn hash(path: &Path) -> Option<String> {
    use std::io::Read as _;

    use sha2::{Digest as _, Sha256};

    const BLOCK: usize = 64 * 1024;
    let (mut file, mut hash, mut block) = (std::fs::File::open(path).ok()?, Sha256::new(), vec![0; BLOCK]);
    loop {
        match file.read(&mut block).ok()? {
            0 => return Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&block[..read]),
        }
    }
}

#[cfg(all(test, feature = "upgrade"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_until_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("web");
        assert!(FailedFile::at(at.clone(), 2).is_none());
        std::fs::write(&at, "abc").unwrap();
        let failed = FailedFile { failed_unix_ms: 86_399_000, ..FailedFile::at(at.clone(), 2).unwrap().hashed() };
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!("a crash would start the file that failed as generation 2: {}, sha256 {abc}", at.display());
        assert_eq!(failed.to_string(), format!("{text}, at 23:59:59 UTC"));
        assert!(failed.is_still_there());
        std::fs::write(directory.path().join("new"), "abc").unwrap();
        std::fs::rename(directory.path().join("new"), &at).unwrap();
        assert!(!failed.is_still_there());
    }
}
