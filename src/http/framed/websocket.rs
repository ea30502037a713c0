//! A connection that speaks WebSocket: whole frames for whoever reads it, and its way to another
//! process and back to a router.

use super::Framed;
use crate::http::framing::Framing;
use crate::http::stage::Stage;
use crate::http::transport::{Detached, FIRST_READ, Transport};
use crate::http::upgraded::{Given, Upgrade};
use crate::transit::Contents;
use crate::wire::parcel::{Record, UPGRADED, millis};
use bytes::{Buf, BytesMut};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// The last frame of a WebSocket that nobody here wants: code 1012, the service restarts.
const GOODBYE: &[u8] = b"\x88\x11\x03\xf4service restart";

impl<T: Transport> Framed<T> {
    /// Reads the next frame of a WebSocket, and nothing behind it: whoever reads has used all that
    /// it was given when it waits.
    pub(super) fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let conn = Arc::clone(&self.conn);
        let (Some(upgrade), Framing::Frames(frames)) = (conn.upgrade(), &mut self.framing) else {
            return self.poll_some(cx, buf);
        };
        if !upgrade.begin_read() {
            return Poll::Pending; // it goes, or this is polled again
        }
        loop {
            let now = match frames.admit(&self.held, buf.remaining()) {
                0 if self.ended => self.held.len().min(buf.remaining()),
                now => now,
            };
            if now > 0 || self.ended {
                buf.put_slice(&self.held[..now]);
                self.held.advance(now);
                if self.held.is_empty() {
                    self.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            let read = if self.held.is_empty() {
                // a whole frame need not be copied
                let before = buf.filled().len();
                Pin::new(&mut self.stream).poll_read(cx, buf).map_ok(|()| {
                    let read = &buf.filled()[before..];
                    let passed = frames.admit(read, read.len());
                    self.ended = read.is_empty();
                    self.held.extend_from_slice(&read[passed..]);
                    buf.set_filled(before + passed);
                    passed > 0
                })
            } else {
                let mut space = [MaybeUninit::uninit(); FIRST_READ];
                let mut part = ReadBuf::uninit(&mut space);
                Pin::new(&mut self.stream).poll_read(cx, &mut part).map_ok(|()| {
                    self.ended = part.filled().is_empty();
                    self.held.extend_from_slice(part.filled());
                    false
                })
            };
            match read {
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(passed) => return Poll::Ready(passed.map(drop)),
                Poll::Pending => {
                    if frames.is_between() {
                        upgrade.wait();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes the reply of a replayed request, which is not for the client; `None` if there is none
    /// to take. If it is not the one that the client has had, the connection is closed.
    pub(super) fn poll_swallow(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        let head = self.swallowed.as_mut()?;
        if self.conn.stage() != Stage::Upgraded {
            let refused = || io::Error::new(io::ErrorKind::ConnectionAborted, "this version does not upgrade it");
            return Some(self.poll_closed(cx).map(|closed| Err(closed.err().unwrap_or_else(refused))));
        }
        let end = head.feed(bytes);
        if end.is_some() {
            self.swallowed = None;
            self.conn.upgrade().into_iter().for_each(Upgrade::end_replay);
        }
        Some(Poll::Ready(Ok(end.unwrap_or(bytes.len()))))
    }

    pub(super) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.swallowed.is_some() && self.goodbye < GOODBYE.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &GOODBYE[self.goodbye..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.goodbye += written,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a WebSocket on its way, which its handler has given and dropped.
    pub(super) fn leave_upgraded(&mut self) {
        let conn = Arc::clone(&self.conn);
        let Some(upgrade) = conn.upgrade() else { return };
        let Some(Given { state, permit }) = upgrade.take_given() else { return };
        let whole = matches!(&self.framing, Framing::Frames(frames) if frames.is_between());
        if !whole || self.shut || self.ended || conn.progress.is_blocked() || conn.is_hammered() {
            tracing::debug!(peer = %conn.peer, "a WebSocket that was given is at its end");
            return;
        }
        let record = Record {
            listener: conn.listener().to_string(),
            protocol: Record::protocol_over(UPGRADED, T::TLS),
            known: true,
            requests: conn.requests(),
            copied: self.copied,
            open_ms: millis(conn.opened().elapsed()),
            moves: conn.before().moves + 1,
            ..Record::default()
        };
        match (self.stream.detach(), self.guard.take()) {
            (Ok(Detached { fd, tls }), Some(guard)) => {
                self.moved = true;
                let contents = Contents { head: upgrade.head().to_vec(), state, unread: self.held.to_vec(), tls };
                conn.drain.send_off(record, fd, contents, guard, permit);
            }
            (Err(error), _) => tracing::warn!(peer = %conn.peer, %error, "a WebSocket that cannot move is closed"),
            (Ok(_), None) => {}
        }
    }
}
