//! Telling the service manager: ready, reloading, stopping, a status line, a new main process.
//!
//! ```no_run
//! use handover::systemd::environment::Environment;
//! use handover::systemd::notify::{Message, Notifier, Delivery};
//!
//! # fn main() -> handover::Result<()> {
//! let notifier = Notifier::from_env(&Environment::capture())?;
//! match notifier.send(&Message::new().ready().status("serving"))? {
//!     Delivery::Sent => {}
//!     Delivery::NoManager => {} // started from a shell: nobody to tell
//!     _ => {}
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # References
//!
//! [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)

use crate::error::{Error, Kind, Result};
use crate::sys::scm;
use crate::sys::socket::{self, Receiver};
use crate::systemd::environment::Environment;
use nix::poll::PollFlags;
use nix::sys::socket::{SockType, UnixAddr, VsockAddr};
use nix::time::ClockId;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::Interest;

pub use crate::wire::notify::Message;

/// How long a message waits for room in the service manager's queue, unless set otherwise.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a [barrier](Notifier::barrier) waits when there is no reason for another time.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries of a message with fds, when too many of this user's are on their way.
const TOO_MANY_PAUSE: Duration = Duration::from_millis(5);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The message is in the service manager's queue. That it was read, only a
    /// [barrier](Notifier::barrier) tells.
    Sent,
    /// There is no service manager: `NOTIFY_SOCKET` is not set, or empty.
    NoManager,
}

/// The way to the service manager.
///
/// Each message opens its own nonblocking socket: so a restarted manager is found again, and
/// nothing has to be kept away from child processes.
#[derive(Debug, Clone)]
#[doc(alias = "NOTIFY_SOCKET")]
#[doc(alias = "sd_notify")]
pub struct Notifier {
    manager: Option<ManagerSocket>,
    timeout: Duration,
}

/// The receiver, and what it is called in messages.
#[derive(Debug, Clone)]
struct ManagerSocket {
    receiver: Receiver,
    name: String,
}

impl Notifier {
    /// Finds the service manager that `NOTIFY_SOCKET` names: a path, `@abstract`, or
    /// `vsock:CID:PORT`, where `vsock` may be `vsock-stream`, `vsock-dgram` or `vsock-seqpacket`.
    /// Without the variable there is nobody to tell.
    ///
    /// # Errors
    ///
    /// `NOTIFY_SOCKET` is none of these.
    pub fn from_env(environment: &Environment) -> Result<Self> {
        let manager = match environment.get("NOTIFY_SOCKET").filter(|value| !value.is_empty()) {
            None => None,
            Some(value) => Some(ManagerSocket { receiver: parse(value)?, name: format!("NOTIFY_SOCKET={value:?}") }),
        };
        Ok(Self { manager, timeout: NOTIFY_TIMEOUT })
    }

    /// Returns a notifier that has nobody to tell.
    #[must_use]
    pub fn disabled() -> Self {
        Self { manager: None, timeout: NOTIFY_TIMEOUT }
    }

