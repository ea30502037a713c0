//! Finds out when a generation of a foreign program is ready.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::time::Duration;

use nix::sys::stat::fstat;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::error::{Error, Kind, Result};
use crate::supervise::inheritance::Item;
use crate::supervise::tree::ProcessFamily;
use crate::sys::{diag::Diag, queue};

/// The time from one attempt of a probe to the next.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long one attempt may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether a connection was accepted, and by whom.
const LOOK: Duration = Duration::from_millis(2);
/// Longest answer to a probe that is read, in bytes: only its first line counts.
const MAX_ANSWER: usize = 1024;

/// How it is known that a generation is ready: until then the previous one is not told to go.
///
/// While a generation gets ready, the previous one accepts on the same sockets. So an answer on
/// such a socket says nothing by itself; what does is who accepted the connection, and that the
/// kernel tells ([sock_diag(7)]). A probe's connection that another process than one of the new
/// generation accepts is closed, without a byte sent, and made again.
///
/// [sock_diag(7)]: https://man7.org/linux/man-pages/man7/sock_diag.7.html
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ready {
    /// It says `READY=1` (sd_notify(3)).
    #[default]
    Notify,
    /// It accepts a connection, on the socket of that name or else the first one that listens.
    /// Nothing is sent.
    Accept(Option<String>),
    /// It accepts a connection, and answers `GET` of that path with a status from 200 to 399.
    Http {
        /// The name of the socket; `None`: the first one that listens.
        socket: Option<String>,
        /// Beginning with `/`.
        path: String,
    },
    /// This command ends with 0. It is run again and again, with `HANDOVER_PID` and
    /// `HANDOVER_GENERATION` of the generation that is meant.
    Command(Vec<OsString>),
    /// It is alive after this time. This is for programs that tell in no way, and is worth as much
    /// as start_server's `--interval`.
    Delay(Duration),
}

impl Ready {
    /// Refuses what can never be.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = match self {
            Self::Http { path, .. }
                if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) =>
            {
                "the path of a probe begins with / and has no blanks"
            }
            Self::Command(command) if command.is_empty() => "a command has a program at least",
            Self::Delay(time) if *time > Duration::from_secs(3600) => "a delay above an hour is none",
            _ => return Ok(()),
        };
        Err(Error::new(Kind::Invalid, format!("{wrong}: {self:?}")))
    }

    /// Says why a generation is not ready.
    pub(crate) fn unmet(&self) -> &'static str {
        match self {
            Self::Notify => {
                "it never said READY=1 (sd_notify); for a program that does not, choose another --ready, such as accept"
            }
            Self::Accept(_) => "it accepted no connection",
            Self::Http { .. } => "it answered no probe",
            Self::Command(_) => "the command never ended with 0",
            Self::Delay(_) => "the delay is longer than that",
        }
    }
}

/// Where a probe connects to.
#[derive(Debug, Clone)]
pub(crate) enum ProbeTarget {
    Tcp(SocketAddr),
    Unix(UnixAddress),
}

/// What a probe must do.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    target: ProbeTarget,
    path: Option<String>,
}

impl Probe {
    /// Makes the probe; `None`: there is none.
    pub(crate) fn of(ready: &Ready, items: &[Item]) -> Result<Option<Self>> {
        let (name, path) = match ready {
            Ready::Accept(name) => (name, None),
            Ready::Http { socket, path } => (socket, Some(path.clone())),
            Ready::Notify | Ready::Command(_) | Ready::Delay(_) => return Ok(None),
        };
        let mut listening = items.iter().filter(|item| item.accepts());
        let item = listening.find(|item| name.as_ref().is_none_or(|name| item.name == *name)).ok_or_else(|| {
            let which = name.as_ref().map_or("no socket that listens".to_owned(), |n| format!("no socket {n:?}"));
            Error::new(Kind::Invalid, format!("readiness cannot be probed: there is {which}"))
        })?;
        let address = queue::bound_to(item.fd.as_fd()).unwrap_or_default();
        let target = match (address.strip_prefix("unix:"), address.parse::<SocketAddr>()) {
            (Some(path), _) => ProbeTarget::Unix(
                match path.strip_prefix('@') {
                    Some(name) => UnixAddress::from_abstract_name(name),
                    None => UnixAddress::from_pathname(path),
                }
                .map_err(|e| Error::os(format!("readiness cannot be probed at {address:?}"), e))?,
            ),
            (None, Ok(inet)) => ProbeTarget::Tcp(SocketAddr::new(reachable(inet.ip()), inet.port())),
            (None, Err(_)) => return Err(Error::new(Kind::Invalid, format!("{address:?} cannot be probed"))),
        };
        Ok(Some(Self { target, path }))
    }

