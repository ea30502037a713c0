//! The handshake, as part of the drain: counted from accept(2) on, and never longer than its
//! timeout.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::handle::Tls;
use super::records::Records;
use super::stream::TlsStream;
use crate::drain::{Accepted, Drain, Guard, Peer, Phase, Stream, Work, later, since};
use crate::error::{Error, Kind, Result};
use crate::sys::look::{Look, look};

/// How long a client may take to close after its handshake failed, so that it reads why.
const FAILED_LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and dropped meanwhile, at most.
const FAILED_DISCARD: usize = 1 << 20;

impl Tls {
    /// Does the handshake of a connection that an [`Acceptor`](crate::drain::Acceptor) returned.
    /// `what` names the connection if it must be cut; the guard counts it until dropped, and its
    /// [`cut`](Guard::cut) says when that is.
    ///
    /// It is over within [the handshake timeout](super::TlsOptions::handshake_timeout). In a drain,
    /// a client that has sent nothing yet is waited for until the end of linger, and one in the
    /// middle of its handshake until that timeout.
    ///
    /// ```no_run
    /// # async fn example(service: &handover::Service, tls: handover::tls::Tls) -> handover::Result<()> {
    /// use handover::drain::Acceptor;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// for listener in service.listeners("time")? {
    ///     let (tls, mut acceptor) = (tls.clone(), Acceptor::new(service.drain(), "time", listener));
    ///     tokio::spawn(async move {
    ///         while let Some(accepted) = acceptor.accept().await {
    ///             let tls = tls.clone();
    ///             tokio::spawn(async move {
    ///                 let what = format!("time to {}", accepted.peer());
    ///                 let (mut stream, _guard) = tls.accept(accepted, what).await?;
    ///                 let _ = stream.write_all(b"noon\n").await;
    ///                 let _ = stream.shutdown().await;
    ///                 Ok::<_, handover::Error>(())
    ///             });
    ///         }
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The handshake failed ([`Error::is_protocol`]), took too long ([`Error::is_timeout`]), or was
    /// cut by the drain ([`Error::is_state`]). These are the client's affair: not worth more than a
    /// debug message.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn accept(&self, accepted: Accepted, what: impl Into<String>) -> Result<(TlsStream, Guard)> {
        let what = what.into();
        let drain = accepted.entering.drain().clone();
        let (stream, _guard) = self.enter(accepted, &what, self.config()).await?;
        Ok((stream, drain.register(what)))
    }

    /// Does the handshake of a connection that may go to another process later.
    #[cfg(feature = "http")]
    pub(crate) async fn enter_to_move(
        &self,
        accepted: Accepted,
        what: &str,
        config: Arc<ServerConfig>,
    ) -> Result<(TlsStream, Guard)> {
        let (capture, config) = super::record::KeyCapture::of(&config);
        let (stream, guard) = self.handshake(accepted, what, config, true).await?;
        Ok((stream.with(&capture), guard))
    }

    /// Does the handshake. The guard that it returns is the handshake's, to be exchanged for one of
    /// the connection.
    pub(crate) async fn enter(
        &self,
        accepted: Accepted,
        what: &str,
        config: Arc<ServerConfig>,
    ) -> Result<(TlsStream, Guard)> {
        self.handshake(accepted, what, config, false).await
    }

    async fn handshake(
        &self,
        accepted: Accepted,
        what: &str,
        config: Arc<ServerConfig>,
        may_move: bool,
    ) -> Result<(TlsStream, Guard)> {
        let Accepted { stream, peer, entering } = accepted;
        let drain = entering.drain().clone();
        let work = Arc::new(Handshake { what: what.to_owned(), opened: Instant::now(), look: Notify::new(), may_move });
        let guard = entering.track(Arc::clone(&work) as _);
        let end = later(work.opened, self.handshake_timeout());
        match work.run(stream, &drain, end, config).await {
            Ok(stream) => Ok((stream, guard)),
            Err(failure) => Err(failure.told(peer)),
        }
    }
}

/// What the drain knows of a handshake.
struct Handshake {
    what: String,
    opened: Instant,
    look: Notify,
    may_move: bool,
}

