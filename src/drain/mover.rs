//! What gives a connection to the next generation, and what comes with it from the previous one.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::core::Phase;
use super::guard::{Cutting, Guard};
use super::handle::Drain;
use super::stream::Stream;
use crate::transit::{Contents, Permit};
use crate::wire::parcel::{Record, STREAM, millis};

/// What a handler gives its [`Connection`](super::Connection) to the next generation with, so that
/// a reload does not close it.
///
/// A handler waits for [`ready`](Self::ready) beside everything else that it waits for. It begins
/// with what the handler of the previous generation has left to it:
///
/// ```no_run
/// # fn example(service: &handover::Service) -> handover::Result<()> {
/// use handover::drain::{Connection, StreamOptions};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// // Answers each byte with how many there have been, over any number of reloads.
/// service.serve_stream_with("count", StreamOptions::new().migrate(true), |connection| async move {
///     let Connection { mut stream, mut mover, inherited, .. } = connection;
///     let mut count: u64 = inherited.map_or(Ok(0), |inherited| inherited.state())?;
///     loop {
///         tokio::select! {
///             Some(pass) = mover.ready() => return pass.give(stream, &[], &count),
///             read = stream.read_u8() => {
///                 read?;
///             }
///         }
///         count += 1;
///         stream.write_u64(count).await?;
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// Where the listener does not [migrate](super::StreamOptions::migrate), and over packets, it never
/// does anything but tell that the drain has begun.
#[derive(Debug)]
pub struct Mover {
    turns: Arc<Turns>,
    guard: Arc<GuardSlot>,
}

/// Lets one connection go to the next generation now.
///
/// There are few at a time: use it at once, or drop it.
#[derive(Debug)]
#[must_use = "the connection stays until it is given"]
pub struct Pass {
    turns: Arc<Turns>,
    guard: Arc<GuardSlot>,
    permit: Permit,
}

/// What a connection has brought from the generation that it was served by before.
#[derive(Clone)]
pub struct Inherited {
    unread: Arc<[u8]>,
    state: Arc<[u8]>,
}

impl Mover {
    /// Resolves when it is this connection's turn to go to the next generation. `None` means that
    /// the drain has begun, and that the connection has to come to its end here: nobody takes it,
    /// or it was not taken and has come back. Until the drain begins it waits.
    ///
    /// Connections go one after the other, so it may resolve a while after the
    /// [`drain`](super::Connection::drain) signal. A handler that never waits for it is drained;
    /// so is one that has not done so when the drain begins.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&mut self) -> Option<Pass> {
        let permit = poll_fn(|cx| self.turns.poll(cx)).await?;
        Some(Pass { turns: Arc::clone(&self.turns), guard: Arc::clone(&self.guard), permit })
    }
}

impl Pass {
    /// Sends the connection to the next generation, where the handler of the same listener is
    /// called with it. `unread` is what was read of the stream and is not used yet, and `state` is
    /// what the handler there shall know; both are its [`Inherited`].
    ///
    /// All that was written must have been flushed, if the handler has put a buffer around the
    /// stream: nothing is known here of what is in it.
    ///
    /// If the next generation does not take it, the handler of this one is called with the same
    /// [`Inherited`], and goes on.
    ///
    /// # Errors
    /// The state cannot be written as JSON, or the socket cannot be taken out of the runtime. Then
    /// the connection is closed.
    pub fn give(self, stream: Stream, unread: &[u8], state: &impl Serialize) -> io::Result<()> {
        let Self { turns, guard, permit } = self;
        let state = state_of(state)?;
        let fd = stream.into_fd()?;
        let record = Record {
            listener: turns.listener.to_string(),
            protocol: STREAM.into(),
            known: true,
            open_ms: millis(turns.opened.elapsed()),
            moves: turns.moves + 1,
            ..Record::default()
        };
        let contents = Contents { state, unread: unread.to_vec(), ..Contents::default() };
        // A task that outlives its handler is counted by nobody else.
        let guard = guard.take().unwrap_or_else(|| turns.drain.register(format!("{}: on its way", turns.listener)));
        turns.drain.send_off(record, fd, contents, guard, permit);
        Ok(())
    }
}

