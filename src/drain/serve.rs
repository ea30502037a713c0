//! Serving connections with a function.

use super::accept::{Accepted, Acceptor};
use super::core::Work;
use super::guard::{DrainSignal, Guard, since};
use super::handle::Drain;
use super::limit::{Limit, LimitSlot};
use super::listening::{Accepting, Listening};
use super::mover::{Counting, Inherited, Mover, Turns, mover};
use super::moving::{Adopter, Adoption, Arrived};
use super::peer::Peer;
use super::stream::Stream;
use crate::error::{Error, Kind, Result};
use crate::metrics::{Counted, Protocol};
use crate::sys::peer::peer_credentials;
use crate::systemd::activation::PassedConnection;
use crate::wire::parcel::{Record, STREAM};
use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// An accepted connection, for its handler.
///
/// It is counted until the handler returns. Take it apart: the fields are used side by side.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection<S = Stream> {
    /// The socket.
    pub stream: S,
    /// Who is at the other end.
    pub peer: Peer,
    /// Resolves when the drain begins: time to come to an end, to say goodbye.
    pub drain: DrainSignal,
    /// Gives it to the next generation.
    pub mover: Mover,
    /// What came with it from the previous generation; `None` if it was accepted here.
    pub inherited: Option<Inherited>,
}

/// Settings for the connections of one name; the defaults are right for most.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    max_connections: Option<usize>,
    limit: Option<Limit>,
    nodelay: bool,
    keepalive: Option<Duration>,
    migrate: bool,
    aside: bool,
}

impl StreamOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits how many connections are open at a time, over all sockets of the name. More are not
    /// refused: they wait in the backlog until others have gone. The number counts in one
    /// generation, so while an old one drains there may be more in all. By default there is no
    /// limit but `LimitNOFILE=`.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Shares a limit with others, instead of [`max_connections`](Self::max_connections).
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.limit = Some(limit.clone());
        self
    }

    /// Sets [`Acceptor::nodelay`]. The default is true.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Sets [`Acceptor::keepalive`]. By default none is set.
    #[must_use]
    pub fn keepalive(mut self, time: Duration) -> Self {
        self.keepalive = Some(time);
        self
    }

    /// Sets whether the handler gives connections to the next generation by their
    /// [`mover`](Connection::mover), and takes what is [`inherited`](Connection::inherited). The
    /// default is false: a handler that knows nothing of the other's state would begin anew in the
    /// middle of a conversation. So it must be true in both generations; otherwise connections
    /// drain where they are.
    ///
    /// Where the [setting](crate::service::settings::Migrate) says never, none moves.
    #[must_use]
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Serves who asks about the service: in a pause, too, and as none of its work.
    #[cfg(feature = "control")]
    pub(crate) fn aside(mut self) -> Self {
        self.aside = true;
        self
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { max_connections: None, limit: None, nodelay: true, keepalive: None, migrate: false, aside: false }
    }
}

/// Serves each connection of these listeners with a function, in a task of its own: what
/// [`Service::serve_stream`](crate::Service::serve_stream) does, where activation and notify are
/// your own.
///
/// The gate of the drain decides when it accepts. A connection is counted until its handler
/// returns. The handler is dropped, wherever it waits, when the hammer falls; what was cut is in
/// [`Drain::hammer`]'s list. A handler that panics ends its own connection, and is logged (not
/// where the program was built with `panic = "abort"`). What it returns as an error is logged at
/// the debug level.
///
/// ```no_run
/// # async fn example(listeners: Vec<handover::systemd::activation::Listener>) -> handover::Result<()> {
/// use handover::drain::{Connection, Drain, StreamOptions};
/// use std::time::Duration;
/// use tokio::io::AsyncWriteExt;
///
/// let drain = Drain::new();
/// handover::drain::serve_stream(&drain, "time", listeners, StreamOptions::new(), |connection| async move {
///     let Connection { mut stream, mut drain, .. } = connection;
///     loop {
///         tokio::select! {
///             () = &mut drain => return stream.write_all(b"goodbye\n").await,
///             () = tokio::time::sleep(Duration::from_secs(1)) => stream.write_all(b"tick\n").await?,
///         }
///     }
/// })?;
/// drain.accept(true);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Outside of a tokio runtime, and with a setting that cannot work.
pub fn serve_stream<L, H, F>(
    drain: &Drain,
    name: &str,
    listeners: Vec<L>,
    options: StreamOptions,
    handler: H,
) -> Result<()>
where
    L: Listening,
    H: Fn(Connection<L::Stream>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    serve_admitted(drain, name, listeners, options, |_, _| true, handler)
}

