//! Where the socket for the notifications of the program is: at a path, in a directory that nobody
//! else can enter.
//!
//! Not in the abstract namespace: that has no permissions, so that every local user could send
//! messages, and fds, to it.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::socket::{UnixAddr, getsockname};
use nix::unistd::{Gid, chown, mkdtemp};
use tracing::warn;

use crate::sys::mailbox;
use crate::systemd::environment::Environment;

/// The beginning of the directory's name; some random letters follow.
const PREFIX: &str = "handover-notify.";
/// The name of the socket in it.
const NAME: &str = "socket";
/// What the path of a socket can have at most, in bytes.
const MAX_PATH: usize = 107;

/// The directory, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct NotifyPlace {
    path: PathBuf,
}

impl NotifyPlace {
    /// Makes the directory and the socket: in `$RUNTIME_DIRECTORY`, or else in `$XDG_RUNTIME_DIR`,
    /// or else where temporary files are. Besides this user only root can enter, and `group`.
    pub(crate) fn make(environment: &Environment, group: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let mut made = Err(io::ErrorKind::NotFound.into());
        for base in bases(environment) {
            made = mkdtemp(&base.join(format!("{PREFIX}XXXXXX"))).map_err(io::Error::from);
            if made.is_ok() {
                break;
            }
        }
        let directory = made?;
        let place = Self { path: directory.join(NAME) };
        let socket = mailbox::bind(&place.path)?;
        socket.set_nonblocking(true)?;
        // Whom the directory lets in may send; the umask must not decide that.
        std::fs::set_permissions(&place.path, Permissions::from_mode(0o666))?;
        if let Some(group) = group {
            chown(&directory, None, Some(Gid::from_raw(group)))?;
            std::fs::set_permissions(&directory, Permissions::from_mode(0o710))?;
        }
        Ok((place, socket.into()))
    }

    /// Takes over the place of a socket that was made by an older version of this process.
    pub(crate) fn resumed(socket: &OwnedFd) -> io::Result<Self> {
        let address: UnixAddr = getsockname(socket.as_raw_fd())?;
        let path = address.path().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { path: path.to_owned() })
    }

    /// The path, as `NOTIFY_SOCKET` has it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NotifyPlace {
    fn drop(&mut self) {
        let Some(directory) = self.path.parent() else { return };
        let ours = directory.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
        let _ = std::fs::remove_file(&self.path);
        if let Err(error) = std::fs::remove_dir(directory)
            && ours
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "the directory {} stays", directory.display());
        }
    }
}

/// Finds the directories that ours could be in: those in which the path is one that a socket can
/// have.
fn bases(environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let room = PREFIX.len() + "XXXXXX".len() + NAME.len() + "//".len();
    // Several directories of a unit are separated by colons.
    let of = |name| environment.get(name).and_then(|value| value.as_bytes().split(|b| *b == b':').next());
    let all = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(of);
    let all = all.map(|path| Path::new(OsStr::from_bytes(path))).chain([Path::new("/tmp")]);
    all.filter(move |path| path.is_absolute() && path.as_os_str().len() + room <= MAX_PATH).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_is_private_and_goes_with_the_socket() {
        let runtime = tempfile::tempdir().unwrap();
        let environment = Environment::from_pairs([("RUNTIME_DIRECTORY", runtime.path())]);
        let (place, socket) = NotifyPlace::make(&environment, None).unwrap();
        let directory = place.path().parent().unwrap().to_owned();
        assert_eq!((directory.parent(), mode(&directory)), (Some(runtime.path()), 0o700));
        let resumed = NotifyPlace::resumed(&socket).unwrap();
        assert_eq!(resumed.path(), place.path());
        drop(resumed);
        assert!(!directory.exists());
        drop(place);
        let (place, _socket) = NotifyPlace::make(&environment, Some(nix::unistd::getgid().as_raw())).unwrap();
        assert_eq!(mode(place.path().parent().unwrap()), 0o710, "a group may enter, and not look around");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_passed_by() {
        let (long, short) =
            (tempfile::Builder::new().prefix(&"x".repeat(90)).tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names =
            [("RUNTIME_DIRECTORY", long.path()), ("XDG_RUNTIME_DIR", Path::new("relative")), ("TMPDIR", short.path())];
        let environment = Environment::from_pairs(names);
        assert_eq!(bases(&environment).collect::<Vec<_>>(), [short.path(), Path::new("/tmp")]);
        let gone = Environment::from_pairs([
            ("RUNTIME_DIRECTORY", short.path().join("none")),
            ("TMPDIR", short.path().to_owned()),
        ]);
        let (place, _socket) = NotifyPlace::make(&gone, None).unwrap();
        assert!(place.path().starts_with(short.path()), "{place:?}");
    }
}
