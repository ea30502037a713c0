//! The program's file, the versions beside it, and who may touch them. All of it blocks.
//!
//! Every version lies under its SHA-256 in a directory beside the program, and the program is a
//! second name of one of them, put there by rename(2). So a step back is one rename, as a step
//! forward is, and there is no moment at which the program's name is missing or is that of half a
//! file. Not `web.1`, `web.2`, … as logs are rotated: that takes as many renames as versions are
//! kept.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::sys::folder::{self, Folder, Way};
use crate::sys::lease::is_written;
use crate::upgrade::trust::{each_chunk, hex};

/// How long somebody may still have a candidate open for writing.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(10);

const CANDIDATE: &str = "candidate";
const LINK: &str = "link";

/// Ours alone while it lives. Nothing here is found by its path again: who could change a directory
/// on the way is refused, and each file is named by the fd of its directory.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) program: PathBuf,
    /// The directory that the program is in, and its name there.
    home: Folder,
    name: OsString,
    /// The directory `.NAME.handover` beside the program.
    hidden: Folder,
    versions: Folder,
    _lock: Flock<File>,
}

/// A candidate, by one fd from when it is made to when it is installed.
#[derive(Debug, Clone)]
pub(crate) struct CandidateFile {
    file: Arc<File>,
    path: PathBuf,
}

