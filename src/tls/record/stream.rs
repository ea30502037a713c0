//! The record layer over a socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::layer::Layer;
use crate::drain::Stream;

/// So much is read at once: a record of the largest size, and some.
const READ: usize = 17 << 10;

/// A connection that has moved.
#[derive(Debug)]
pub(crate) struct RecordStream {
    stream: Stream,
    layer: Layer,
    /// Somebody has read from it. Before that it may still be another process's, whose records have
    /// the same numbers and keys: nothing is sealed.
    used: bool,
}

impl RecordStream {
    pub(crate) fn new(stream: Stream, layer: Layer) -> Self {
        Self { stream, layer, used: false }
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Sends the end, if the socket takes it now.
    pub(crate) fn last_word(&mut self) {
        if !self.used {
            return;
        }
        self.layer.close();
        while !self.layer.to_send().is_empty() {
            match self.stream.try_write(self.layer.to_send()) {
                Ok(sent @ 1..) => self.layer.sent(sent),
                _ => return,
            }
        }
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.layer.to_send().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, self.layer.to_send()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.layer.sent(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsFd for RecordStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for RecordStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.used = true;
        let mut done = this.layer.read(&mut [], buf);
        while let Ok(false) = done {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut received = ReadBuf::uninit(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut received) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    this.layer.rest();
                    return Poll::Pending;
                }
            }
            if received.filled().is_empty() {
                this.layer.end();
                let why = "the client has closed its connection without the end that TLS has";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            done = this.layer.read(received.filled_mut(), buf);
        }
        done.map_or_else(
            |error| {
                // the client is told why, if that goes at once
                let _ = this.poll_send(cx);
                Poll::Ready(Err(error))
            },
            |_| Poll::Ready(Ok(())),
        )
    }
}

impl AsyncWrite for RecordStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let written = self.layer.write(bufs);
        // what does not go now goes with the next write, or the flush
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.layer.close();
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.stream).poll_shutdown(cx)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
