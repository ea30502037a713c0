//! The socket as hyper sees it: one request at a time.
//!
//! hyper reads ahead, and what it has read it drops when it closes. So the bytes after the end of
//! the current message are held back here until the reply is written and hyper asks for the next
//! head. That way we know at any moment whether a request is in progress, half received, or
//! waiting behind another, which is all that linger needs.
//!
//! Rejected: counting hyper's bytes from outside (it cannot be asked what it has parsed), and
//! `into_parts` (it has no answer while a request is in progress).

mod closing;
mod insured;
mod leaving;
mod websocket;

use super::conn::Conn;
use super::framing::Framing;
use super::h2::Http2State;
use super::info::ConnectionInfo;
use super::scan;
use super::stage::Stage;
use super::transport::{FIRST_READ, GATHERED, HttpVersion, PREFACE, PREFACE_ALONE, Transport, gather};
use super::wakers::Half;
use crate::drain::Guard;
use crate::sys::look::Look;
use crate::transit::Policy;
use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Framed<T: Transport> {
    stream: T,
    conn: Arc<Conn>,
    /// It is in here, and not in the task, because an upgraded stream counts until it is dropped.
    guard: Option<Guard>,
    framing: Framing,
    /// Bytes that were received, but are not part of the current message. They are at most one read
    /// of hyper's.
    held: BytesMut,
    /// All of the reply has been written.
    flushed: bool,
    /// The client has closed its side.
    ended: bool,
    shut: bool,
    discarded: usize,
    /// It is HTTP/1, as was found where it came from.
    known: bool,
    /// It goes to another process: nothing is said to the client.
    moved: bool,
    /// It was upgraded in another process: what is left of the reply, which the client has had.
    swallowed: Option<scan::Head>,
    /// How much of the goodbye to its client is written.
    goodbye: usize,
    /// It came as HTTP/2, and is not served yet.
    http2: Option<Box<(Http2State, Vec<u8>)>>,
    /// Against a crash of this process.
    policy: Option<Policy>,
    /// There is a copy of its socket, which keeps the connection open when it is closed here.
    copied: bool,
}

impl<T: Transport> Framed<T> {
    pub(super) fn new(stream: T, conn: Arc<Conn>, guard: Guard) -> Self {
        Self {
            stream,
            conn,
            guard: Some(guard),
            framing: Framing::Head(scan::Head::default()),
            held: BytesMut::new(),
            flushed: false,
            ended: false,
            shut: false,
            discarded: 0,
            known: false,
            moved: false,
            swallowed: None,
            goodbye: 0,
            http2: None,
            policy: None,
            copied: false,
        }
    }

    /// Goes on with one that was served elsewhere, where these bytes were received and not used.
    pub(super) fn adopted(stream: T, conn: Arc<Conn>, guard: Guard, known: bool, unread: &[u8]) -> Self {
        let mut framed = Self::new(stream, conn, guard);
        framed.held.extend_from_slice(unread);
        framed.note_held();
        framed.known = known;
        framed
    }

    /// Goes on with a WebSocket: the request that it began with is read once more, and its reply
    /// goes nowhere.
    pub(super) fn replayed(stream: T, conn: Arc<Conn>, guard: Guard, head: &[u8], unread: &[u8]) -> Self {
        // all of it at once: hyper looks behind a request, and what it finds there comes later
        let mut framed = Self::adopted(stream, conn, guard, true, &[head, unread].concat());
        framed.swallowed = Some(scan::Head::default());
        framed
    }

    /// Goes on with one of HTTP/2, with what was to be known of it there, and what was received and
    /// not used.
    pub(super) fn adopted_http2(stream: T, conn: Arc<Conn>, guard: Guard, state: Http2State, unread: &[u8]) -> Self {
        conn.set_stage(Stage::Http2);
        let mut framed = Self::new(stream, conn, guard);
        framed.framing = Framing::Raw;
        framed.http2 = Some(Box::new((state, unread.to_vec())));
        framed
    }

    /// Returns what is known of an HTTP/2 connection from where it was served before.
    pub(super) fn take_http2(&mut self) -> Option<Box<(Http2State, Vec<u8>)>> {
        self.http2.take()
    }

