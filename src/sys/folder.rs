//! A directory by its fd, and the way there: what was checked is what is used.
//!
//! A path that is checked and then used again is another one in between, for whoever can write to a
//! directory on the way. So the way is gone once, from the root, one openat(2) for each name, and
//! all that follows names files by the fd of their directory.
//!
//! Not `RESOLVE_NO_SYMLINKS` of openat2(2): `/var/run`, `/opt` and `/lib` are symbolic links on
//! many systems. Not the crate `cap-std`: it confines a path to a directory, and does not ask who
//! can change that.
//!
//! # References
//! - openat(2), path_resolution(7), symlink(7)

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
#[cfg(feature = "upgrade")]
use nix::sys::stat::mkdirat;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
#[cfg(feature = "upgrade")]
use nix::unistd::linkat;
use nix::unistd::{Gid, Group, Uid, UnlinkatFlags, User, geteuid, unlinkat};

use crate::error::{Error, Kind, Result};

/// How many symbolic links there may be on the way, as for the kernel.
const MAX_LINKS: usize = 40;

/// Who may have a say in where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nobody but root and this user: not by a directory that others can write to, and not by a
    /// symbolic link of theirs.
    #[cfg_attr(not(feature = "upgrade"), expect(dead_code, reason = "only an upgrade is so strict"))]
    Ours,
    /// For root, nobody else by a symbolic link. Other users are led only where they could go
    /// themselves.
    NoPlantedLinks,
}

/// A directory, wherever its path leads by now.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
    /// Others can write to it, but not replace or remove what is not theirs (the sticky bit).
    is_shared: bool,
}

impl Folder {
    /// Goes to a directory, which is an absolute path.
    pub(crate) fn open(path: &Path, way: Way) -> Result<Self> {
        let failed = |at: &Path, e: Errno| Error::os(format!("{} cannot be looked at", at.display()), e);
        let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let mut here = vec![Self::at(root.map_err(|e| failed(Path::new("/"), e))?, PathBuf::from("/"), way)?];
        let mut left: Vec<OsString> = names(path);
        let mut links = 0;
        while let (Some(name), Some(last)) = (left.pop(), here.last()) {
            if name == ".." {
                here.truncate((here.len() - 1).max(1));
                continue;
            }
            let at = last.path.join(&name);
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = openat(&last.fd, name.as_os_str(), flags, Mode::empty()).map_err(|e| failed(&at, e))?;
            let stat = fstat(&fd).map_err(|e| failed(&at, e))?;
            if is_a(&stat, libc::S_IFLNK) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(failed(path, Errno::ELOOP));
                }
                last.may_have(&at, &stat, way)?;
                let to = PathBuf::from(readlinkat(&fd, "").map_err(|e| failed(&at, e))?);
                if to.is_absolute() {
                    here.truncate(1);
                }
                left.extend(names(&to));
            } else if is_a(&stat, libc::S_IFDIR) {
                here.push(Self::at(fd, at, way)?);
            } else {
                return Err(failed(&at, Errno::ENOTDIR));
            }
        }
        here.pop().ok_or_else(|| failed(path, Errno::ENOENT))
    }

    /// Goes to the directory that a file is in, and tells the file's name there.
    pub(crate) fn of(path: &Path, way: Way) -> Result<(Self, OsString)> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if path.is_absolute() => Ok((Self::open(parent, way)?, name.to_owned())),
            _ => Err(Error::new(Kind::Invalid, format!("{} is no absolute path of a file", path.display()))),
        }
    }

    fn at(fd: OwnedFd, path: PathBuf, way: Way) -> Result<Self> {
        let stat = fstat(&fd).map_err(|e| Error::os(format!("{} cannot be looked at", path.display()), e))?;
        let by = others(&stat);
        let is_shared = by.is_some() && is_ours(&stat) && stat.st_mode & libc::S_ISVTX != 0;
        match by {
            Some(by) if way == Way::Ours && !is_shared => Err(changeable(&path, &by)),
            _ => Ok(Self { fd, path, is_shared }),
        }
    }

    /// Checks who has put a symbolic link here.
    fn may_have(&self, link: &Path, stat: &FileStat, way: Way) -> Result<()> {
        if way == Way::NoPlantedLinks && !geteuid().is_root() {
            return Ok(());
        }
        let here = fstat(&self.fd).map_err(|e| Error::os(format!("{} cannot be looked at", self.path.display()), e))?;
        match others(&here).filter(|_| !self.is_shared) {
            Some(by) => Err(changeable(&self.path, &by)),
            None if is_ours(stat) => Ok(()),
            None => {
                let why =
                    format!("{} is a symbolic link of uid {}, which could lead anywhere", link.display(), stat.st_uid);
                Err(Error::new(Kind::Invalid, format!("{why}: remove it, or say the path that is meant")))
            }
        }
    }

    /// Returns where it was.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether others can make files here, though not replace ours.
    #[cfg(feature = "upgrade")]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Opens a file here. A symbolic link is none, and no FIFO is waited for.
    pub(crate) fn file(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        let always = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        Ok(openat(&self.fd, name, flags | always, Mode::from_bits_truncate(mode))?.into())
    }

    /// Looks at what is here by that name, itself and not where it leads.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    pub(crate) fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, name, &to.fd, new)?)
    }
}

