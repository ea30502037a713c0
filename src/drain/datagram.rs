//! Datagrams, and what else comes in pieces: one generation reads, none is lost.

use super::entering::Entering;
use super::guard::{Cutting, Guard};
use super::handle::Drain;
use super::limit::Limit;
use super::peer::DatagramPeer;
use super::serve::{Handled, contained, log, runtime};
use super::turn::Turn;
use crate::error::{Error, Kind, Result};
use crate::sys::message::{self, Address, Received};
use crate::sys::{peer, socket};
use crate::systemd::activation::{RECEIVED, Socket, SocketKind};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// How long an answer may wait for room: in our own send buffer, or in the queue of a Unix socket.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause between two questions whether another Unix socket's queue has room again: the
/// kernel does not tell.
const ASK_MIN: Duration = Duration::from_millis(1);
/// The longest pause between two such questions.
const ASK_MAX: Duration = Duration::from_millis(20);
/// No UDP datagram is longer. Unix ones may be.
const MAX_DATAGRAM: usize = 65_535;

/// A datagram that was received. It is counted as work in hand, which a drain waits for, until
/// dropped.
#[derive(Debug)]
pub struct Datagram {
    bytes: Vec<u8>,
    peer: DatagramPeer,
    sender: DatagramSender,
    guard: Guard,
    /// Held for as long as the application has the datagram, which is counted by it.
    _hand: Arc<()>,
}

impl Datagram {
    /// Returns what was sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns who sent it.
    #[must_use]
    pub fn peer(&self) -> &DatagramPeer {
        &self.peer
    }

    /// Answers, from the socket that it came to. Waits up to [`SEND_TIMEOUT`] for room.
    ///
    /// # Errors
    /// The sender has no address, is gone, or takes nothing for so long
    /// ([`TimedOut`](io::ErrorKind::TimedOut)).
    pub async fn reply(&self, bytes: &[u8]) -> io::Result<()> {
        self.sender.send_to(bytes, &self.peer).await
    }

    /// Returns a sender from the socket that the datagram came to. It works also when this
    /// generation does not receive any more.
    #[must_use]
    pub fn sender(&self) -> &DatagramSender {
        &self.sender
    }

    /// Resolves when the hammer falls: stop then. (A handler of [`serve_datagrams`] is dropped.)
    pub fn cut(&self) -> Cutting {
        self.guard.cut()
    }
}

/// Sends from the shared socket. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct DatagramSender {
    socket: Arc<Socket>,
}

