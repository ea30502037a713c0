//! Finds sockets by name: those that systemd passed, those of the previous generation, or, without
//! either, bound ones.
//!
//! ```no_run
//! use handover::systemd::activation::{self, Activation};
//! use handover::systemd::environment::Environment;
//!
//! # fn main() -> handover::Result<()> {
//! let mut activation = Activation::from_env(&Environment::capture())?;
//! let listeners = if activation.contains("http") {
//!     activation.listeners("http")?
//! } else {
//!     activation::bind("127.0.0.1:8080")?
//! };
//! for name in activation.close_unclaimed() {
//!     eprintln!("nothing serves the socket {name:?}");
//! }
//! for listener in listeners {
//!     println!("listening at {}", listener.local_addr()?);
//!     // For tokio as it is; for std's `incoming()`: `listener.into_blocking()?`.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # References
//!
//! [sd_listen_fds(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html),
//! [systemd.socket(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.socket.html)

use crate::error::{Error, Kind, Result};
use crate::sys::pidfd;
use crate::sys::socket as sys;
use crate::systemd::environment::Environment;
use crate::systemd::typed;
use crate::wire::listen::{self, Listen};
use listenfd::ListenFd;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;

pub use crate::systemd::bind::{SOCKET_MODE, bind, bind_datagram, bind_seqpacket};
pub(crate) use crate::systemd::socket::{FromPassed, Need};
pub use crate::systemd::socket::{Listener, LocalAddr, Socket, SocketKind};
pub use crate::systemd::typed::{PassedConnection, SeqpacketListener};
pub(crate) use crate::systemd::typed::{RECEIVED, UDP};

/// Where the sockets of an [`Activation`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// They were passed with `LISTEN_FDS`, by systemd or by the previous generation.
    Environment,
    /// They were given to [`Activation::from_fds`].
    Given,
    /// There is no `LISTEN_FDS`, or it is 0.
    Nothing,
    /// There is a `LISTEN_FDS`, but `LISTEN_PID`, or `LISTEN_PIDFDID` beside it, names another
    /// process, or, if None, is not set.
    /// Nothing was touched.
    NotForUs(Option<u32>),
}

/// The sockets that were passed to this process, each under a name; one name may have several.
///
/// They are known by name and never by position, because their order between several .socket units
/// is undefined. A name is the `FileDescriptorName=` of the .socket unit, without it the unit's own
/// name, as in `web.socket`.
///
/// Dropping it closes what was not taken.
#[derive(Debug)]
#[doc(alias = "LISTEN_FDS")]
#[doc(alias = "sd_listen_fds_with_names")]
pub struct Activation {
    source: Source,
    sockets: Vec<Socket>,
    taken: Vec<String>,
}

impl Activation {
    /// Takes the sockets that `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` pass to this process.
    /// `LISTEN_PIDFDID` (systemd 259) must name it as well, where it is set.
    ///
    /// They are made close-on-exec. A socket that arrives twice under one name, as one does that is
    /// both of a .socket unit and in the fd store, is kept once.
    ///
    /// Unlike other implementations this one takes nothing when `LISTEN_PID` is missing. Sockets
    /// can be taken once per process: if there are any, `LISTEN_PID` and `LISTEN_FDS` are then
    /// removed from the environment of the process (not from the captured value), which the crate
    /// `listenfd` does. As any change of the environment it must not coincide with a getenv(3) of C
    /// code in another thread: call this early in `main`.
    ///
    /// # Errors
    ///
    /// A variable is malformed, an fd that it names is not open or was opened by this process
    /// itself, or the sockets were taken before.
    pub fn from_env(environment: &Environment) -> Result<Self> {
        let (get, limit) = (|name: &str| environment.get(name), sys::max_open_files());
        let fds = match listen::parse(get, std::process::id(), pidfd::own_id, limit)? {
            Listen::Passed(fds) => fds,
            Listen::Nothing => return Ok(Self::without(Source::Nothing)),
            Listen::NotForUs(pid) => return Ok(Self::without(Source::NotForUs(pid))),
        };
        let count = fds.len();
        let not_open = |fd: i32, name: &str| format!("LISTEN_FDS={count}: fd {fd} named {name:?} is not open");
        if let Some((fd, name)) = fds.iter().find(|(fd, _)| !sys::is_open(*fd)) {
            return Err(Error::new(Kind::Socket, not_open(*fd, name)));
        }
        if let Some(first) = environment.get("LISTEN_FDS_FIRST_FD") {
            let why = format!("LISTEN_FDS_FIRST_FD={first:?} is not systemd's; unset it, the sockets begin at fd 3");
            return Err(Error::new(Kind::Invalid, why));
        }
        // What was passed has come through an execve(2). The number may be another file's by now,
        // which is not to be taken, nor closed: such as the one by which a runtime waits for all
        // others.
        let is_ours = std::env::var_os("LISTEN_FDS").is_some();
        if let Some((fd, name)) = fds.iter().find(|(fd, _)| is_ours && sys::is_cloexec(*fd)) {
            let why = "was opened in this process: it is close-on-exec, and what was passed is closed; take the sockets \
                       before anything else is opened, and set LISTEN_FDS to what is passed";
            return Err(Error::new(Kind::Socket, format!("LISTEN_FDS={count}: fd {fd} named {name:?} {why}")));
        }
        // Only now: it takes a missing LISTEN_PID for a match, and removes the variables also when
        // they are not ours.
        let mut passed = ListenFd::from_env();
        if passed.len() != count {
            let why = "LISTEN_FDS: the sockets were already taken in this process, or the environment is not its own";
            return Err(Error::new(Kind::State, why));
        }
        let mut sockets = Vec::with_capacity(count);
        for (index, (fd, name)) in fds.into_iter().enumerate() {
            let socket = match sys::take(&mut passed, index) {
                Ok(Some(taken)) => Socket::new(name, taken),
                Ok(None) => return Err(Error::new(Kind::Socket, not_open(fd, &name))),
                Err(error) => Err(error),
            };
            sockets.push(socket.map_err(|error| unusable(&format!("fd {fd}"), error))?);
        }
        Self::new(Source::Environment, sockets)
    }

