//! Whether anybody has a file open for writing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Asks for a read lease, which nobody gets while somebody could write, and gives it back. Such a
/// file cannot be executed (ETXTBSY).
///
/// The file must be open for reading only. Who is neither its owner nor has `CAP_LEASE`, or is on a
/// filesystem without leases, is not told: `false`.
///
/// # References
/// - fcntl(2), `F_SETLEASE`
pub(crate) fn is_written(file: &File) -> bool {
    // SAFETY: the fd is open for as long as the reference lives; F_SETLEASE takes an int.
    let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if taken == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return false;
    }
    io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_seen_and_readers_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = File::open(file.path()).unwrap();
        assert!(is_written(&read));
        let path = file.into_temp_path();
        let _other = File::open(&path).unwrap();
        // Another test's child may have it for a moment.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while is_written(&read) {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
    }
}