/// Does what [`serve_stream`] does with the connections that `admit` returns true for. Others are
/// closed when it returns, and are never counted.
pub(crate) fn serve_admitted<L, A, H, F>(
    drain: &Drain,
    name: &str,
    listeners: Vec<L>,
    options: StreamOptions,
    admit: A,
    handler: H,
) -> Result<()>
where
    L: Listening,
    A: Fn(&L::Stream, &Peer) -> bool + Send + Sync + 'static,
    H: Fn(Connection<L::Stream>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    if options.max_connections == Some(0) {
        return Err(Error::new(Kind::Invalid, "max_connections must be above 0: no client would ever be served"));
    }
    if options.migrate && !<L as Accepting>::MOVES {
        let why = format!("connections of packets, as those of {name:?}, cannot move: leave migrate off");
        return Err(Error::new(Kind::Invalid, why));
    }
    let runtime = runtime(name)?;
    let limit = options.limit.or_else(|| options.max_connections.map(Limit::new));
    let acceptor = |listener| {
        let acceptor = Acceptor::new(drain, name, listener).nodelay(options.nodelay).keepalive(options.keepalive);
        #[cfg(any(feature = "control", feature = "admin"))]
        let acceptor = if options.aside { acceptor.aside() } else { acceptor };
        match &limit {
            Some(limit) => acceptor.limit(limit),
            None => acceptor,
        }
    };
    let acceptors: Vec<Acceptor<L>> = listeners.into_iter().map(acceptor).collect();
    let (admit, handler) = (Arc::new(admit), Arc::new(handler));
    if options.migrate {
        let (drain, handler, runtime, name) = (drain.clone(), Arc::clone(&handler), runtime.clone(), Arc::from(name));
        let adopter = StreamAdopter { name, runtime, drain, limit, handler, listener: PhantomData::<fn() -> L> };
        adopter.drain.clone().adopt_with(&adopter.name.clone(), Arc::new(adopter));
    }
    let stays = if options.migrate { None } else { Some("handler") };
    let aside = options.aside;
    for mut acceptor in acceptors {
        let (drain, admit, handler) = (drain.clone(), Arc::clone(&admit), Arc::clone(&handler));
        runtime.spawn(async move {
            while let Some(Accepted { stream, peer, entering }) = acceptor.accept().await {
                if !admit(&stream, &peer) {
                    continue;
                }
                let turns = Arc::new(Turns::new(&drain, Arc::clone(acceptor.name()), stays));
                let counted = drain.metrics().connection(Arc::clone(acceptor.name()), Protocol::Stream);
                let work = StreamWork {
                    listener: Arc::clone(acceptor.name()),
                    peer,
                    counted,
                    turns: Arc::clone(&turns),
                    aside,
                };
                let guard = entering.track(Arc::new(work));
                tokio::spawn(handled(
                    &drain,
                    Arc::clone(acceptor.name()),
                    (stream, peer),
                    (turns, guard),
                    None,
                    &handler,
                ));
            }
        });
    }
    Ok(())
}

/// Serves the connections that come to one listener from another generation.
struct StreamAdopter<L, H> {
    name: Arc<str>,
    runtime: tokio::runtime::Handle,
    drain: Drain,
    limit: Option<Limit>,
    handler: Arc<H>,
    listener: PhantomData<fn() -> L>,
}

impl<L, H, F> Adopter for StreamAdopter<L, H>
where
    L: Listening,
    H: Fn(Connection<L::Stream>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    fn prepare(&self, arrival: Arrived) -> std::result::Result<Adoption, &'static str> {
        let Arrived { record, fd, contents, was, slot, again, .. } = arrival;
        let (stream, peer) = L::adopted(fd).map_err(|_| "socket")?;
        // One that nobody took does not try again.
        let stays = (was.is_some() && !again).then_some("refused");
        let turns = Turns::new(&self.drain, Arc::clone(&self.name), stays);
        let turns = Arc::new(turns.after(Duration::from_millis(record.open_ms), record.moves));
        let counted = self.drain.metrics().adopted(Arc::clone(&self.name), Protocol::Stream, was.is_none());
        let work =
            StreamWork { listener: Arc::clone(&self.name), peer, counted, turns: Arc::clone(&turns), aside: false };
        let guard = self.drain.track(Arc::new(work));
        let guard = match was {
            Some(was) => was.continues_as(guard),
            None => guard.holding(slot),
        };
        let inherited = Inherited::new(&contents.state, &contents.unread);
        let (drain, name, handler) = (self.drain.clone(), Arc::clone(&self.name), Arc::clone(&self.handler));
        let runtime = self.runtime.clone();
        Ok(Box::new(move || {
            runtime.spawn(handled(&drain, name, (stream, peer), (turns, guard), Some(inherited), &handler));
        }))
    }

    fn slot(&self, record: &Record) -> std::result::Result<Option<LimitSlot>, &'static str> {
        if record.protocol != STREAM {
            return Err("protocol");
        }
        Limit::slot_of(self.limit.as_ref())
    }
}

