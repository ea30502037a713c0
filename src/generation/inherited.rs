//! What a generation got from the one before it.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::generation::link::Idle;
use crate::sys::{link, memfd};
use crate::systemd::environment::Environment;
use crate::wire::frame::{Frame, Hello};

/// The link is one fd, to be owned once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// An older generation that still drains, and the link to it. It is gone when the link is closed.
#[derive(Debug)]
pub(crate) struct InheritedDrainer {
    pub(crate) generation: u64,
    pub(crate) pid: u32,
    pub(crate) draining: Duration,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) link: OwnedFd,
}

/// The previous generation's first frame, and what came with it.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) link: Idle,
    pub(crate) hello: Hello,
    pub(crate) drainers: Vec<InheritedDrainer>,
    pub(crate) state: Option<Vec<u8>>,
}

impl Inherited {
    /// Takes what was inherited. It is `None` if nobody handed anything to this process (a first
    /// start, or variables that were meant for an ancestor).
    pub(crate) fn from_env(environment: &Environment, pid: u32) -> Result<Option<Self>> {
        let number = |name: &str| environment.get(name).and_then(|v| v.to_str()).and_then(|v| v.parse::<u32>().ok());
        let (Some(fd), Some(meant)) = (number("HANDOVER_FD"), number("HANDOVER_PID")) else { return Ok(None) };
        if meant != pid {
            return Ok(None);
        }
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(Error::new(Kind::State, "a second service was started in this process: it can have one only"));
        }
        let adopted = RawFd::try_from(fd).map_err(|_| nix::errno::Errno::EBADF.into()).and_then(link::adopt);
        let adopted = adopted.map_err(|e| {
            Error::caused(Kind::Generation, format!("HANDOVER_FD={fd} is not the link to the previous generation"), e)
        })?;
        let idle = Idle::from_fd(adopted);
        let (frame, fds) = idle.receive()?;
        let Frame::Hello(hello) = frame else {
            return Err(Error::new(
                Kind::Protocol,
                format!("expected hello from the previous generation, got {frame:?}"),
            ));
        };
        let mut fds = fds.into_iter();
        let mut missing = || fds.next().ok_or_else(|| Error::new(Kind::Protocol, "hello came with too few fds"));
        let mut drainers = Vec::new();
        for drainer in &hello.drainers {
            let draining = Duration::from_millis(drainer.draining_ms);
            let drain_timeout = drainer.drain_timeout_ms.map(Duration::from_millis);
            let (generation, pid) = (drainer.generation, drainer.pid);
            drainers.push(InheritedDrainer { generation, pid, draining, drain_timeout, link: missing()? });
        }
        let state = if hello.state {
            let bytes = memfd::read(missing()?);
            Some(bytes.map_err(|e| Error::os("the previous generation's state cannot be read", e))?)
        } else {
            None
        };
        // If the previous generation is gone already, the closed link says so later, to somebody
        // who knows what to do.
        let _ = idle.send(&Frame::Started { version: env!("CARGO_PKG_VERSION").into() }, &[]);
        Ok(Some(Self { link: idle, hello, drainers, state }))
    }
}