impl CandidateFile {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// For its check, and for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
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
        if program.file_name().is_none() {
            return Err(invalid("is no program's path"));
        }
        if !program.is_absolute() {
            return Err(invalid("is not absolute"));
        }
        let (home, name) = Folder::of(program, Way::Ours)?;
        let seen = home.look(&name).map_err(|e| cannot("looked at", program, e))?;
        match seen.st_mode & libc::S_IFMT {
            libc::S_IFREG => {}
            libc::S_IFLNK => {
                let to = std::fs::read_link(program).unwrap_or_default();
                let to = to.display();
                let why = format!("is a symbolic link to {to}: say that path, or let go who manages the link");
                return Err(invalid(&why));
            }
            _ => return Err(invalid("is no file")),
        }
        if home.is_shared() && !folder::is_ours(&seen) {
            let uid = seen.st_uid;
            return Err(invalid(&format!("belongs to uid {uid}, in a directory where everybody can make files")));
        }
        let mut hidden = OsString::from(".");
        hidden.push(&name);
        hidden.push(".handover");
        let hidden = home.private(&hidden)?;
        let versions = hidden.private(OsStr::new("versions"))?;
        let lock = lock(&hidden, program)?;
        // Of one that was killed; nobody else is here.
        for left in [CANDIDATE, LINK] {
            let _ = hidden.remove(OsStr::new(left));
        }
        Ok(Self { program: program.to_owned(), home, name, hidden, versions, _lock: lock })
    }

    /// Returns the directory in which it is remembered what was.
    pub(crate) fn hidden(&self) -> &Folder {
        &self.hidden
    }

    /// Looks at the program as it is now.
    pub(crate) fn look(&self) -> Result<ProgramFile> {
        let failed = |e| cannot("looked at", &self.program, e);
        let file = regular(&self.home, &self.name).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let sha256 = hash(&file, &self.program)?;
        Ok(ProgramFile {
            sha256,
            identity: (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()),
            mode: meta.mode() & 0o777,
            owner: (meta.uid(), meta.gid()),
        })
    }

    /// Returns whether the program is still that one.
    pub(crate) fn is(&self, program: &ProgramFile) -> bool {
        let meta = regular(&self.home, &self.name).and_then(|file| file.metadata()).ok();
        let now = meta.map(|meta| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()));
        now == Some(program.identity)
    }

    /// Makes a new file that nobody else can read. The first is for writing it.
    pub(crate) fn candidate(&self) -> Result<(File, CandidateFile)> {
        let (name, path) = (OsStr::new(CANDIDATE), self.hidden.path().join(CANDIDATE));
        let _ = self.hidden.remove(name);
        let made = || {
            let written = self.hidden.file(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
            // One for reading: what somebody has open for writing cannot be executed.
            let read = self.hidden.file(name, OFlag::O_RDONLY, 0)?;
            if identity(&written)? != identity(&read)? {
                return Err(io::Error::other("it is another file than the one that was made"));
            }
            Ok((written, CandidateFile { file: Arc::new(read), path: path.clone() }))
        };
        made().map_err(|e| cannot("made", &path, e))
    }

    /// Gives it the rights of the one that it shall replace, and puts it on the disk. The
    /// rights do not include set-user-id and the like.
    pub(crate) fn ready(&self, candidate: &CandidateFile, like: &ProgramFile) -> Result<()> {
        let failed = |e| cannot("prepared", candidate.path(), e);
        let file = candidate.file();
        let deadline = Instant::now() + WRITERS_TIMEOUT;
        // A child that another thread has just started has a copy of our fd until it executes its
        // program.
        while is_written(file) {
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
            match std::os::unix::fs::fchown(file.as_fd(), Some(uid), Some(gid)) {
                Err(e) if e.kind() != io::ErrorKind::PermissionDenied => return Err(failed(e)),
                _ => {}
            }
        }
        file.set_permissions(Permissions::from_mode(like.mode)).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Keeps the candidate among the versions: that very file.
    pub(crate) fn keep_candidate(&self, candidate: &CandidateFile, sha256: &str) -> Result<()> {
        let version = OsStr::new(sha256);
        let kept = || {
            self.hidden.rename(OsStr::new(CANDIDATE), &self.versions, version)?;
            if identity(&regular(&self.versions, version)?)? != identity(candidate.file())? {
                let _ = self.versions.remove(version);
                return Err(io::Error::other("somebody has put another file in its place"));
            }
            self.versions.sync()
        };
        kept().map_err(|e| self.cannot_keep(sha256, e))
    }

    /// Keeps what is the program now among the versions.
    pub(crate) fn keep_current(&self, current: &ProgramFile) -> Result<()> {
        let version = OsStr::new(&current.sha256);
        let kept = || {
            if self.has(&current.sha256) {
                return Ok(());
            }
            removed(self.versions.remove(version))?;
            match self.home.link(&self.name, &self.versions, version) {
                Ok(()) => {}
                // No links on this filesystem, or not to another's file.
                Err(Errno::EPERM | Errno::EMLINK | Errno::EOPNOTSUPP | Errno::EXDEV) => {
                    self.copy(&self.home, &self.name)?;
                    self.hidden.rename(OsStr::new(LINK), &self.versions, version)?;
                }
                Err(e) => return Err(e.into()),
            }
            self.versions.sync()
        };
        kept().map_err(|e| self.cannot_keep(&current.sha256, e))
    }

    /// Copies a file, with its mode, to the one that is about to be renamed.
    fn copy(&self, from: &Folder, name: &OsStr) -> io::Result<()> {
        let mut from = regular(from, name)?;
        removed(self.hidden.remove(OsStr::new(LINK)))?;
        let mut to = self.hidden.file(OsStr::new(LINK), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
        io::copy(&mut from, &mut to)?;
        to.set_permissions(Permissions::from_mode(from.metadata()?.mode() & 0o777))?;
        to.sync_all()
    }

    /// Returns whether the version is there, and still what it was.
    pub(crate) fn has(&self, sha256: &str) -> bool {
        let file = regular(&self.versions, OsStr::new(sha256));
        file.is_ok_and(|file| hash(&file, self.versions.path()).is_ok_and(|found| found == sha256))
    }

    /// Makes that version the program.
    pub(crate) fn install(&self, sha256: &str) -> Result<()> {
        let (version, link) = (OsStr::new(sha256), OsStr::new(LINK));
        let installed = || {
            removed(self.hidden.remove(link))?;
            if self.versions.link(version, &self.hidden, link).is_err() {
                self.copy(&self.versions, version)?;
            }
            self.hidden.rename(link, &self.home, &self.name)?;
            // Two names of one file: rename(2) does nothing, and leaves the link.
            removed(self.hidden.remove(link))?;
            self.home.sync()
        };
        installed().map_err(|e| cannot("installed", &self.program, e))
    }

    /// Removes all versions but these.
    pub(crate) fn prune(&self, keep: &[&str]) -> Result<()> {
        let failed = |e| cannot("cleared", self.versions.path(), e);
        for name in self.versions.names().map_err(failed)? {
            if !keep.iter().any(|kept| name.to_str() == Some(kept)) {
                self.versions.remove(&name).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn cannot_keep(&self, sha256: &str, error: io::Error) -> Error {
        cannot("kept", &self.versions.path().join(sha256), error)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.hidden.remove(OsStr::new(CANDIDATE));
    }
}

/// Writes a file with that content, by another one that takes its place. It is on the disk when
/// this returns.
pub(crate) fn replace(folder: &Folder, name: &str, content: &[u8]) -> Result<()> {
    let new = OsString::from(format!("{name}.new"));
    let written = || {
        removed(folder.remove(&new))?;
        let mut file = folder.file(&new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
        file.write_all(content)?;
        file.sync_all()?;
        folder.rename(&new, folder, OsStr::new(name))?;
        folder.sync()
    };
    written().map_err(|e| cannot("written", &folder.path().join(name), e))
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(folder: &Folder, name: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match regular(folder, OsStr::new(name)).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(cannot("read", &folder.path().join(name), e)),
    }
}

/// Takes the lock. Its file stays when the lock is gone: who removes it could leave two with a lock
/// each.
fn lock(hidden: &Folder, program: &Path) -> Result<Flock<File>> {
    let path = hidden.path().join("lock");
    let file = hidden.file(OsStr::new("lock"), OFlag::O_RDWR | OFlag::O_CREAT, 0o600);
    let file = file.map_err(|e| cannot("opened", &path, e))?;
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
        Err((_, e)) => Err(cannot("locked", &path, e.into())),
    }
}

/// Opens a file that is one: no link, FIFO or device.
fn regular(folder: &Folder, name: &OsStr) -> io::Result<File> {
    let file = folder.file(name, OFlag::O_RDONLY, 0)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// That there was nothing is fine, too.
fn removed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn hash(file: &File, path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    each_chunk(file, path, |chunk| hash.update(chunk))?;
    Ok(hex(&hash.finalize()))
}

fn cannot(done: &str, path: &Path, error: io::Error) -> Error {
    Error::os(format!("{} cannot be {done}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        let (mut file, candidate) = place.candidate().unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        file.write_all(b"new").unwrap();
        drop(file);
        place.ready(&candidate, &old).unwrap();
        let new = hash(candidate.file(), candidate.path()).unwrap();
        place.keep_candidate(&candidate, &new).unwrap();
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
