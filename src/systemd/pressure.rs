//! Pressure on memory, processors, or input and output, as the service manager has it told.
//!
//! # References
//!
//! [Resource Pressure Handling in systemd](https://systemd.io/PRESSURE/), `MemoryPressureWatch=` in
//! [systemd.resource-control(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html)

use crate::error::{Error, Kind, Result};
use crate::sys::socket;
use crate::systemd::environment::Environment;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// What the manager writes for "do not listen".
const OFF: &str = "/dev/null";
/// So much is read of what is told, which means nothing beyond that it came.
const CHUNK: usize = 256;

/// What there may be too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Cpu,
    Io,
}

impl Resource {
    /// The variables that say where it is told, and what is to be written there first.
    fn variables(self) -> (&'static str, &'static str) {
        match self {
            Self::Memory => ("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"),
            Self::Cpu => ("CPU_PRESSURE_WATCH", "CPU_PRESSURE_WRITE"),
            Self::Io => ("IO_PRESSURE_WATCH", "IO_PRESSURE_WRITE"),
        }
    }

    /// The setting of the unit that has it told.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressureWatch=",
            Self::Cpu => "CPUPressureWatch=",
            Self::Io => "IOPressureWatch=",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpu => "the processors",
            Self::Io => "input and output",
        })
    }
}

/// Where the pressure on one resource is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PressureSource {
    resource: Resource,
    path: PathBuf,
    /// What is written there before anything is told, such as the threshold.
    message: Vec<u8>,
}

impl PressureSource {
    /// Reads where that pressure is told. `None`: nowhere.
    pub(crate) fn from_env(environment: &Environment, resource: Resource) -> Result<Option<Self>> {
        let (watch, write) = resource.variables();
        let Some(path) = environment.get(watch).filter(|path| !path.is_empty() && *path != OFF).map(Path::new) else {
            return Ok(None);
        };
        let invalid = |why| Err(Error::new(Kind::Invalid, why));
        if !path.is_absolute() {
            return invalid(format!("{watch}={} is no absolute path", path.display()));
        }
        let Some(message) = decoded(environment.get(write).unwrap_or(OsStr::new(""))) else {
            return invalid(format!("{write} is not in Base64"));
        };
        Ok(Some(Self { resource, path: path.to_owned(), message }))
    }

    pub(crate) fn resource(&self) -> Resource {
        self.resource
    }

    /// Waits until pressure is told that comes after this call. It must be within a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// It is cancel safe; what was told is not told to the next call.
    pub(crate) async fn pressed(&self) -> Result<()> {
        let failed = |error| {
            let (resource, path) = (self.resource, self.path.display());
            Error::os(format!("pressure on {resource} cannot be watched at {path}"), error)
        };
        self.told().await.map_err(failed)
    }

    async fn told(&self) -> io::Result<()> {
        let kind = fs::metadata(&self.path)?.file_type();
        let open = || File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        if kind.is_file() {
            self.told_by_kernel(open()?).await
        } else if kind.is_fifo() {
            self.told_in_bytes(open()?).await
        } else if kind.is_socket() {
            self.told_in_bytes(OwnedFd::from(UnixStream::connect(&self.path).await?.into_std()?).into()).await
        } else {
            Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a file, a FIFO nor a Unix socket"))
        }
    }

    /// The kernel's own file (PSI): it is never read.
    async fn told_by_kernel(&self, mut file: File) -> io::Result<()> {
        file.write_all(&self.message)?;
        // Without a threshold it would be told at once, and always.
        if socket::is_in_error(file.as_fd())? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the kernel has been told no threshold"));
        }
        let watched = socket::register(file.into(), Interest::PRIORITY)?;
        watched.ready(Interest::PRIORITY).await.map(drop)
    }

    /// A FIFO gives back what was written to it, if nobody else has read that.
    fn is_echo(&self, seen: &[u8]) -> bool {
        self.message.starts_with(seen)
    }

    /// A FIFO or a socket of somebody who tells instead of the kernel.
    async fn told_in_bytes(&self, mut file: File) -> io::Result<()> {
        file.write_all(&self.message)?;
        let watched = socket::register(file.try_clone()?.into(), Interest::READABLE)?;
        let (mut seen, mut bytes) = (Vec::new(), [0; CHUNK]);
        loop {
            let mut ready = watched.readable().await?;
            match ready.try_io(|_| file.read(&mut bytes)) {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(count)) => {
                    seen.extend_from_slice(bytes.get(..count).unwrap_or_default());
                    if !self.is_echo(&seen) {
                        return Ok(());
                    }
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_not_yet) => {}
            }
        }
    }
}