/// Writes what a handler gives along.
pub(crate) fn state_of(state: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|e| {
        let why = format!("the state of a connection that moves cannot be written as JSON: {e}");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

impl Inherited {
    pub(crate) fn new(state: &[u8], unread: &[u8]) -> Self {
        Self { unread: unread.into(), state: state.into() }
    }

    /// Returns what was read of the stream there, and not used: it comes before all that is read
    /// here.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Reads the state that the handler there gave. The other generation may be of another version,
    /// older or newer, and know other fields.
    ///
    /// # Errors
    /// With [`InvalidData`](io::ErrorKind::InvalidData): it is not of this type.
    pub fn state<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.state).map_err(|e| {
            let why = format!("the state that another generation gave with a connection is not of this type: {e}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }
}

/// Without what it carries: that is the application's, and may be long.
impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = (self.unread.len(), self.state.len());
        f.debug_struct("Inherited").field("unread", &lengths.0).field("state", &lengths.1).finish_non_exhaustive()
    }
}

/// Whether, and when, it is the turn of a connection: the part that the drain knows.
#[derive(Debug)]
pub(super) struct Turns {
    drain: Drain,
    listener: Arc<str>,
    /// Why it cannot move, in one word.
    stays: Option<&'static str>,
    opened: Instant,
    moves: u64,
    /// The handler has waited for its turn: it knows how to give.
    asked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Turns {
    pub(super) fn new(drain: &Drain, listener: Arc<str>, stays: Option<&'static str>) -> Self {
        let (asked, waker) = (AtomicBool::new(false), Mutex::default());
        Self { drain: drain.clone(), listener, stays, opened: Instant::now(), moves: 0, asked, waker }
    }

    /// It was open elsewhere for so long, and has moved so often.
    pub(super) fn after(mut self, open: Duration, moves: u64) -> Self {
        self.opened = self.opened.checked_sub(open).unwrap_or(self.opened);
        self.moves = moves;
        self
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Permit>> {
        self.asked.store(true, Ordering::Relaxed);
        // First the waker, then the look: the drain does it the other way round.
        match &mut *self.waker() {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if self.drain.phase() == Phase::Open {
            return Poll::Pending;
        }
        if self.stays.is_some() || !self.drain.moves(&self.listener) {
            return Poll::Ready(None);
        }
        // Whoever gets none is asked again.
        self.drain.permit().map_or(Poll::Pending, |permit| Poll::Ready(Some(permit)))
    }

    pub(super) fn wake(&self) {
        let waker = self.waker().clone();
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn movable(&self) -> Result<(), &'static str> {
        match self.stays {
            Some(reason) => Err(reason),
            None if self.asked.load(Ordering::Relaxed) => Ok(()),
            None => Err("handler"),
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts a connection: its handler's task, until it is given away.
#[derive(Debug)]
struct GuardSlot(Mutex<Option<Guard>>);

impl GuardSlot {
    fn take(&self) -> Option<Guard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Has the connection counted until it is dropped, or the connection is given away.
pub(super) struct Counting {
    slot: Arc<GuardSlot>,
    pub(super) cutting: Cutting,
}

/// Makes what the handler has, and what its task holds meanwhile.
pub(super) fn mover(turns: Arc<Turns>, guard: Guard) -> (Mover, Counting) {
    let cutting = guard.cut();
    let slot = Arc::new(GuardSlot(Mutex::new(Some(guard))));
    (Mover { turns, guard: Arc::clone(&slot) }, Counting { slot, cutting })
}

impl Drop for Counting {
    fn drop(&mut self) {
        drop(self.slot.take());
    }
}