    /// Probes until that has succeeded.
    pub(crate) async fn succeed(&self, family: &ProcessFamily) {
        let mut last = String::new();
        loop {
            let why = match timeout(PROBE_TIMEOUT, self.attempt(family)).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {
                    // Another generation took it: the next one may be ours.
                    sleep(LOOK).await;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {PROBE_TIMEOUT:?}"),
            };
            if why != last {
                debug!("not ready yet: {why}");
                last = why;
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Makes one attempt. False: somebody else has accepted the connection.
    async fn attempt(&self, family: &ProcessFamily) -> std::io::Result<bool> {
        match &self.target {
            ProbeTarget::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
                let diag = Diag::open()?;
                // The listener itself is found where there is no connection of that address yet.
                let acceptor = || Ok(diag.tcp(remote, local)?.filter(|found| found.sends).map(|found| found.inode));
                let ours = self.accepted_by(family, acceptor).await?;
                Ok(ours && self.answered(stream).await?)
            }
            ProbeTarget::Unix(address) => {
                let stream = std::os::unix::net::UnixStream::connect_addr(address)?;
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                let (diag, own) = (Diag::open()?, fstat(&stream)?.st_ino);
                let ours = self.accepted_by(family, || diag.unix_peer(own)).await?;
                Ok(ours && self.answered(stream).await?)
            }
        }
    }

    async fn accepted_by(
        &self,
        family: &ProcessFamily,
        acceptor: impl Fn() -> std::io::Result<Option<u64>>,
    ) -> std::io::Result<bool> {
        loop {
            if let Some(inode) = acceptor()? {
                return Ok(family.holds_socket(inode));
            }
            sleep(LOOK).await;
        }
    }

    async fn answered(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<bool> {
        let Some(path) = &self.path else { return Ok(true) };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: handover\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') && answer.len() < MAX_ANSWER && stream.read_buf(&mut answer).await? > 0 {}
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        let status: Option<u16> = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        match status {
            Some(200..=399) => Ok(true),
            _ => Err(std::io::Error::other(format!("GET {path} is answered by {line:?}"))),
        }
    }
}

/// Runs the command again and again until it has ended with 0.
pub(crate) async fn ask(command: Vec<OsString>, generation: u64, pid: u32) {
    let Some((program, arguments)) = command.split_first() else { return std::future::pending().await };
    loop {
        let mut asking = tokio::process::Command::new(program);
        asking.args(arguments).env("HANDOVER_GENERATION", generation.to_string()).env("HANDOVER_PID", pid.to_string());
        asking.stdin(std::process::Stdio::null()).kill_on_drop(true);
        match timeout(PROBE_TIMEOUT, asking.status()).await {
            Ok(Ok(status)) if status.success() => return,
            Ok(Ok(status)) => debug!(generation, "not ready yet: {} {status}", program.display()),
            Ok(Err(error)) => debug!(generation, %error, "{} cannot be run", program.display()),
            Err(_) => debug!(generation, "{} did not end within {PROBE_TIMEOUT:?}", program.display()),
        }
        sleep(PROBE_INTERVAL).await;
    }
}

/// Names an address to connect to: one that stands for all is none.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