/// Decodes Base64 with padding. `None`: it is none.
fn decoded(text: &OsStr) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let unpadded = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for quad in unpadded.chunks(4) {
        let mut bits = 0_u32;
        for byte in quad {
            bits = bits << 6 | u32::from(sextet(*byte)?);
        }
        // Of two digits one byte comes, of three two, of four three.
        let known = quad.len().checked_sub(1)?;
        bits <<= 6 * (4 - quad.len());
        bytes.extend(bits.to_be_bytes().into_iter().skip(1).take(known));
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::future::Future as _;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);
    /// As systemd writes it, with the NUL that the kernel wants.
    const THRESHOLD: &str = "c29tZSAyMDAwMDAgMjAwMDAwMAA=";
    const WRITTEN: &[u8] = b"some 200000 2000000\0";

    fn source(path: &Path) -> PressureSource {
        let path = path.to_str().unwrap();
        let environment =
            Environment::from_pairs([("MEMORY_PRESSURE_WATCH", path), ("MEMORY_PRESSURE_WRITE", THRESHOLD)]);
        PressureSource::from_env(&environment, Resource::Memory).unwrap().unwrap()
    }

    #[test]
    fn base64_is_read_and_what_is_none_is_refused() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("+/+/", b"\xfb\xff\xbf")]
        {
            assert_eq!(decoded(text.as_ref()).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(decoded(THRESHOLD.as_ref()).as_deref(), Some(WRITTEN));
        for text in ["Z", "Zg", "Zg=", "Z===", "====", "Zm9v\n", "Z-9v", "Zg==Zg==", "=Zm9"] {
            assert_eq!(decoded(text.as_ref()), None, "{text}");
        }
    }

    #[test]
    fn where_it_is_told_is_read_for_each_resource() {
        let read = |pairs: &[(&str, &str)], resource| {
            PressureSource::from_env(&Environment::from_pairs(pairs.iter().copied()), resource)
        };
        for resource in [Resource::Memory, Resource::Cpu, Resource::Io] {
            let (watch, write) = resource.variables();
            assert_eq!(read(&[], resource).unwrap(), None);
            assert_eq!(read(&[(watch, "/dev/null"), (write, "?")], resource).unwrap(), None, "it is turned off");
            let source = read(&[(watch, "/a"), (write, "Zg==")], resource).unwrap().unwrap();
            assert_eq!((source.resource(), &*source.message), (resource, &b"f"[..]));
            assert!(read(&[(watch, "a")], resource).unwrap_err().to_string().contains("no absolute path"));
            assert!(read(&[(watch, "/a"), (write, "f")], resource).unwrap_err().to_string().contains("Base64"));
        }
    }

    #[tokio::test]
    async fn a_socket_is_told_the_threshold_and_tells() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let source = source(&path);
        let pressed = tokio::spawn(async move { source.pressed().await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut threshold = [0; WRITTEN.len()];
        stream.read_exact(&mut threshold).await.unwrap();
        assert_eq!(threshold, WRITTEN);
        assert!(!pressed.is_finished());
        stream.write_all(b"x").await.unwrap();
        timeout(DEADLINE, pressed).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_closed_is_no_pressure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let source = source(&path);
        let pressed = tokio::spawn(async move { source.pressed().await });
        drop(listener.accept().await.unwrap());
        let error = timeout(DEADLINE, pressed).await.unwrap().unwrap().unwrap_err().to_string();
        assert!(error.contains("pressure on memory cannot be watched"), "{error}");
    }

    #[tokio::test]
    async fn a_fifo_tells_and_what_was_written_to_it_is_not_taken_for_that() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut others = File::options().read(true).write(true).open(&path).unwrap();
        let source = source(&path);
        let mut pressed = Box::pin(source.pressed());
        let first = std::future::poll_fn(|cx| Poll::Ready(pressed.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "it listens, and nothing was told");
        others.write_all(b"x").unwrap();
        timeout(DEADLINE, pressed).await.unwrap().unwrap();
        for (seen, echo) in [(&b"some 2"[..], true), (WRITTEN, true), (b"x", false), (b"some x", false)] {
            assert_eq!(source.is_echo(seen), echo);
        }
        assert!(!source.is_echo(&[WRITTEN, b"x"].concat()));
    }

    #[tokio::test]
    async fn what_cannot_tell_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(source(directory.path()).pressed().await.unwrap_err().to_string().contains("neither a file"));
        assert!(source(&directory.path().join("none")).pressed().await.is_err());
        let plain = directory.path().join("plain");
        fs::write(&plain, "").unwrap();
        assert!(timeout(DEADLINE, source(&plain).pressed()).await.unwrap().is_err(), "a file that nobody can wait for");
    }
}
