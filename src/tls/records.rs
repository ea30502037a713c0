//! The socket below rustls, which gets whole records only.
//!
//! What rustls has of a record that is not whole nobody can get back. So it gets none: the
//! connection could not go to another process with it. And rustls does not say whether it has a
//! part of one, which is a request on its way, as half a head is. A record that it has no room for
//! goes to it in pieces, and nothing behind that: until it has all of it, it wants more.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "http")]
use super::record::Recent;
use crate::drain::Stream;

/// The length of a record's header: type, version, length.
const HEADER: usize = 5;
/// rustls refuses a record that is longer.
const MAX_BODY: usize = (16 << 10) + 2048;
/// So much is read at once when a part of a record is here: the rest of the largest, and some.
const READ: usize = 17 << 10;

#[derive(Debug)]
pub(super) struct Records {
    stream: Stream,
    held: Held,
}

/// What was received and not given to rustls.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    given: usize,
    /// The end of the whole records.
    whole: usize,
    /// These are no records, or their end has come: rustls says so.
    raw: bool,
    /// Of a record whose beginning rustls has had, how much it has not.
    left: usize,
    #[cfg(feature = "http")]
    recent: Recent,
}

impl Records {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, held: Held::default() }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    #[cfg(feature = "http")]
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Returns the socket, what rustls has not had, and what it has had last.
    #[cfg(feature = "http")]
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>, Recent) {
        let Held { mut bytes, given, recent, .. } = self.held;
        bytes.drain(..given);
        (self.stream, bytes, recent)
    }

    /// Returns whether a part of a record has been received, and not all of it.
    #[cfg(feature = "http")]
    pub(super) fn is_partial(&self) -> bool {
        !self.held.bytes.is_empty()
    }
}

impl Held {
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let now = self.next(buf.remaining());
        buf.put_slice(&self.bytes[self.given..self.given + now]);
        self.given += now;
        if self.given == self.bytes.len() {
            (self.bytes, self.given, self.whole) = (Vec::new(), 0, 0);
        }
        now > 0
    }

    /// Returns how many bytes go now, of which there may be so many: the rest of a record, and
    /// those that fit behind it; or a part of one.
    fn next(&mut self, room: usize) -> usize {
        let ready = &self.bytes[self.given..self.whole];
        if self.raw {
            return ready.len().min(room);
        }
        let mut now = self.left.min(room);
        self.left -= now;
        while self.left == 0
            && now < room
            && let Some(length) = first(&ready[now..])
        {
            match room - now {
                left if left >= length => {
                    #[cfg(feature = "http")]
                    self.recent.note(&ready[now..now + length]);
                    now += length;
                }
                left if now == 0 => {
                    #[cfg(feature = "http")]
                    self.recent.clear();
                    (self.left, now) = (length - left, left);
                }
                _ => break,
            }
        }
        now
    }

    /// Adds what was received behind the part that is here.
    fn add(&mut self, received: &[u8]) {
        self.bytes.drain(..self.given);
        self.bytes.extend_from_slice(received);
        (self.given, self.whole) = (0, self.end_of_whole(&self.bytes));
        self.raw |= self.whole == self.bytes.len() && whole(&self.bytes).is_none();
    }

    /// Holds back a part of a record at the end of these; returns how many bytes are before it.
    fn hold(&mut self, received: &[u8]) -> usize {
        let end = self.end_of_whole(received);
        self.raw |= whole(received).is_none();
        #[cfg(feature = "http")]
        if !self.raw {
            let mut rest = &received[..end];
            while let Some(length) = first(rest) {
                self.recent.note(&rest[..length]);
                rest = &rest[length..];
            }
        }
        self.bytes.extend_from_slice(&received[end..]);
        end
    }

    /// No more comes: what is here goes to rustls as it is.
    fn end(&mut self) {
        (self.raw, self.whole) = (true, self.bytes.len());
    }

    fn end_of_whole(&self, bytes: &[u8]) -> usize {
        if self.raw { bytes.len() } else { whole(bytes).unwrap_or(bytes.len()) }
    }
}

/// Returns how long the first record is.
fn first(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk::<HEADER>()?;
    Some(HEADER + usize::from(u16::from_be_bytes([high, low])))
}