impl Work for Handshake {
    fn wake(&self) {
        self.look.notify_one();
    }

    fn doing(&self) -> Option<String> {
        Some(format!("{}: TLS handshake, open for {:?}", self.what.escape_debug(), since(self.opened)))
    }

    /// One that says nothing is waited for, too, no longer than it lingers.
    fn is_coming(&self) -> bool {
        self.may_move
    }
}

enum Failure {
    Io(io::Error),
    /// Linger is over, and the client has sent nothing.
    Silent,
    TimedOut,
    Hammered,
}

impl Handshake {
    async fn run(
        &self,
        stream: Stream,
        drain: &Drain,
        end: Instant,
        config: Arc<ServerConfig>,
    ) -> Result<TlsStream, Failure> {
        self.first_bytes(&stream, drain, end).await?;
        let mut accept = pin!(TlsAcceptor::from(config).accept(Records::new(stream)).into_fallible());
        loop {
            if drain.phase() == Phase::Hammered {
                return Err(Failure::Hammered);
            }
            tokio::select! {
                biased;
                done = &mut accept => match done {
                    Ok(stream) => return Ok(TlsStream::new(stream)),
                    Err((error, records)) => {
                        self.explain(records.into_stream(), drain).await;
                        return Err(Failure::Io(error));
                    }
                },
                () = self.look.notified() => {}
                () = sleep_until(end) => return Err(Failure::TimedOut),
            }
        }
    }

    /// Waits for the first bytes. Until then it is a fresh connection like any other, and lingers.
    async fn first_bytes(&self, stream: &Stream, drain: &Drain, end: Instant) -> Result<(), Failure> {
        loop {
            let until = match drain.phase() {
                Phase::Open => end,
                Phase::Draining => end.min(drain.linger_end(self.opened)),
                Phase::Hammered => return Err(Failure::Hammered),
            };
            tokio::select! {
                biased;
                ready = readable(stream) => return ready.map_err(Failure::Io),
                () = self.look.notified() => {}
                () = sleep_until(until) => {
                    return match look(stream.as_fd()) {
                        Look::Bytes => Ok(()), // epoll has not told us yet
                        _ if until < end => Err(Failure::Silent),
                        _ => Err(Failure::TimedOut),
                    };
                }
            }
        }
    }

    /// Waits until the client has read the alert that says why. If the socket were closed with
    /// bytes unread, the kernel would send a reset after it, which destroys it.
    async fn explain(&self, mut stream: Stream, drain: &Drain) {
        let end = Instant::now() + FAILED_LINGER;
        let discard = async {
            let (mut space, mut left) = ([0; 4096], FAILED_DISCARD);
            stream.shutdown().await?;
            while left > 0 {
                match stream.read(&mut space).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            io::Result::Ok(())
        };
        let mut discard = pin!(timeout_at(end, discard));
        while drain.phase() != Phase::Hammered {
            tokio::select! {
                biased;
                _ = &mut discard => return,
                () = self.look.notified() => {}
            }
        }
    }
}

/// Waits until something is there to be read, be it the end. tokio takes every new socket for
/// readable until it was tried.
async fn readable(stream: &Stream) -> io::Result<()> {
    let tried = || match look(stream.as_fd()) {
        Look::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        Look::Bytes | Look::End => Ok(()),
    };
    loop {
        let tried = match stream {
            Stream::Tcp(stream) => {
                stream.readable().await?;
                stream.try_io(Interest::READABLE, tried)
            }
            Stream::Unix(stream) => {
                stream.readable().await?;
                stream.try_io(Interest::READABLE, tried)
            }
        };
        match tried {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

impl Failure {
    fn told(self, peer: Peer) -> Error {
        let (kind, why): (_, &dyn fmt::Display) = match &self {
            Self::Io(error) => (Kind::Protocol, error),
            Self::Silent => (Kind::State, &"this generation drains, and the client has sent nothing"),
            Self::TimedOut => (Kind::Timeout, &"it took longer than the handshake timeout"),
            Self::Hammered => (Kind::State, &"the drain timeout is over"),
        };
        Error::new(kind, format!("no TLS handshake with {peer}: {why}"))
    }
}