/// Serves one connection with its handler, until that returns, or is cut.
fn handled<S, H, F>(
    drain: &Drain,
    name: Arc<str>,
    (stream, peer): (S, Peer),
    (turns, guard): (Arc<Turns>, Guard),
    inherited: Option<Inherited>,
    handler: &Arc<H>,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Send + 'static,
    H: Fn(Connection<S>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (mover, counting) = mover(turns, guard);
    let connection = Connection { stream, peer, drain: drain.signal(), mover, inherited };
    let handler = Arc::clone(handler);
    async move { until_cut(&name, peer, counting, async move { handler(connection).await }).await }
}

async fn until_cut(name: &str, peer: Peer, mut counting: Counting, handler: impl Future<Output = io::Result<()>>) {
    tokio::select! {
        biased;
        () = &mut counting.cutting => {}
        ended = contained(handler) => log(name, &peer, ended),
    }
}

/// Serves the one connection of a process that `Accept=yes` started. Whoever waits for the handle
/// knows when it is over.
pub(crate) fn serve_passed<H, F>(
    drain: &Drain,
    name: &str,
    passed: PassedConnection,
    handler: H,
) -> Result<JoinHandle<()>>
where
    H: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = runtime(name)?;
    let unusable = |e| Error::os(format!("the connection {name:?} cannot be used"), e);
    let (stream, peer) = match passed {
        PassedConnection::Tcp(stream) => {
            stream.set_nonblocking(true).map_err(unusable)?;
            let peer = Peer::Tcp(stream.peer_addr().map_err(unusable)?);
            (Stream::Tcp(TcpStream::from_std(stream).map_err(unusable)?), peer)
        }
        PassedConnection::Unix(stream) => {
            stream.set_nonblocking(true).map_err(unusable)?;
            let peer = Peer::unix(peer_credentials(stream.as_fd()).ok());
            (Stream::Unix(UnixStream::from_std(stream).map_err(unusable)?), peer)
        }
        PassedConnection::Seqpacket(_) => {
            let why = format!("the connection {name:?} is one of packets, not a stream: take it with Service::fds");
            return Err(Error::new(Kind::Socket, why));
        }
    };
    let name: Arc<str> = name.into();
    let turns = Arc::new(Turns::new(drain, Arc::clone(&name), Some("handler")));
    let counted = drain.metrics().connection(Arc::clone(&name), Protocol::Stream);
    let work = StreamWork { listener: Arc::clone(&name), peer, counted, turns: Arc::clone(&turns), aside: false };
    let (mover, counting) = mover(turns, drain.track(Arc::new(work)));
    let connection = Connection { stream, peer, drain: drain.signal(), mover, inherited: None };
    Ok(runtime.spawn(async move { until_cut(&name, peer, counting, async move { handler(connection).await }).await }))
}

/// What the handler of a connection works on, for the drain.
struct StreamWork {
    listener: Arc<str>,
    peer: Peer,
    counted: Counted,
    turns: Arc<Turns>,
    aside: bool,
}

impl Work for StreamWork {
    fn is_aside(&self) -> bool {
        self.aside
    }

    fn wake(&self) {
        self.turns.wake();
    }

    fn connection(&self) -> Option<&Counted> {
        Some(&self.counted)
    }

    fn doing(&self) -> Option<String> {
        let name = self.listener.escape_debug();
        Some(format!("{name}: {}, open for {:?}", self.peer, since(self.turns.opened())))
    }

    fn movable(&self) -> std::result::Result<(), &'static str> {
        self.turns.movable()
    }
}

pub(crate) fn runtime(name: &str) -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(Kind::State, format!("cannot serve {name:?} outside of a tokio runtime: call it within one"))
    })
}

/// What the handler of a datagram works on, for the hammer's list.
pub(crate) struct Handled<P> {
    listener: Arc<str>,
    peer: P,
    since: Instant,
}

impl<P> Handled<P> {
    pub(crate) fn new(listener: Arc<str>, peer: P) -> Self {
        Self { listener, peer, since: Instant::now() }
    }
}

impl<P: fmt::Display + Send + Sync> Work for Handled<P> {
    fn wake(&self) {}

    fn doing(&self) -> Option<String> {
        let name = self.listener.escape_debug();
        Some(format!("{name}: {}, open for {:?}", self.peer, since(self.since)))
    }

    fn kind(&self) -> (String, &'static str) {
        (self.listener.to_string(), "datagram")
    }
}

/// Returns the future's outcome, or the text that it panicked with.
pub(crate) async fn contained<T>(future: impl Future<Output = T>) -> std::result::Result<T, String> {
    let mut future = pin!(future);
    // After a panic it is not polled again, only dropped.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(text(&*panic))),
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

pub(crate) fn log(listener: &str, peer: &dyn fmt::Display, ended: std::result::Result<io::Result<()>, String>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(listener, %peer, %error, "the handler ended with an error"),
        Err(panic) => tracing::error!(listener, %peer, "the handler panicked: {panic}"),
    }
}