impl DatagramSender {
    /// Sends one datagram; waits up to [`SEND_TIMEOUT`] for room.
    ///
    /// # Errors
    /// The peer has no address, is gone, or takes nothing for so long
    /// ([`TimedOut`](io::ErrorKind::TimedOut)).
    ///
    /// # Cancel safety
    /// It is sent whole or not at all.
    pub async fn send_to(&self, bytes: &[u8], to: &DatagramPeer) -> io::Result<()> {
        let to = to.to()?;
        let fd = self.socket.as_fd();
        let sent = message::send_to(fd, bytes, &to);
        if !sent.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            return sent;
        }
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no room to send within {SEND_TIMEOUT:?}"));
        timeout(SEND_TIMEOUT, self.send_slowly(bytes, &to)).await.map_err(late)?
    }

    async fn send_slowly(&self, bytes: &[u8], to: &Address) -> io::Result<()> {
        if matches!(to, Address::Inet(_)) {
            // Registered only for as long as the buffer is full.
            let fd = socket::register(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
            return fd.async_io(Interest::WRITABLE, |fd| message::send_to(fd.as_fd(), bytes, to)).await;
        }
        let mut pause = ASK_MIN;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(ASK_MAX);
            match message::send_to(self.socket.as_fd(), bytes, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

/// Receives the datagrams of one socket: of the generations that share it, exactly one takes each.
///
/// A generation receives only while it is its turn: from ready, or from the switch on, until the
/// next switch. What the kernel has queued by then is for the next one; what was received before is
/// finished here. (The next one begins before this one ends, so for a moment both receive. Each
/// datagram goes to one of them.)
///
/// It is also for what else comes in pieces and by name:
///
/// | kind | a datagram is |
/// |---|---|
/// | UDP, Unix datagram | a datagram, with its sender |
/// | message queue | a message |
/// | FIFO | all that the pipe held: whole lines (or whatever writers write) where each is written at once and is at most `PIPE_BUF` (4096) bytes long |
/// | netlink | a message of the kernel |
///
/// ```no_run
/// # async fn example(service: &handover::Service) -> handover::Result<()> {
/// for mut datagrams in service.datagrams("log")? {
///     tokio::spawn(async move {
///         while let Some(datagram) = datagrams.recv().await {
///             println!("{} bytes from {}", datagram.bytes().len(), datagram.peer());
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Limitations
/// - What the kernel's queue has no room for is lost, as ever (`ReceiveBuffer=`,
///   `net.core.rmem_max`).
/// - An answer from a socket that is bound to all addresses leaves from the one that the kernel
///   chooses: bind each address, where clients look at it.
/// - No GRO, GSO or ECN.
#[derive(Debug)]
pub struct Datagrams {
    turn: Turn<AsyncFd<OwnedFd>>,
    socket: Arc<Socket>,
    buffer: Vec<u8>,
    /// The socket in the reactor, for [`take_ungated`](Self::take_ungated).
    ungated: Option<AsyncFd<OwnedFd>>,
    hands: Arc<()>,
}

impl Datagrams {
    /// Receives from this socket; `name` is for the log. It becomes nonblocking, and a Unix one
    /// tells who sends (`SO_PASSCRED`) and takes no fds (`SO_PASSRIGHTS`, from Linux 6.16; before
    /// that, and from what was sent earlier, they are closed in a thread of their own).
    ///
    /// # Errors
    /// It is of none of the kinds.
    pub fn new(drain: &Drain, name: &str, socket: Socket) -> Result<Self> {
        socket.check(&RECEIVED)?;
        let os = |e| Error::os(format!("cannot receive from {name:?}"), e);
        let fd = socket.as_fd();
        socket::set_nonblocking(fd).map_err(os)?;
        let length = match socket.kind() {
            SocketKind::MessageQueue => message::queue_message_size(fd).map_err(os)?,
            SocketKind::Fifo => message::pipe_size(fd).map_err(os)?,
            SocketKind::UnixDatagram => {
                peer::pass_credentials(fd).map_err(os)?;
                peer::pass_fds(fd, false).map_err(os)?;
                MAX_DATAGRAM
            }
            _ => MAX_DATAGRAM,
        };
        let turn = Turn::new(drain, name, ("receive", "receiving"));
        let (socket, buffer) = (Arc::new(socket), vec![0; length]);
        Ok(Self { turn, socket, buffer, ungated: None, hands: Arc::default() })
    }

    /// Receives only while fewer are in hand. By default there is no limit.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.turn.limit(limit);
        self
    }

    /// Sets the longest datagram that is received; longer ones are dropped, and logged. The default
    /// is 65,535 bytes, which is all of UDP. It does not apply to FIFOs and message queues, which
    /// say themselves how long a piece may be.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        if !matches!(self.socket.kind(), SocketKind::Fifo | SocketKind::MessageQueue) {
            self.buffer = vec![0; bytes.max(1)];
        }
        self
    }

    /// Returns a sender from this socket. It works also when this generation does not receive any
    /// more.
    #[must_use]
    pub fn sender(&self) -> DatagramSender {
        DatagramSender { socket: Arc::clone(&self.socket) }
    }

    /// Returns the next datagram, or `None` once the drain has begun. It waits while the gate is
    /// shut or the limit is reached, and through errors, which it logs.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Cancel safety
    /// What the kernel has handed over is returned, never lost.
    pub async fn recv(&mut self) -> Option<Datagram> {
        let ((bytes, peer), entering) = self.take().await?;
        Some(self.datagram(bytes, peer, Some(entering)))
    }

    pub(super) async fn take(&mut self) -> Option<((Vec<u8>, DatagramPeer), Entering)> {
        self.ungated = None;
        let Self { turn, socket, buffer, .. } = self;
        turn.next(|| registered(socket), |fd, cx| poll_receive(fd, socket.kind(), buffer, cx)).await
    }

    /// Takes the next datagram, whether the gate is open or not. It returns `None` when the socket
    /// fails.
    pub(super) async fn take_ungated(&mut self) -> Option<(Vec<u8>, DatagramPeer)> {
        let Self { socket, buffer, ungated, .. } = self;
        if ungated.is_none() {
            *ungated = registered(socket).ok();
        }
        let fd = ungated.as_ref()?;
        poll_fn(|cx| poll_receive(fd, socket.kind(), buffer, cx)).await.ok()
    }

    /// Makes a datagram of what was received. `entering` is none if it came in another way than by
    /// [`take`](Self::take).
    pub(super) fn datagram(&self, bytes: Vec<u8>, peer: DatagramPeer, entering: Option<Entering>) -> Datagram {
        let work = Arc::new(Handled::new(Arc::clone(self.turn.name()), peer.clone()));
        let guard = match entering {
            Some(entering) => entering.track(work),
            None => self.turn.drain().track(work),
        };
        Datagram { bytes, peer, sender: self.sender(), guard, _hand: Arc::clone(&self.hands) }
    }

    /// Returns how many datagrams the application has in hand.
    pub(super) fn in_hand(&self) -> usize {
        Arc::strong_count(&self.hands) - 1
    }
}

