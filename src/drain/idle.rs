//! A stream on which nothing moves for too long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A stream that fails with [`TimedOut`](io::ErrorKind::TimedOut) when a read or a write waits and
/// nothing has moved for some time, in neither direction: so a handler ends when its client sleeps,
/// but not in the middle of a long answer, nor while it works and waits for something else.
///
/// It wraps any stream, as that of a [`Connection`](crate::drain::Connection). There is no limit
/// unless it is asked for: only the protocol knows how long a client may be silent.
///
/// ```no_run
/// # fn example(service: &handover::Service) -> handover::Result<()> {
/// use handover::drain::IdleTimeout;
/// use std::time::Duration;
///
/// service.serve_stream("echo", |connection| async move {
///     let stream = IdleTimeout::new(connection.stream, Duration::from_secs(60));
///     let (mut from, mut to) = tokio::io::split(stream);
///     tokio::io::copy(&mut from, &mut to).await.map(drop)
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IdleTimeout<S> {
    stream: S,
    time: Duration,
    moved: Instant,
    // One for each direction: a timer wakes one task, and the two halves of a split stream may be
    // in two.
    reads: Option<Pin<Box<Sleep>>>,
    writes: Option<Pin<Box<Sleep>>>,
}

impl<S> IdleTimeout<S> {
    /// Wraps the stream; an error ends it when nothing has moved for this long, counted from now.
    ///
    /// It is to be read and written within a tokio runtime that has time.
    pub fn new(stream: S, time: Duration) -> Self {
        Self { stream, time, moved: Instant::now(), reads: None, writes: None }
    }

    /// Returns the stream without the limit.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Returns the stream, for its options and its address.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

/// Notes what moved.
fn note<T>(polled: Poll<io::Result<T>>, moved: &mut Instant) -> Poll<io::Result<T>> {
    if polled.is_ready() {
        *moved = Instant::now();
    }
    polled
}

/// Makes an error of waiting once it is too late.
fn watch<T>(
    polled: Poll<io::Result<T>>,
    time: Duration,
    moved: Instant,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if polled.is_ready() {
        return polled;
    }
    // The time has no end.
    let Some(due) = moved.checked_add(time) else { return Poll::Pending };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
    loop {
        ready!(timer.as_mut().poll(cx));
        // Set anew only here, so that a busy stream does not set it with each byte.
        if Instant::now() >= due {
            let why = format!("nothing was received or sent for {time:?}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        timer.as_mut().reset(due);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, time, moved, reads, .. } = &mut *self;
        let polled = note(Pin::new(stream).poll_read(cx, buf), moved);
        watch(polled, *time, *moved, reads, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, time, moved, writes, .. } = &mut *self;
        let polled = note(Pin::new(stream).poll_write(cx, bytes), moved);
        watch(polled, *time, *moved, writes, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, time, moved, writes, .. } = &mut *self;
        let polled = note(Pin::new(stream).poll_write_vectored(cx, bytes), moved);
        watch(polled, *time, *moved, writes, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A flush moves nothing by itself: tokio's copy does one whenever it waits.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, time, moved, writes, .. } = &mut *self;
        watch(Pin::new(stream).poll_flush(cx), *time, *moved, writes, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, time, moved, writes, .. } = &mut *self;
        watch(Pin::new(stream).poll_shutdown(cx), *time, *moved, writes, cx)
    }
}
