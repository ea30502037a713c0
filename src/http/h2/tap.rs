//! The layer between hyper's HTTP/2 and what carries it.
//!
//! As long as nothing moves, the bytes go by untouched and in place: only the heads of frames are
//! looked at, and what ends in the middle of one waits here, so that the server never has a part of
//! a frame other than DATA. Everything else goes by buffers, and is rare: the prologue of a
//! connection that has come, and the end of one that goes.

mod writing;

use super::follower::{Fate, Follower};
use super::frame::{FIRST_WINDOW, SETTINGS_ACK, settings_frame, window_update};
use super::state::Http2State;
use crate::http::framed::Framed;
use crate::http::transport::{FIRST_READ, PREFACE, Transport};
use bytes::{Buf as _, BytesMut};
use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, take};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What may be held of new streams; one that sends more while it waits stays.
const MOST_HELD: usize = 2 << 20;
/// What may wait for the client's window before the server is told to.
const MOST_PARKED: usize = 256 << 10;

/// hyper has one, and its task another.
pub(super) struct Tap<T: Transport>(Arc<Mutex<Tapped<T>>>);

impl<T: Transport> Clone for Tap<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) struct Tapped<T: Transport> {
    /// Until it leaves.
    framed: Option<Framed<T>>,
    follower: Follower,
    /// For the server: said by us, or cut out of what came.
    ready: BytesMut,
    /// Came, and its fate is not known.
    raw: BytesMut,
    /// For the next process.
    held: BytesMut,
    /// The server's, of which no frame is whole yet.
    cut: BytesMut,
    /// The server's frames that the client's window has no room for, and what comes behind them.
    parked: BytesMut,
    /// For the client, as soon as no frame of the server's is under way.
    ours: BytesMut,
    /// For the client.
    out: BytesMut,
    /// The server waits for more.
    waits: bool,
    flushed: bool,
    ended: bool,
    reader: Option<Waker>,
    /// It will not leave: nothing of it is followed.
    off: bool,
}