/// Opens a file for reading that is one. A FIFO is not waited for: whoever could put one there
/// would hold up a thread for good, beyond every timeout.
#[cfg(feature = "upgrade")]
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Writes a file as [`std::fs::write`] does, but for root through no symbolic link, hard link or
/// file that another user has put there.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    if !geteuid().is_root() {
        return std::fs::write(path, content);
    }
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let (folder, name) = Folder::of(&path, Way::NoPlantedLinks).map_err(io::Error::other)?;
        let there = folder.look(&name);
        let mut flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match there {
            // An fd of this process, such as /dev/stdout leads to: its text is no path.
            Ok(there) if is_a(&there, libc::S_IFLNK) && fstatfs(&folder.fd)?.filesystem_type() == PROC_SUPER_MAGIC => {}
            Ok(there) if is_a(&there, libc::S_IFLNK) => {
                folder.may_have(&path, &there, Way::NoPlantedLinks).map_err(io::Error::other)?;
                path = folder.path.join(readlinkat(&folder.fd, name.as_os_str())?);
                continue;
            }
            Ok(_) => flags |= OFlag::O_NOFOLLOW,
            Err(_) => flags |= OFlag::O_NOFOLLOW | OFlag::O_EXCL,
        }
        let mode = Mode::from_bits_truncate(0o666);
        let mut file = File::from(openat(&folder.fd, name.as_os_str(), flags, mode)?);
        let stat = fstat(&file)?;
        if is_a(&stat, libc::S_IFREG) && others(&fstat(&folder.fd)?).is_some() {
            let planted = if folder.is_shared { !is_ours(&stat) } else { stat.st_nlink > 1 };
            if planted {
                return Err(io::Error::other(
                    "another user has put that file there: remove it, or choose another path",
                ));
            }
        }
        if is_a(&stat, libc::S_IFREG) {
            file.set_len(0)?;
        }
        return file.write_all(content);
    }
    Err(Errno::ELOOP.into())
}

#[cfg(feature = "upgrade")]
impl Folder {
    /// Opens the directory of that name, which is made if it is not there, and in which nobody but
    /// this user can do anything.
    pub(crate) fn private(&self, name: &OsStr) -> Result<Self> {
        let path = self.path.join(name);
        match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Err(e) if e != Errno::EEXIST => return Err(Error::os(format!("{} cannot be made", path.display()), e)),
            _ => {}
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.fd, name, flags, Mode::empty());
        let seen = opened.and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
        match seen {
            Ok((fd, stat)) if stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0 => {
                Ok(Self { fd, path, is_shared: false })
            }
            // A link, which somebody may have put there, is one of these errors.
            Ok(_) | Err(Errno::ELOOP | Errno::ENOTDIR) => {
                let why = "is not a directory that only this user can write to: see who made it";
                Err(Error::new(Kind::Invalid, format!("{} {why}", path.display())))
            }
            Err(e) => Err(Error::os(format!("{} cannot be looked at", path.display()), e)),
        }
    }

    pub(crate) fn link(&self, name: &OsStr, to: &Self, new: &OsStr) -> nix::Result<()> {
        linkat(&self.fd, name, &to.fd, new, AtFlags::empty())
    }

    /// Lists what is here.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt as _;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = nix::dir::Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Puts what was done here on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        File::from(openat(&self.fd, ".", flags, Mode::empty())?).sync_all()
    }
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