    /// Returns what requests shall know of the connection.
    pub(super) fn info(&self) -> ConnectionInfo {
        ConnectionInfo::new(
            Arc::clone(&self.conn),
            #[cfg(feature = "tls")]
            self.stream.tls(),
        )
    }

    /// Reads until the protocol is known; `None` if the client closes before. Where it was agreed
    /// on beforehand, HTTP/2 is still waited for: its preface may be late.
    pub(super) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<HttpVersion>>> {
        let agreed = self.stream.protocol();
        if agreed == Some(HttpVersion::Http1) {
            return Poll::Ready(Ok(agreed));
        }
        if self.http2.is_some() {
            return Poll::Ready(Ok(Some(HttpVersion::Http2)));
        }
        if self.conn.is_paused() {
            return Poll::Pending;
        }
        loop {
            if self.known && !self.held.is_empty() {
                self.note_held();
                return Poll::Ready(Ok(Some(HttpVersion::Http1)));
            }
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                if agreed.is_some() {
                    let why = "the client agreed on HTTP/2 and does not speak it";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                self.note_held();
                return Poll::Ready(Ok(Some(HttpVersion::Http1)));
            }
            if known > 0 {
                self.conn.close_idle(false);
                self.conn.set_stage(if known >= PREFACE_ALONE { Stage::Preface } else { Stage::Half });
            }
            if known == PREFACE.len() {
                self.lapse();
                self.framing = Framing::Raw;
                self.conn.set_stage(Stage::Http2);
                return Poll::Ready(Ok(Some(HttpVersion::Http2)));
            }
            // as much as hyper reads: the rest of a body that comes with its head shall not be late
            let mut space = [MaybeUninit::uninit(); FIRST_READ];
            let mut buf = ReadBuf::uninit(&mut space);
            match self.poll_take(cx, &mut buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    self.note_partial();
                    return if self.may_close() { Poll::Ready(Ok(None)) } else { Poll::Pending };
                }
            }
            if buf.filled().is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            self.held.extend_from_slice(buf.filled());
        }
    }

    /// Looks behind a complete request, where only the client's end is of interest, and what comes
    /// after. hyper stops looking for the end once it has read ahead, and so do we.
    fn poll_behind(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            match self.poll_take(cx, buf) {
                Poll::Ready(result) => {
                    let behind = &buf.filled()[before..];
                    if result.is_err() || behind.is_empty() {
                        self.ended = true;
                        return Poll::Ready(result);
                    }
                    self.held.extend_from_slice(behind);
                    buf.set_filled(before);
                    self.note_held();
                }
                Poll::Pending if self.conn.is_draining() => {
                    let last = self.stream.look() != Look::Bytes;
                    self.conn.set_last(last);
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        self.conn.set_last(false);
        // the task polls again when the reply is written and something is held
        Poll::Pending
    }

    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.framing, Framing::Head(_)) && self.conn.is_paused() {
            // The next request waits where it is; the end of the pause wakes us.
            return Poll::Pending;
        }
        let Self { framing, conn, flushed, .. } = self;
        if !self.held.is_empty() {
            let there = self.held.len().min(buf.remaining());
            let admitted = framing.admit(conn, flushed, &self.held[..there]);
            buf.put_slice(&self.held[..admitted]);
            self.held.advance(admitted);
            let all = self.held.is_empty();
            if all {
                self.held = BytesMut::new(); // its memory: most connections never hold anything back again
            }
            self.note_held();
            self.framing.note_rest(&self.conn, self.held.len());
            let more = all && buf.remaining() > 0 && matches!(self.framing, Framing::Body(_));
            if !more {
                return Poll::Ready(Ok(()));
            }
            // What hyper would have read at once, it gets at once: of a body that nobody wants it
            // takes one more piece, and closes if that was not all.
            return match self.poll_socket(cx, buf) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Ready(Ok(())),
            };
        }
        self.poll_socket(cx, buf)
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let body = matches!(self.framing, Framing::Body(_) | Framing::Chunked(_));
        let read = self.poll_take(cx, buf);
        if body {
            self.conn.progress.set_starved(read.is_pending());
        }
        match read {
            Poll::Ready(result) => result?,
            Poll::Pending => {
                self.note_partial();
                // to hyper: the client has closed
                return if self.may_close() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        let read = &buf.filled()[before..];
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if body {
            self.conn.progress.moved();
        }
        let Self { framing, conn, flushed, .. } = self;
        let admitted = framing.admit(conn, flushed, read);
        if admitted < read.len() {
            self.held.extend_from_slice(&read[admitted..]);
            buf.set_filled(before + admitted);
            self.note_held();
        }
        self.framing.note_rest(&self.conn, self.held.len());
        Poll::Ready(Ok(()))
    }

    /// Follows hyper from one message to the next.
    fn settle(&mut self) {
        self.framing.settle(&self.conn, self.flushed);
        self.note_between();
    }

    /// Takes the last look: returns whether the connection is idle, was asked to close, and has
    /// received nothing that epoll has not told us of.
    fn may_close(&mut self) -> bool {
        self.conn.closes_idle() && self.conn.stage() == Stage::Idle && self.stream.look() != Look::Bytes
    }

    /// Counts a part of a head that cannot be read yet as half a head, too.
    fn note_partial(&mut self) {
        if !matches!(&self.framing, Framing::Head(head) if !head.has_started()) || !self.held.is_empty() {
            return;
        }
        match (self.stream.is_partial(), self.conn.stage()) {
            (true, Stage::Idle) => {
                let http2 = self.stream.protocol() == Some(HttpVersion::Http2);
                self.conn.set_stage(if http2 { Stage::Preface } else { Stage::Half });
                self.conn.close_idle(false);
            }
            (false, Stage::Half | Stage::Preface) => self.conn.set_stage(Stage::Idle),
            _ => {}
        }
    }

    fn note_held(&self) {
        self.conn.set_held(!self.held.is_empty());
    }

    /// Notes what the socket does not take. Only a flush says that it has taken all.
    #[inline]
    fn note_blocked<R>(&self, written: Poll<R>) -> Poll<R> {
        if written.is_pending() {
            self.conn.progress.set_blocked(true);
        } else {
            self.conn.progress.wrote();
        }
        written
    }

    /// Notes that something waits for the client although the socket would take it.
    pub(super) fn note_waiting(&self) {
        self.conn.progress.set_blocked(true);
    }

    /// Lets the hammer reach an upgraded stream, in whoever's task it is.
    fn check_upgraded(&mut self, cx: &mut Context<'_>, half: Half) -> io::Result<()> {
        if self.conn.stage() == Stage::Upgraded {
            self.lapse();
            // first the waker, then the look: the hammer does it the other way round
            self.conn.wakers.set_waiting(half, cx.waker());
            if self.conn.is_hammered() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the drain timeout is over"));
            }
        }
        Ok(())
    }
}

