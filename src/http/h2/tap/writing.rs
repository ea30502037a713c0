//! What the server writes.

use super::{MOST_PARKED, Tapped};
use crate::http::h2::follower::{Fate, Follower};
use crate::http::transport::Transport;
use bytes::Buf as _;
use std::io::{self, IoSlice};
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

impl<T: Transport> Tapped<T> {
    /// Writes what is ours, where no frame of the server's is under way, and what has waited.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ours.is_empty() && self.follower.is_between() {
                self.out.extend_from_slice(&take(&mut self.ours));
            }
            if self.out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.flushed = false;
            let Self { framed: Some(framed), out, .. } = self else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let some = ready!(Pin::new(framed).poll_write(cx, out))?;
            if some == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(some);
        }
    }

    /// Takes the server's frames one by one: some are not for the client, some have to wait.
    fn edit(&mut self, bytes: &[u8]) {
        self.cut.extend_from_slice(bytes);
        loop {
            let length = Follower::whole(&self.cut);
            if length == 0 {
                break;
            }
            let frame = self.cut.split_to(length);
            if self.parked.is_empty() || Follower::overtakes(&frame) {
                self.forward(&frame);
            } else {
                self.parked.extend_from_slice(&frame);
            }
        }
        if !self.follower.is_ahead()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Sends a frame of the server's on, unless it has to wait.
    fn forward(&mut self, frame: &[u8]) -> bool {
        match self.follower.of_server(frame) {
            Fate::Pass(_) => self.out.extend_from_slice(frame),
            Fate::Replace(_, other) => self.out.extend_from_slice(&other),
            Fate::Wait | Fate::Unknown => {
                self.parked.extend_from_slice(frame);
                return false;
            }
            Fate::Drop(_) | Fate::Answer(..) | Fate::Hold(_) | Fate::Remake(_) => {}
        }
        true
    }

    /// Lets those go for which there is room by now.
    pub(super) fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let mut parked = take(&mut self.parked);
        while let length @ 1.. = Follower::whole(&parked) {
            let frame = parked.split_to(length);
            if !self.forward(&frame) {
                break;
            }
        }
        self.parked.extend_from_slice(&parked);
    }

    /// Returns whether the server's bytes go by untouched, and all of ours are out.
    #[inline]
    fn is_plain(&self) -> bool {
        self.ours.is_empty()
            && self.out.is_empty()
            && self.cut.is_empty()
            && self.parked.is_empty()
            && !self.follower.edits()
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.off {
            return Pin::new(self.stream()?).poll_write(cx, buf);
        }
        self.flushed = false;
        let plain = self.is_plain();
        if !plain && self.follower.is_between() {
            ready!(self.poll_out(cx))?;
            let editing = self.follower.edits() || !self.cut.is_empty() || !self.parked.is_empty();
            if editing {
                if self.parked.len() > MOST_PARKED {
                    self.stream()?.note_waiting(); // not for ever: there is the write timeout
                    return Poll::Pending;
                }
                self.edit(buf);
                let _ = self.poll_out(cx)?;
                return Poll::Ready(Ok(buf.len()));
            }
        }
        let most = if plain || self.follower.is_between() { buf.len() } else { self.follower.rest_of_frame(buf) };
        let some = ready!(Pin::new(self.stream()?).poll_write(cx, &buf[..most]))?;
        self.follower.sent(&buf[..some]);
        Poll::Ready(Ok(some))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.off {
            return Pin::new(self.stream()?).poll_write_vectored(cx, bufs);
        }
        if !self.is_plain() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        self.flushed = false;
        let some = ready!(Pin::new(self.stream()?).poll_write_vectored(cx, bufs))?;
        let mut left = some;
        for buf in bufs {
            let now = left.min(buf.len());
            self.follower.sent(&buf[..now]);
            left -= now;
        }
        Poll::Ready(Ok(some))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        let parked = !self.parked.is_empty();
        let framed = self.stream()?;
        ready!(Pin::new(&mut *framed).poll_flush(cx))?;
        if parked {
            framed.note_waiting();
        }
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
}
