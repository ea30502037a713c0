//! The program's file, the versions beside it, and who may touch them. All of it blocks.
//!
//! Every version lies under its SHA-256 in a directory beside the program, and the program is a
//! second name of one of them, put there by rename(2). So a step back is one rename, as a step
//! forward is, and there is no moment at which the program's name is missing or is that of half a
//! file. Not `web.1`, `web.2`, … as logs are rotated: that takes as many renames as versions are
//! kept.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::sys::lease::is_written;
use crate::upgrade::trust::{each_chunk, hex};

/// How long somebody may still have a candidate open for writing.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(10);

const CANDIDATE: &str = "candidate";
const LINK: &str = "link";

/// Ours alone while it lives.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) program: PathBuf,
    /// The directory `.NAME.handover` beside the program.
    directory: PathBuf,
    _lock: Flock<File>,
}

/// What a file was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramFile {
    pub(crate) sha256: String,
    identity: (u64, u64, i64, i64, u64),
    mode: u32,
    owner: (u32, u32),
}

impl Place {
    /// Takes the lock.
    pub(crate) fn open(program: &Path) -> Result<Self> {
        let invalid = |why: &str| Error::new(Kind::Invalid, format!("{} {why}", program.display()));
        let (Some(parent), Some(name)) = (program.parent(), program.file_name()) else {
            return Err(invalid("is no program's path"));
        };
        if !program.is_absolute() {
            return Err(invalid("is not absolute"));
        }
        let meta = fs::symlink_metadata(program).map_err(|e| cannot("looked at", program, e))?;
        if meta.is_symlink() {
            let to = fs::read_link(program).unwrap_or_default();
            let why = format!("is a symbolic link to {}: say that path, or let go who manages the link", to.display());
            return Err(invalid(&why));
        }
        if !meta.is_file() {
            return Err(invalid("is no file"));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".handover");
        let directory = parent.join(hidden);
        for made in [&directory, &directory.join("versions")] {
            match DirBuilder::new().mode(0o700).create(made) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(cannot("made", made, e)),
                _ => {}
            }
        }
        // Who could put a link here could make us write elsewhere.
        let meta = fs::symlink_metadata(&directory).map_err(|e| cannot("looked at", &directory, e))?;
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            let why = "is not a directory that only this user can write to: see who made it";
            return Err(Error::new(Kind::Invalid, format!("{} {why}", directory.display())));
        }
        let lock = lock(&directory.join("lock"), program)?;
        let place = Self { program: program.to_owned(), directory, _lock: lock };
        // Of one that was killed; nobody else is here.
        for left in [CANDIDATE, LINK] {
            let _ = fs::remove_file(place.directory.join(left));
        }
        Ok(place)
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn version(&self, sha256: &str) -> PathBuf {
        self.directory.join("versions").join(sha256)
    }

    /// Looks at the program as it is now.
    pub(crate) fn look(&self) -> Result<ProgramFile> {
        let meta = fs::symlink_metadata(&self.program).map_err(|e| cannot("looked at", &self.program, e))?;
        let sha256 = hash(&self.program)?;
        Ok(ProgramFile {
            sha256,
            identity: (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()),
            mode: meta.mode() & 0o777,
            owner: (meta.uid(), meta.gid()),
        })
    }

    /// Returns whether the program is still that one.
    pub(crate) fn is(&self, program: &ProgramFile) -> bool {
        let meta = fs::symlink_metadata(&self.program).ok();
        let now = meta.map(|meta| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()));
        now == Some(program.identity)
    }

    /// Makes a new file that nobody else can read.
    pub(crate) fn candidate(&self) -> Result<(File, PathBuf)> {
        let path = self.directory.join(CANDIDATE);
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.map(|file| (file, path.clone())).map_err(|e| cannot("made", &path, e))
    }

    /// Gives it the rights of the one that it shall replace, and puts it on the disk. The
    /// rights do not include set-user-id and the like.
    pub(crate) fn ready(&self, candidate: &Path, like: &ProgramFile) -> Result<()> {
        let failed = |e| cannot("prepared", candidate, e);
        let file = File::open(candidate).map_err(failed)?;
        let deadline = Instant::now() + WRITERS_TIMEOUT;
        // A child that another thread has just started has a copy of our fd until it executes its
        // program.
        while is_written(&file) {
            if Instant::now() >= deadline {
                return Err(failed(io::ErrorKind::ExecutableFileBusy.into()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        let (uid, gid) = like.owner;
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if (uid, gid) != own {
            // Only root can; for others the program is theirs from now on, which it is by the
            // rights of the directory.
            match std::os::unix::fs::chown(candidate, Some(uid), Some(gid)) {
                Err(e) if e.kind() != io::ErrorKind::PermissionDenied => return Err(failed(e)),
                _ => {}
            }
        }
        fs::set_permissions(candidate, Permissions::from_mode(like.mode)).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Keeps the candidate among the versions.
    pub(crate) fn keep_candidate(&self, candidate: &Path, sha256: &str) -> Result<()> {
        let version = self.version(sha256);
        fs::rename(candidate, &version).map_err(|e| cannot("kept", &version, e))?;
        sync(&self.directory.join("versions"))
    }

    /// Keeps what is the program now among the versions.
    pub(crate) fn keep_current(&self, current: &ProgramFile) -> Result<()> {
        let version = self.version(&current.sha256);
        if version.exists() {
            if hash(&version)? == current.sha256 {
                return Ok(());
            }
            fs::remove_file(&version).map_err(|e| cannot("replaced", &version, e))?;
        }
        let kept =
            fs::hard_link(&self.program, &version).or_else(|e| match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                // No links on this filesystem, or not to another's file.
                Errno::EPERM | Errno::EMLINK | Errno::EOPNOTSUPP | Errno::EXDEV => self.copy(&version),
                _ => Err(e),
            });
        kept.map_err(|e| cannot("kept", &version, e))?;
        sync(&self.directory.join("versions"))
    }

    fn copy(&self, version: &Path) -> io::Result<()> {
        let part = self.directory.join(LINK);
        fs::copy(&self.program, &part)?;
        File::open(&part)?.sync_all()?;
        fs::rename(&part, version)
    }

    /// Returns whether the version is there, and still what it was.
    pub(crate) fn has(&self, sha256: &str) -> bool {
        hash(&self.version(sha256)).is_ok_and(|found| found == sha256)
    }

    /// Makes that version the program.
    pub(crate) fn install(&self, sha256: &str) -> Result<()> {
        let (version, link) = (self.version(sha256), self.directory.join(LINK));
        let failed = |e| cannot("installed", &self.program, e);
        let _ = fs::remove_file(&link);
        fs::hard_link(&version, &link)
            .or_else(|_| fs::copy(&version, &link).and_then(|_| File::open(&link)?.sync_all()))
            .map_err(failed)?;
        fs::rename(&link, &self.program).map_err(failed)?;
        // Two names of one file: rename(2) does nothing, and leaves the link.
        let _ = fs::remove_file(&link);
        sync(self.program.parent().unwrap_or(Path::new("/")))
    }

    /// Removes all versions but these.
    pub(crate) fn prune(&self, keep: &[&str]) -> Result<()> {
        let versions = self.directory.join("versions");
        let failed = |e| cannot("cleared", &versions, e);
        for entry in fs::read_dir(&versions).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !keep.iter().any(|kept| entry.file_name().to_str() == Some(kept)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.directory.join(CANDIDATE));
    }
}

/// Writes a file with that content, by another one that takes its place. It is on the disk when
/// this returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|e| cannot("written", path, e))?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// Takes the lock. Its file stays when the lock is gone: who removes it could leave two with a lock
/// each.
fn lock(path: &Path, program: &Path) -> Result<Flock<File>> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = open.map_err(|e| cannot("opened", path, e))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let _ = lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let who = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
            let why = format!("another upgrade of {} is running{who}", program.display());
            Err(Error::new(Kind::State, why))
        }
        Err((_, e)) => Err(cannot("locked", path, e.into())),
    }
}