impl<T: Transport> AsyncRead for Framed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        this.settle();
        match this.framing {
            Framing::Done => this.poll_behind(cx, buf),
            Framing::Parsing => {
                // hyper wants more although this was all of a head: let it have its way
                this.framing = Framing::Raw;
                this.conn.set_stage(Stage::Unframed);
                this.poll_some(cx, buf)
            }
            Framing::Raw => {
                this.check_upgraded(cx, Half::Reader)?;
                this.poll_some(cx, buf)
            }
            Framing::Frames(_) => {
                this.check_upgraded(cx, Half::Reader)?;
                this.poll_frames(cx, buf)
            }
            _ => this.poll_some(cx, buf),
        }
    }
}

impl<T: Transport> AsyncWrite for Framed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_upgraded(cx, Half::Writer)?;
        if let Some(swallowed) = self.poll_swallow(cx, buf) {
            return swallowed;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_blocked(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_upgraded(cx, Half::Writer)?;
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        if let Some(swallowed) = self.poll_swallow(cx, first) {
            return swallowed;
        }
        let mut space = [0; GATHERED];
        let written = match bufs {
            [one] => Pin::new(&mut self.stream).poll_write(cx, one),
            _ => match gather(bufs, &mut space) {
                Some(all) => Pin::new(&mut self.stream).poll_write(cx, all),
                None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            },
        };
        self.note_blocked(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Flushes, which hyper asks for when it has written all it has: after the end of the body, all
    /// of the reply.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.note_blocked(flushed))?;
        self.conn.progress.set_blocked(false);
        if self.conn.stage() == Stage::Replied {
            self.flushed = true;
            self.settle();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_closed(cx)
    }
}