fn is_a(stat: &FileStat, kind: libc::mode_t) -> bool {
    stat.st_mode & libc::S_IFMT == kind
}

/// Returns whether it is root's or this user's.
pub(crate) fn is_ours(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

/// Says who but root and this user can change what is in a directory, and what to do about it.
fn others(stat: &FileStat) -> Option<(String, String)> {
    let mode = stat.st_mode & 0o7777;
    let user = geteuid();
    if !is_ours(stat) {
        let uid = stat.st_uid;
        return Some((
            format!("belongs to uid {uid}"),
            format!("do this as uid {uid}, or give it to root: chown root"),
        ));
    }
    if mode & 0o002 != 0 {
        return Some((format!("can be written to by everybody (mode {mode:04o})"), "chmod o-w".to_owned()));
    }
    if mode & 0o020 != 0 && !is_own_group(stat.st_gid, user) {
        let gid = stat.st_gid;
        return Some((format!("can be written to by the group {gid} (mode {mode:04o})"), "chmod g-w".to_owned()));
    }
    None
}

/// Returns whether the group is this user's own, or root's: as it is where each user has one, of
/// the user's name and with nobody else in it.
fn is_own_group(gid: u32, user: Uid) -> bool {
    let Ok(Some(group)) = Group::from_gid(Gid::from_raw(gid)) else { return false };
    [user, Uid::from_raw(0)].into_iter().any(|uid| {
        let Ok(Some(user)) = User::from_uid(uid) else { return false };
        user.gid == group.gid && user.name == group.name && group.mem.iter().all(|member| *member == user.name)
    })
}

fn changeable(path: &Path, (by, remedy): &(String, String)) -> Error {
    let path = path.display();
    let why = "whoever that is could put something else in the place of what is read and written there";
    Error::new(Kind::Invalid, format!("{path} {by}: {why}; {remedy} {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(feature = "upgrade")]
    #[test]
    fn ways_that_others_can_change_are_not_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (outer, inner) = (directory.path().join("outer"), directory.path().join("outer/inner"));
        fs::create_dir_all(&inner).unwrap();
        let refused = |path: &Path| Folder::open(path, Way::Ours).unwrap_err();
        mode(&inner, 0o755);
        for (bits, says) in [(0o757, "chmod o-w"), (0o777, "chmod o-w")] {
            mode(&outer, bits);
            let error = refused(&inner);
            assert!(error.is_invalid() && error.to_string().contains(says), "{bits:o}: {error}");
            assert!(error.to_string().contains("outer"), "{error}");
            Folder::open(&inner, Way::NoPlantedLinks).unwrap();
        }
        mode(&outer, 0o1777);
        assert!(!Folder::open(&inner, Way::Ours).unwrap().is_shared());
        assert!(Folder::open(&outer, Way::Ours).unwrap().is_shared());
        mode(&outer, 0o755);
        Folder::open(&inner, Way::Ours).unwrap();
        let unowned = 4_000_000;
        if nix::unistd::chown(&outer, None, Some(Gid::from_raw(unowned))).is_ok() {
            mode(&outer, 0o775);
            assert!(refused(&inner).to_string().contains("chmod g-w"), "{}", refused(&inner));
            nix::unistd::chown(&outer, Some(Uid::from_raw(unowned)), None).unwrap();
            mode(&outer, 0o755);
            assert!(refused(&inner).to_string().contains("belongs to uid 4000000"), "{}", refused(&inner));
        }
    }

    #[test]
    fn links_lead_on_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("real/deep")).unwrap();
        symlink("real", at("relative")).unwrap();
        symlink(at("relative/deep/../deep"), at("absolute")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        let real = fs::canonicalize(at("real/deep")).unwrap();
        for path in ["relative/deep", "absolute", "real/../relative/./deep"] {
            assert_eq!(Folder::open(&at(path), Way::NoPlantedLinks).unwrap().path(), real, "{path}");
        }
        for path in ["loop", "file", "none", "file/x"] {
            assert!(Folder::open(&at(path), Way::NoPlantedLinks).is_err(), "{path}");
        }
        let (folder, name) = Folder::of(&at("absolute/new"), Way::NoPlantedLinks).unwrap();
        symlink("elsewhere", at("real/deep/new")).unwrap();
        assert!(folder.file(&name, OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).is_err(), "a link is not followed");
        folder.remove(&name).unwrap();
        // The directory goes, and what was opened is still that one.
        fs::rename(at("real"), at("moved")).unwrap();
        fs::create_dir_all(at("real/deep")).unwrap();
        folder.file(&name, OFlag::O_CREAT | OFlag::O_WRONLY, 0o600).unwrap();
        assert!(at("moved/deep/new").exists() && !at("real/deep/new").exists());
        assert_eq!(folder.look(&name).unwrap().st_size, 0);
    }

    /// Only root can make what is another's.
    #[test]
    fn root_follows_no_link_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("theirs")).unwrap();
        symlink("/etc", at("theirs/link")).unwrap();
        let them = Some(Uid::from_raw(4_000_000));
        if nix::unistd::chown(&at("theirs"), them, None).is_err() {
            return;
        }
        let error = Folder::open(&at("theirs/link"), Way::NoPlantedLinks).unwrap_err();
        assert!(error.to_string().contains("belongs to uid 4000000"), "{error}");
        Folder::open(&at("theirs"), Way::NoPlantedLinks).unwrap();
        // As in /tmp: what matters is whose the link is.
        fs::create_dir_all(at("shared")).unwrap();
        mode(&at("shared"), 0o1777);
        symlink("/etc", at("shared/link")).unwrap();
        Folder::open(&at("shared/link"), Way::NoPlantedLinks).unwrap();
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, &at("shared/link"), them, None, AtFlags::AT_SYMLINK_NOFOLLOW)
            .unwrap();
        let error = Folder::open(&at("shared/link"), Way::NoPlantedLinks).unwrap_err();
        assert!(error.to_string().contains("symbolic link of uid 4000000"), "{error}");
    }

    #[test]
    fn what_root_writes_lands_where_it_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write_file(&at("new"), b"longer").unwrap();
        write_file(&at("new"), b"short").unwrap();
        assert_eq!(fs::read(at("new")).unwrap(), b"short");
        symlink("new", at("own")).unwrap();
        write_file(&at("own"), b"own").unwrap();
        assert_eq!(fs::read(at("new")).unwrap(), b"own");
        write_file(Path::new("/dev/null"), b"nothing").unwrap();
        let file = File::create(at("open")).unwrap();
        let fd = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        write_file(Path::new(&fd), b"by its fd").unwrap();
        assert_eq!(fs::read(at("open")).unwrap(), b"by its fd");
        fs::create_dir(at("theirs")).unwrap();
        fs::write(at("victim"), "safe").unwrap();
        symlink(at("victim"), at("theirs/link")).unwrap();
        fs::hard_link(at("victim"), at("theirs/hard")).unwrap();
        if nix::unistd::chown(&at("theirs"), Some(Uid::from_raw(4_000_000)), None).is_err() {
            return;
        }
        write_file(&at("theirs/new"), b"there").unwrap();
        for planted in ["link", "hard"] {
            write_file(&at("theirs").join(planted), b"gone").unwrap_err();
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"safe");
    }
}