    /// Sets how long a message waits for room in the queue. The default is [`NOTIFY_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns whether there is a service manager to tell.
    #[must_use]
    pub fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// Returns whether there is a manager that fds can be sent to.
    pub(crate) fn carries_fds(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| matches!(manager.receiver, Receiver::Unix(_)))
    }

    /// Sends the message, and blocks for at most the timeout if the manager's queue is full.
    ///
    /// # Errors
    ///
    /// Nobody receives at `NOTIFY_SOCKET`, or there was no room within the timeout
    /// ([`Error::is_timeout`]).
    pub fn send(&self, message: &Message) -> Result<Delivery> {
        self.send_with_fds(message, &[])
    }

    /// Sends as [`send`](Self::send) does, with fds, of which the manager gets copies.
    ///
    /// # Errors
    ///
    /// It fails as [`send`](Self::send) does; and because a vsock cannot carry fds.
    pub fn send_with_fds(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<Delivery> {
        self.transmit(message.encode().as_bytes(), fds, after(self.timeout))
    }

    /// Sends as [`send`](Self::send) does, for a tokio runtime with I/O and time.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the message was sent as a whole or not at all; on a vsock stream
    /// too, unless the connection breaks at that moment.
    ///
    /// # Errors
    ///
    /// It fails as [`send`](Self::send) does.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime, or in one without I/O or time, when it has to wait.
    pub async fn send_async(&self, message: &Message) -> Result<Delivery> {
        self.transmit_async(message.encode().as_bytes(), &[], self.timeout).await
    }

    pub(crate) fn transmit(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<Delivery> {
        let Some(manager) = &self.manager else {
            return Ok(Delivery::NoManager);
        };
        let socket = manager.connect(fds)?;
        loop {
            match manager.try_send(socket.as_fd(), bytes, fds)? {
                Attempt::Sent => return Ok(Delivery::Sent),
                Attempt::NoRoom => match socket::wait(socket.as_fd(), PollFlags::POLLOUT, deadline) {
                    Ok(true) => {}
                    Ok(false) => return Err(manager.timed_out()),
                    Err(error) => return Err(manager.failed(error)),
                },
                Attempt::TooMany(error) if Instant::now() >= deadline => return Err(manager.failed(error)),
                Attempt::TooMany(_) => thread::sleep(TOO_MANY_PAUSE),
            }
        }
    }

    pub(crate) async fn transmit_async(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<Delivery> {
        let Some(manager) = &self.manager else {
            return Ok(Delivery::NoManager);
        };
        let socket = manager.connect(fds)?;
        // The usual case: there is room, and nothing need be registered with the runtime.
        if matches!(manager.try_send(socket.as_fd(), bytes, fds)?, Attempt::Sent) {
            return Ok(Delivery::Sent);
        }
        let waiting = async {
            let socket = socket::register(socket, Interest::WRITABLE).map_err(|error| manager.failed(error))?;
            loop {
                let mut guard = socket.writable().await.map_err(|error| manager.failed(error))?;
                match manager.try_send(socket.as_fd(), bytes, fds)? {
                    Attempt::Sent => return Ok(Delivery::Sent),
                    Attempt::NoRoom => guard.clear_ready(),
                    Attempt::TooMany(_) => tokio::time::sleep(TOO_MANY_PAUSE).await,
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| Err(manager.timed_out()))
    }
}

/// What became of one try.
enum Attempt {
    Sent,
    /// There is no room yet, or the connection is still being made.
    NoRoom,
    /// More fds of this user are on their way, in whatever process, than this one may have open.
    TooMany(io::Error),
}

impl ManagerSocket {
    fn connect(&self, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
        if !fds.is_empty() && !matches!(self.receiver, Receiver::Unix(_)) {
            let why =
                format!("{}: a vsock carries no file descriptors, so neither a barrier nor an fd store", self.name);
            return Err(Error::new(Kind::Notify, why));
        }
        self.receiver.connect().map_err(|error| self.failed(error))
    }

    fn try_send(&self, socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Attempt> {
        match scm::send(socket, bytes, fds) {
            Ok(sent) if sent == bytes.len() => Ok(Attempt::Sent),
            Ok(_) => Err(self.failed(io::ErrorKind::WriteZero.into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Attempt::NoRoom)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                socket::pending_error(socket).map(|()| Attempt::NoRoom).map_err(|error| self.failed(error))
            }
            Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => Ok(Attempt::TooMany(error)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::caused(Kind::Notify, format!("{}: cannot notify the service manager", self.name), error)
    }

    fn timed_out(&self) -> Error {
        Error::new(Kind::Timeout, format!("{}: the service manager's queue stayed full; is it alive?", self.name))
    }
}

/// Returns `CLOCK_MONOTONIC` in microseconds, for [`Message::reloading`].
#[must_use]
pub fn monotonic_usec() -> u64 {
    // The clock always exists, and starts at boot.
    let now = nix::time::clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Returns the deadline; one that no [`Instant`] can hold is in a year.
pub(crate) fn after(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + YEAR)
}

fn parse(value: &OsStr) -> Result<Receiver> {
    let invalid = |why: &str| Error::new(Kind::Invalid, format!("NOTIFY_SOCKET={value:?} {why}"));
    let too_long = |_| invalid("is not usable as a socket address: longer than 107 bytes, or with a NUL");
    match value.as_bytes() {
        [b'/', ..] => UnixAddr::new(value).map(Receiver::Unix).map_err(too_long),
        [b'@', name @ ..] if !name.is_empty() => UnixAddr::new_abstract(name).map(Receiver::Unix).map_err(too_long),
        _ => value
            .to_str()
            .and_then(vsock)
            .ok_or_else(|| invalid("is no path, @name or vsock:CID:PORT (vsock-stream, vsock-dgram, vsock-seqpacket)")),
    }
}

fn vsock(value: &str) -> Option<Receiver> {
    let (kind, address) = value.split_once(':')?;
    let kind = match kind {
        "vsock" => None,
        "vsock-stream" => Some(SockType::Stream),
        "vsock-dgram" => Some(SockType::Datagram),
        "vsock-seqpacket" => Some(SockType::SeqPacket),
        _ => return None,
    };
    let (cid, port) = address.split_once(':')?;
    let (cid, port) = (cid.parse().ok()?, port.parse().ok()?);
    // "any" is for binding.
    (cid != u32::MAX && port != u32::MAX).then(|| Receiver::Vsock { address: VsockAddr::new(cid, port), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(value: &str) -> Result<Notifier> {
        Notifier::from_env(&Environment::from_pairs([("NOTIFY_SOCKET", value)]))
    }

    #[test]
    fn addresses() {
        for good in [
            "/run/systemd/notify",
            "@name",
            "vsock:2:1234",
            "vsock-stream:1:1",
            "vsock-dgram:1:1",
            "vsock-seqpacket:1:1",
        ] {
            assert!(from(good).expect("valid").has_manager(), "{good}");
        }
        let long = format!("/{}", "x".repeat(108));
        let bad = ["run/notify", "vsock:1", "vsock::", "vsock:1:x", "vsock:4294967295:1", "vsock-raw:1:1", "x", &long];
        for bad in bad {
            let error = from(bad).expect_err("malformed");
            assert!(error.is_invalid(), "{bad}");
            assert!(error.to_string().starts_with(&format!("NOTIFY_SOCKET={bad:?} ")), "{error}");
        }
    }

    #[test]
    fn no_manager() {
        let nobody = Notifier::from_env(&Environment::default()).expect("valid");
        assert_eq!(nobody.send(&Message::new().ready()).expect("valid"), Delivery::NoManager);
        assert_eq!(nobody.barrier(BARRIER_TIMEOUT).expect("valid"), Delivery::NoManager);
        assert!(!from("").expect("valid").has_manager());
    }
}