    /// Takes sockets that came in another way, each under its name. They are made close-on-exec.
    ///
    /// # Errors
    ///
    /// The operating system does not say what an fd is.
    pub fn from_fds(fds: Vec<(String, OwnedFd)>) -> Result<Self> {
        let mut sockets = Vec::with_capacity(fds.len());
        for (name, fd) in fds {
            let what = format!("{name:?}");
            let socket = sys::set_cloexec(fd.as_fd()).and_then(|()| Socket::new(name, fd));
            sockets.push(socket.map_err(|error| unusable(&what, error))?);
        }
        Self::new(Source::Given, sockets)
    }

    /// Returns where the sockets come from, or why there are none.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Lists the names of what was passed and not yet taken, each once, in the order of the fds.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for name in self.sockets.iter().map(Socket::name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Lists what was passed and not yet taken.
    pub(crate) fn passed(&self) -> &[Socket] {
        &self.sockets
    }

    /// Tells whether something of that name can be taken.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.sockets.iter().any(|socket| socket.name() == name)
    }

    /// Takes everything of that name, whatever it is, in the order of the fds: at least one.
    ///
    /// # Errors
    ///
    /// Nothing of that name was passed, or it was taken before ([`Error::is_socket`]).
    pub fn take(&mut self, name: &str) -> Result<Vec<Socket>> {
        self.check(name)?;
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|socket| socket.name() == name);
        self.sockets = left;
        self.taken.push(name.to_owned());
        Ok(taken)
    }

    /// Takes the listening TCP and Unix stream sockets of that name, nonblocking from now on: at
    /// least one. For loops that block see [`Listener::into_blocking`].
    ///
    /// # Errors
    ///
    /// They are those of [`take`](Self::take); and one of them is of another kind or does not
    /// listen: then none is taken.
    pub fn listeners(&mut self, name: &str) -> Result<Vec<Listener>> {
        self.take_as(name)
    }

    /// Takes all of that name or, if one of them is of another kind than is needed, none.
    pub(crate) fn take_checked(&mut self, name: &str, need: &Need) -> Result<Vec<Socket>> {
        self.sockets.iter().filter(|socket| socket.name() == name).try_for_each(|socket| socket.check(need))?;
        self.take(name)
    }

    /// Takes all of that name and converts them or, if one of them cannot be converted, takes none.
    fn take_as<T: FromPassed>(&mut self, name: &str) -> Result<Vec<T>> {
        self.take_checked(name, &T::NEED)?.into_iter().map(T::from_passed).collect()
    }

    /// Closes what was not taken. Returns a name for each fd that was closed, for the log.
    pub fn close_unclaimed(&mut self) -> Vec<String> {
        self.sockets.drain(..).map(|socket| socket.name().to_owned()).collect()
    }

    fn new(source: Source, all: Vec<Socket>) -> Result<Self> {
        let mut sockets: Vec<Socket> = Vec::with_capacity(all.len());
        'all: for socket in all {
            // Not across names: both may be asked for.
            for other in sockets.iter().filter(|other| other.name() == socket.name()) {
                let same = sys::same(other.as_fd(), socket.as_fd());
                if same.map_err(|error| unusable(&format!("{:?}", socket.name()), error))? {
                    continue 'all;
                }
            }
            sockets.push(socket);
        }
        Ok(Self { source, sockets, taken: Vec::new() })
    }

    fn without(source: Source) -> Self {
        Self { source, sockets: Vec::new(), taken: Vec::new() }
    }

    /// Says why what was passed is not for this process. `None`: it is, or nothing was passed.
    pub(crate) fn why_not_ours(&self) -> Option<String> {
        let Source::NotForUs(owner) = self.source else { return None };
        let me = std::process::id();
        Some(match owner {
            Some(pid) if pid == me => format!(
                "LISTEN_PID={pid} is this process, and LISTEN_PIDFDID is not its: \
                 whoever sets the one must set or unset the other"
            ),
            Some(pid) => format!("LISTEN_PID={pid} is not this process, which is {me}"),
            None => "LISTEN_FDS is set without LISTEN_PID".to_owned(),
        })
    }

    fn check(&self, name: &str) -> Result<()> {
        if self.contains(name) {
            return Ok(());
        }
        let why = if self.taken.iter().any(|taken| taken == name) {
            format!("the sockets named {name:?} were already taken; a name can be taken once")
        } else {
            match (self.source, self.names()) {
                (Source::Nothing, _) => {
                    format!("no socket named {name:?}: LISTEN_FDS is not set, none was passed")
                }
                (Source::NotForUs(_), _) => {
                    format!("no socket named {name:?}: {}", self.why_not_ours().unwrap_or_default())
                }
                (_, names) => {
                    let names = if names.is_empty() { "nothing more".to_owned() } else { format!("{names:?}") };
                    format!(
                        "no socket named {name:?} was passed, there is {names}: \
                         set FileDescriptorName={name} in the .socket unit"
                    )
                }
            }
        };
        Err(Error::new(Kind::Socket, why))
    }
}