/// Returns how many bytes are whole records; `None` if this is something else.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    while let Some(&[kind, major, _, high, low]) = bytes[end..].first_chunk::<HEADER>() {
        let body = usize::from(u16::from_be_bytes([high, low]));
        if !(20..=24).contains(&kind) || major != 3 || body > MAX_BODY {
            return None;
        }
        match end + HEADER + body {
            next if next <= bytes.len() => end = next,
            _ => break,
        }
    }
    // of a header that is not whole, its beginning tells enough
    match bytes[end..] {
        [kind, ..] if !(20..=24).contains(&kind) => None,
        [_, major, ..] if major != 3 => None,
        _ => Some(end),
    }
}

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for Records {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, held } = &mut *self;
        loop {
            if held.give(buf) || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if held.bytes.is_empty() {
                // whole records need not be copied
                let before = buf.filled().len();
                ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
                let received = &buf.filled()[before..];
                let end = held.hold(received);
                if end > 0 || received.is_empty() {
                    buf.set_filled(before + end);
                    return Poll::Ready(Ok(()));
                }
                buf.set_filled(before);
            } else {
                let mut space = [MaybeUninit::uninit(); READ];
                let mut received = ReadBuf::uninit(&mut space);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut received))?;
                match received.filled() {
                    [] => held.end(),
                    received => held.add(received),
                }
            }
        }
    }
}

impl AsyncWrite for Records {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    /// Sends these bytes in three pieces; returns all that rustls would get after each.
    async fn given(bytes: &[u8], first: usize, second: usize, space: usize) -> Vec<usize> {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut records = Records::new(Stream::Unix(server));
        let mut all = Vec::new();
        let mut lengths = Vec::new();
        for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
            client.write_all(piece).await.unwrap();
            // the reactor shall know of it
            if !piece.is_empty() {
                std::future::poll_fn(|cx| match &records.stream {
                    Stream::Unix(stream) => stream.poll_read_ready(cx),
                    Stream::Tcp(_) => unreachable!(),
                })
                .await
                .unwrap();
            }
            loop {
                let mut space = vec![0; space];
                let mut buf = ReadBuf::new(&mut space);
                match Pin::new(&mut records).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => break,
                }
                assert!(!buf.filled().is_empty());
                all.extend_from_slice(buf.filled());
            }
            lengths.push(all.len());
        }
        assert_eq!(all, bytes[..all.len()]);
        lengths
    }

    #[tokio::test]
    async fn rustls_gets_whole_records_at_any_cut() {
        let records =
            [&b"\x17\x03\x03\x00\x03abc"[..], b"\x17\x03\x03\x01\x02", &[7; 258], b"\x15\x03\x03\x00\x00"].concat();
        let ends = [0, 8, 8 + 5 + 258, 8 + 5 + 258 + 5];
        let whole_at = |at: usize| ends.into_iter().filter(|end| *end <= at).max().unwrap();
        for first in 0..=records.len() {
            for second in [first, (first + 1).min(records.len()), (first + 7).min(records.len()), records.len()] {
                for space in [7, 4096] {
                    let lengths = given(&records, first, second, space).await;
                    assert_eq!(lengths, [whole_at(first), whole_at(second), records.len()], "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn nothing_comes_behind_a_part_of_a_record() {
        let records = [&b"\x17\x03\x03\x00\x03abc"[..], b"\x17\x03\x03\x01\x02", &[7; 258], b"\x15\x03\x03\x00\x00"];
        let records = [&records.concat()[..], records[0]].concat();
        let ends = [8, 271, 276, 284];
        for room in 1..300 {
            for cut in 0..=records.len() {
                let mut held = Held::default();
                let mut at = held.hold(&records[..cut]);
                held.add(&records[cut..]);
                loop {
                    let mut space = vec![0; room];
                    let mut buf = ReadBuf::new(&mut space);
                    if !held.give(&mut buf) {
                        break;
                    }
                    let (from, to) = (at, at + buf.filled().len());
                    assert_eq!(buf.filled(), &records[from..to]);
                    assert!(ends.contains(&to) || !ends.iter().any(|end| (from + 1..to).contains(end)), "{from}..{to}");
                    at = to;
                }
                assert_eq!(at, records.len());
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_record_goes_at_once() {
        for (bytes, whole) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], 0), (b"\x17\x03\x03\x00\x01a\x17\x02", 6)] {
            for first in 0..=bytes.len() {
                let lengths = given(bytes, first, bytes.len(), 4096).await;
                assert_eq!(lengths[1..], [bytes.len(); 2], "{whole}, {first}");
            }
        }
    }
}