impl<T: Transport> Tap<T> {
    /// Follows a connection: one of another process, or a new one, whose preface is still to be
    /// read.
    pub(super) fn new(framed: Framed<T>, carried: Option<(Http2State, &[u8])>, may_move: bool) -> Self {
        let off = carried.is_none() && !may_move;
        let (mut ready, mut raw, mut ours) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        let follower = match carried {
            None => Follower::new(PREFACE.len(), super::WINDOW, super::FRAME_SIZE),
            Some((state, unread)) => {
                // What the client has said, in a few words. The server has told its own settings
                // before it reads the first of them; those of the former one are known to the
                // client, and allow no more.
                ready.extend_from_slice(PREFACE);
                ready.extend_from_slice(&settings_frame(&state.settings));
                if let Ok(more @ 1..) = u32::try_from(state.send - FIRST_WINDOW) {
                    ready.extend_from_slice(&window_update(more));
                }
                ready.extend_from_slice(&SETTINGS_ACK);
                raw.extend_from_slice(unread);
                let mut follower = Follower::resumed(&state);
                ready.extend_from_slice(&follower.take_remade());
                if let lacks @ 1.. = follower.lacks() {
                    ours.extend_from_slice(&follower.grant(lacks));
                }
                follower
            }
        };
        Self(Arc::new(Mutex::new(Tapped {
            framed: Some(framed),
            follower,
            ready,
            raw,
            held: BytesMut::new(),
            cut: BytesMut::new(),
            parked: BytesMut::new(),
            ours,
            out: BytesMut::new(),
            waits: false,
            flushed: true,
            ended: false,
            reader: None,
            off,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tapped<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport> Tapped<T> {
    pub(super) fn follower(&self) -> &Follower {
        &self.follower
    }

    pub(super) fn framed(&self) -> Option<&Framed<T>> {
        self.framed.as_ref()
    }

    /// Returns whether it can leave, now or when nothing of it is in progress.
    pub(super) fn can_leave(&self) -> bool {
        self.follower.can_leave() && !self.ended && self.held.len() <= MOST_HELD
    }

    /// From now on new streams are held.
    pub(super) fn hold(&mut self) {
        self.follower.hold();
    }

    /// Has the server get all that was held, and all that comes.
    pub(super) fn stay(&mut self) {
        self.follower.stay();
        self.release();
    }

    /// Has the server get all that was held.
    pub(super) fn release(&mut self) {
        self.follower.release();
        let mut held = take(&mut self.held);
        held.extend_from_slice(&self.raw);
        self.raw = held;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Returns whether the server is done with what it got, and the client has all that it said.
    pub(super) fn is_quiet(&self) -> bool {
        let empty =
            [&self.ready, &self.cut, &self.parked, &self.ours, &self.out].into_iter().all(|part| part.is_empty());
        empty && self.waits && self.flushed && self.can_leave() && self.follower.is_quiet()
    }

    /// Takes it away from the server, with what the next one has to know, and what was not used.
    pub(super) fn take(&mut self) -> Option<(Framed<T>, Http2State, Vec<u8>)> {
        let unread = [&self.held[..], &self.raw].concat();
        Some((self.framed.take()?, self.follower.state(), unread))
    }

    fn stream(&mut self) -> io::Result<&mut Framed<T>> {
        self.framed.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Moves what was received on to the server, as much as there is room for.
    fn admit(&mut self, buf: &mut ReadBuf<'_>) {
        while !self.raw.is_empty() && self.ready.is_empty() && buf.remaining() > 0 {
            match self.follower.of_client(&self.raw, buf.remaining()) {
                Fate::Unknown | Fate::Wait => break,
                Fate::Pass(some) => {
                    buf.put_slice(&self.raw[..some]);
                    self.raw.advance(some);
                }
                Fate::Hold(some) => self.held.extend_from_slice(&self.raw.split_to(some)),
                Fate::Drop(some) => self.raw.advance(some),
                Fate::Replace(some, frame) => {
                    self.raw.advance(some);
                    self.ready.extend_from_slice(&frame);
                }
                Fate::Remake(some) => {
                    self.raw.advance(some);
                    self.ready.extend_from_slice(&self.follower.take_remade());
                }
                Fate::Answer(some, frame) => {
                    self.raw.advance(some);
                    self.ours.extend_from_slice(&frame);
                }
            }
        }
        if self.raw.is_empty() && self.raw.capacity() > FIRST_READ {
            self.raw = BytesMut::new();
        }
        self.admit_ready(buf);
    }

    fn admit_ready(&mut self, buf: &mut ReadBuf<'_>) {
        let some = buf.remaining().min(self.ready.len());
        if some > 0 {
            buf.put_slice(&self.ready.split_to(some));
        }
    }

    /// Looks at what was just read into the server's own buffer, and takes out what does not pass.
    #[inline]
    fn sift(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Self { follower, ready, raw, held, ours, .. } = self;
        let read = &mut buf.filled_mut()[before..];
        // what passes goes from `at` to `to`: as a rule they are the same
        let (mut at, mut to) = (0, 0);
        while at < read.len() {
            match follower.of_client(&read[at..], usize::MAX) {
                Fate::Unknown | Fate::Wait => {
                    raw.extend_from_slice(&read[at..]);
                    break;
                }
                Fate::Pass(some) => {
                    if at != to {
                        read.copy_within(at..at + some, to);
                    }
                    (at, to) = (at + some, to + some);
                }
                Fate::Hold(some) => {
                    held.extend_from_slice(&read[at..at + some]);
                    at += some;
                }
                Fate::Drop(some) => at += some,
                Fate::Replace(some, frame) => {
                    // as long as the one that it replaces
                    read[to..to + frame.len()].copy_from_slice(&frame);
                    (at, to) = (at + some, to + frame.len());
                }
                Fate::Remake(some) => {
                    // it may be longer than what came, and comes before the rest
                    ready.extend_from_slice(&follower.take_remade());
                    raw.extend_from_slice(&read[at + some..]);
                    break;
                }
                Fate::Answer(some, frame) => {
                    ours.extend_from_slice(&frame);
                    at += some;
                }
            }
        }
        buf.set_filled(before + to);
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.off {
            return Pin::new(self.stream()?).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        self.waits = false;
        self.admit_ready(buf);
        loop {
            if self.follower.is_ahead() {
                // what it has granted is still to be said
                self.reader = Some(cx.waker().clone());
                return if buf.filled().len() > before { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.admit(buf);
            self.unpark();
            if !(self.ours.is_empty() && self.out.is_empty()) {
                let _ = self.poll_out(cx)?;
            }
            if buf.filled().len() > before || (self.ended && self.held.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            if self.ended || self.held.len() > MOST_HELD {
                // what was held comes first
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if self.raw.is_empty() {
                let read = Pin::new(self.stream()?).poll_read(cx, buf);
                self.waits = read.is_pending();
                if self.waits && self.follower.holds() {
                    self.reader = Some(cx.waker().clone());
                }
                ready!(read)?;
                self.ended = buf.filled().len() == before;
                self.sift(buf, before);
            } else {
                let mut space = [MaybeUninit::uninit(); FIRST_READ];
                let mut more = ReadBuf::uninit(&mut space);
                let read = Pin::new(self.stream()?).poll_read(cx, &mut more);
                self.waits = read.is_pending();
                self.reader = Some(cx.waker().clone());
                ready!(read)?;
                self.ended = more.filled().is_empty();
                self.raw.extend_from_slice(more.filled());
            }
        }
    }
}

impl<T: Transport> AsyncRead for Tap<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<T: Transport> AsyncWrite for Tap<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().framed.as_ref().is_some_and(|framed| framed.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut tapped = self.lock();
        ready!(tapped.poll_out(cx))?;
        Pin::new(tapped.stream()?).poll_shutdown(cx)
    }
}