/// Each of these takes everything of a name, at least one fd, or nothing: the errors are those of
/// [`take`](Activation::take), and one of them is of another kind.
impl Activation {
    /// Takes the listening Unix seqpacket sockets (`ListenSequentialPacket=`), nonblocking from now
    /// on.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn seqpacket_listeners(&mut self, name: &str) -> Result<Vec<SeqpacketListener>> {
        self.take_as(name)
    }

    /// Takes the UDP sockets (`ListenDatagram=` with a port).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn udp_sockets(&mut self, name: &str) -> Result<Vec<UdpSocket>> {
        self.take_fds(name, &UDP)
    }

    /// Takes the Unix datagram sockets (`ListenDatagram=` with a path or `@name`).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn unix_datagrams(&mut self, name: &str) -> Result<Vec<UnixDatagram>> {
        self.take_fds(name, &typed::UNIX_DATAGRAM)
    }

    /// Takes the FIFOs (`ListenFIFO=`). systemd has opened them for reading and writing, so they
    /// never end.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn fifos(&mut self, name: &str) -> Result<Vec<File>> {
        self.take_fds(name, &typed::FIFO)
    }

    /// Takes the netlink sockets (`ListenNetlink=`).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn netlinks(&mut self, name: &str) -> Result<Vec<OwnedFd>> {
        self.take_fds(name, &typed::NETLINK)
    }

    /// Takes the POSIX message queues (`ListenMessageQueue=`), for mq_receive(3).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn message_queues(&mut self, name: &str) -> Result<Vec<OwnedFd>> {
        self.take_fds(name, &typed::MESSAGE_QUEUE)
    }

    /// Takes the special files (`ListenSpecial=`): devices, or files of /proc and /sys.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn specials(&mut self, name: &str) -> Result<Vec<File>> {
        self.take_fds(name, &typed::SPECIAL)
    }

    /// Takes the one connection of a process that `Accept=yes` started. systemd calls it
    /// `connection` unless `FileDescriptorName=` says otherwise. `REMOTE_ADDR` and `REMOTE_PORT`
    /// say what its `peer_addr()` does.
    ///
    /// # Errors
    ///
    /// See above; and there are several.
    #[doc(alias = "inetd")]
    pub fn connection(&mut self, name: &str) -> Result<PassedConnection> {
        let mut connections = self.take_as(name)?;
        match (connections.pop(), connections.is_empty()) {
            (Some(connection), true) => Ok(connection),
            _ => {
                let why = format!("there are several connections named {name:?}; Accept=yes passes one");
                Err(Error::new(Kind::Socket, why))
            }
        }
    }

    fn take_fds<T: From<OwnedFd>>(&mut self, name: &str, need: &Need) -> Result<Vec<T>> {
        Ok(self.take_checked(name, need)?.into_iter().map(|socket| OwnedFd::from(socket).into()).collect())
    }
}

fn unusable(what: &str, error: io::Error) -> Error {
    Error::caused(Kind::Socket, format!("LISTEN_FDS: {what} cannot be used"), error)
}