fn registered(socket: &Socket) -> io::Result<AsyncFd<OwnedFd>> {
    socket::register(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)
}

fn poll_receive(
    fd: &AsyncFd<OwnedFd>,
    kind: SocketKind,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<(Vec<u8>, DatagramPeer)>> {
    loop {
        let mut ready = ready!(fd.poll_read_ready(cx))?;
        let Ok(received) = ready.try_io(|fd| receive(fd.as_fd(), kind, buffer)) else { continue };
        let received = received?;
        if received.truncated {
            let why = format!("a datagram of more than {} bytes was dropped", buffer.len());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let peer = DatagramPeer::of(&received, kind);
        return Poll::Ready(Ok((buffer[..received.length].to_vec(), peer)));
    }
}

fn receive(fd: BorrowedFd<'_>, kind: SocketKind, buffer: &mut [u8]) -> io::Result<Received> {
    let length = match kind {
        SocketKind::MessageQueue => message::receive_queued(fd, buffer)?,
        SocketKind::Fifo => match message::read(fd, buffer)? {
            // Only of a FIFO that nobody has open for writing, which would be "ready" without end.
            // systemd's never are.
            0 => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody has it open for writing any more")),
            length => length,
        },
        _ => return message::receive(fd, buffer),
    };
    Ok(Received { length, truncated: false, from: None, credentials: None })
}

/// The settings for the datagrams of one name.
#[derive(Debug, Clone)]
pub struct DatagramOptions {
    max_in_hand: usize,
    max_length: usize,
}

impl DatagramOptions {
    /// The default of [`max_in_hand`](Self::max_in_hand), in datagrams.
    pub const MAX_IN_HAND: usize = 1024;
    /// The default of [`max_length`](Self::max_length), in bytes.
    pub const MAX_LENGTH: usize = MAX_DATAGRAM;

    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits how many handlers run at a time, over all sockets of the name. More datagrams wait in
    /// the kernel's queue. The default is [1024](Self::MAX_IN_HAND).
    #[must_use]
    pub fn max_in_hand(mut self, datagrams: usize) -> Self {
        self.max_in_hand = datagrams;
        self
    }

    /// Sets [`Datagrams::max_length`]. The default is [65,535](Self::MAX_LENGTH).
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }
}

impl Default for DatagramOptions {
    fn default() -> Self {
        Self { max_in_hand: Self::MAX_IN_HAND, max_length: Self::MAX_LENGTH }
    }
}

/// Serves each datagram of these sockets with a function, in a task of its own: what
/// [`Service::serve_datagrams`](crate::Service::serve_datagrams) does, where activation and notify
/// are your own.
///
/// A datagram is counted until its handler returns. The handler is dropped when the hammer falls.
/// One that panics is logged; what it returns as an error is logged at the debug level. Handlers of
/// datagrams that came one after the other run side by side: where the order matters, use
/// [`Datagrams`].
///
/// # Errors
/// Outside of a tokio runtime, a setting that cannot work, or a socket of another kind.
#[expect(clippy::needless_pass_by_value, reason = "as options are everywhere, and these may get more")]
pub fn serve_datagrams<H, F>(
    drain: &Drain,
    name: &str,
    sockets: Vec<Socket>,
    options: DatagramOptions,
    handler: H,
) -> Result<()>
where
    H: Fn(Datagram) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    if options.max_in_hand == 0 || options.max_length == 0 {
        return Err(Error::new(
            Kind::Invalid,
            "max_in_hand and max_length must be above 0: nothing would ever be received",
        ));
    }
    let DatagramOptions { max_in_hand, max_length } = options;
    let (runtime, limit) = (runtime(name)?, Limit::new(max_in_hand));
    let receiver = |socket| Ok(Datagrams::new(drain, name, socket)?.limit(&limit).max_length(max_length));
    let receivers: Vec<_> = sockets.into_iter().map(receiver).collect::<Result<_>>()?;
    let handler = Arc::new(handler);
    for mut datagrams in receivers {
        let handler = Arc::clone(&handler);
        runtime.spawn(async move {
            while let Some(datagram) = datagrams.recv().await {
                let (handler, name) = (Arc::clone(&handler), Arc::clone(datagrams.turn.name()));
                let (peer, cut) = (datagram.peer.clone(), datagram.cut());
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = cut => {}
                        ended = contained(async move { handler(datagram).await }) => log(&name, &peer, ended),
                    }
                });
            }
        });
    }
    Ok(())
}