pub(crate) fn hash(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    each_chunk(path, |chunk| hash.update(chunk))?;
    Ok(hex(&hash.finalize()))
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(|e| cannot("put on the disk", directory, e))
}

fn cannot(done: &str, path: &Path, error: io::Error) -> Error {
    Error::os(format!("{} cannot be {done}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> Place {
        Place::open(&directory.join("web")).unwrap()
    }

    #[test]
    fn versions_come_and_go_and_the_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("web");
        fs::write(&program, "old").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4751)).unwrap();
        let place = place(directory.path());
        let old = place.look().unwrap();
        let (mut file, path) = place.candidate().unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        file.write_all(b"new").unwrap();
        drop(file);
        place.ready(&path, &old).unwrap();
        let new = hash(&path).unwrap();
        place.keep_candidate(&path, &new).unwrap();
        place.keep_current(&old).unwrap();
        place.keep_current(&old).unwrap();
        place.install(&new).unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"new");
        assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o751, "and not set-user-id");
        assert!(!place.is(&old));
        place.install(&new).unwrap();
        place.install(&old.sha256).unwrap();
        assert!(place.is(&old), "the same file again");
        place.prune(&[&old.sha256]).unwrap();
        assert!(place.has(&old.sha256) && !place.has(&new));
        // Written in place by somebody: what was kept is not that any more.
        fs::write(&program, "other").unwrap();
        assert!(!place.has(&old.sha256));
        place.keep_current(&place.look().unwrap()).unwrap();
        let left: Vec<_> = fs::read_dir(directory.path().join(".web.handover")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "the lock and the versions: {left:?}");
    }

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("web");
        fs::write(&program, "old").unwrap();
        let first = place(directory.path());
        let second = Place::open(&program).unwrap_err();
        assert!(second.is_state() && second.to_string().contains(&std::process::id().to_string()), "{second}");
        drop(first);
        drop(place(directory.path()));
    }

    #[test]
    fn only_files_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (program, link) = (directory.path().join("web"), directory.path().join("link"));
        fs::write(&program, "old").unwrap();
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let refused = |path: &Path| Place::open(path).unwrap_err().to_string();
        assert!(refused(&link).contains("symbolic link"), "{}", refused(&link));
        assert!(refused(directory.path()).contains("no file"));
        assert!(refused(Path::new("web")).contains("not absolute"));
        assert!(refused(&directory.path().join("none")).contains("looked at"));
        let hidden = directory.path().join(".web.handover");
        drop(place(directory.path()));
        fs::set_permissions(&hidden, Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&program).contains("only this user"), "{}", refused(&program));
    }
}
