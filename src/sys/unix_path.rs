//! The path of a Unix socket, which outlives the socket unless somebody removes it.

use nix::sys::socket::{SockaddrStorage, getsockname};
use nix::sys::stat::fstat;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::folder::{Folder, Way};

/// Returns whether this is a Unix socket with a path that does not lead to a socket any more.
pub(crate) fn is_gone(socket: BorrowedFd<'_>) -> bool {
    path(socket).is_some_and(|path| !leads_to_a_socket(&path))
}

/// Removes the path of this bound socket. It returns `None` if it has none, or if that is not its
/// own any more.
pub(crate) fn remove(socket: BorrowedFd<'_>) -> io::Result<Option<PathBuf>> {
    let Some(path) = path(socket).filter(|path| leads_to_a_socket(path)) else { return Ok(None) };
    // What a path leads to cannot be asked for without privileges (SIOCUNIXFILE), but who else has
    // it can.
    let table = std::fs::read("/proc/self/net/unix")?;
    if is_anothers(&table, &path, fstat(socket)?.st_ino) {
        return Ok(None);
    }
    unlink(&path).map_err(io::Error::other)?;
    Ok(Some(path))
}

/// Removes the file of a socket, in the directory that its path leads to and nowhere else.
pub(crate) fn unlink(path: &Path) -> Result<()> {
    let (folder, name) = Folder::of(path, Way::NoPlantedLinks)?;
    let removed = folder.look(&name).and_then(|there| {
        let is_socket = there.st_mode & libc::S_IFMT == libc::S_IFSOCK;
        if is_socket { folder.remove(&name) } else { Err(io::Error::other("it is no socket any more")) }
    });
    removed.map_err(|error| Error::os(format!("{} cannot be removed", path.display()), error))
}

fn leads_to_a_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

fn path(socket: BorrowedFd<'_>) -> Option<PathBuf> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let path = address.as_unix_addr()?.path()?.as_os_str().as_bytes();
    // With the NUL that ends it in the kernel's structure.
    let path = path.split(|byte| *byte == 0).next().filter(|path| path.first() == Some(&b'/'))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Returns whether a socket other than `inode` receives at the path: somebody has replaced the
/// file. The connections of a listener have its path, too, but neither listen nor are they of
/// datagrams.
///
/// # References
/// - proc_net_unix: `Num RefCount Protocol Flags Type St Inode Path`
fn is_anothers(table: &[u8], path: &Path, inode: u64) -> bool {
    const ACCEPTS: u32 = 0x10000;
    table.split(|byte| *byte == b'\n').any(|line| {
        let Some(rest) = line.strip_suffix(path.as_os_str().as_bytes()) else { return false };
        let columns = String::from_utf8_lossy(rest);
        let columns: Vec<_> = columns.split_whitespace().collect();
        let [_, _, _, flags, kind, _, number] = columns[..] else { return false };
        let accepts = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ACCEPTS != 0);
        (accepts || kind == "0002") && number.parse() != Ok(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn only_what_is_still_ours_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("a socket");
        let first = UnixListener::bind(&at).unwrap();
        let _connected = UnixStream::connect(&at).unwrap();
        let _accepted = first.accept().unwrap();
        assert!(!is_gone(first.as_fd()));
        std::fs::remove_file(&at).unwrap();
        assert!(is_gone(first.as_fd()));
        assert_eq!(remove(first.as_fd()).unwrap(), None);
        let second = UnixDatagram::bind(&at).unwrap();
        assert_eq!(remove(first.as_fd()).unwrap(), None, "it is the second's now");
        drop(first);
        assert_eq!(remove(second.as_fd()).unwrap(), Some(at.clone()));
        assert!(!at.exists());
        assert_eq!(remove(UnixStream::pair().unwrap().0.as_fd()).unwrap(), None);
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_gone(tcp.as_fd()) && remove(tcp.as_fd()).unwrap().is_none());
    }
}
