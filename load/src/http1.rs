//! A client's side of HTTP/1.1 over one connection: write a request, read exactly one response.
//!
//! It never retries and never guesses: what a response needs to be complete is either stated by the
//! server or missing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ask::Ask;
use super::body::Body;
use super::kind::Cause;
use super::message::{Broken, Idle, Response, broken};
use super::target::{Stream, Target};

/// The longest head and the longest line of chunked framing that is read.
const MAX_HEAD: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    received: Vec<u8>,
    pub(super) opened: Instant,
    /// The pid that answered on this connection before, so that a later loss can be laid at its
    /// door.
    pub(super) served_by: Option<u32>,
    generation_header: Option<String>,
}

/// Makes a connection, and says why there is none.
pub(super) async fn connect(target: &Target, limit: Duration) -> Result<Stream, Broken> {
    match tokio::time::timeout(limit, target.connect()).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Err(broken(Cause::Refused, e.to_string())),
        // The backlog of a Unix socket is full: what TCP would hide in a timeout.
        Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => Err(broken(Cause::Refused, "the backlog is full")),
        Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Err(broken(Cause::Reset, format!("connecting: {e}")))
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(broken(Cause::Closed, format!("connecting: {e}")))
        }
        Ok(Err(e)) => Err(broken(Cause::Connect, e.to_string())),
        Err(_) => Err(broken(Cause::Timeout, "connecting")),
    }
}

impl Connection {
    pub(super) async fn open(target: &Target, limit: Duration) -> Result<Self, Broken> {
        let stream = connect(target, limit).await?;
        let generation_header = target.generation_header.clone();
        Ok(Self { stream, received: Vec::new(), opened: Instant::now(), served_by: None, generation_header })
    }

    /// For those who want to know who has the other end.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Nothing more is wanted of it.
    pub(super) fn end(self) {
        self.stream.end();
    }

    /// Waits that long with nothing under way, and ends early when the server closes.
    pub(super) async fn idle(&mut self, time: Duration) -> Idle {
        let until = tokio::time::Instant::now() + time;
        match tokio::time::timeout_at(until, self.stream.read_buf(&mut self.received)).await {
            Err(_) => self.look(),
            Ok(Ok(0) | Err(_)) => Idle::Closed,
            Ok(Ok(_)) => Idle::Spoke,
        }
    }

    /// A last look before writing, as any client does: the close may have come together with the
    /// end of the wait, or wait in the kernel because this machine is busy. A request written
    /// afterwards crossed the close on its way.
    pub(super) fn look(&self) -> Idle {
        let mut byte = [0; 1];
        match recv(self.stream.as_fd().as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Err(nix::errno::Errno::EAGAIN) => Idle::Open,
            Ok(0) | Err(_) => Idle::Closed,
            // TLS says things of its own.
            Ok(_) if matches!(self.stream, Stream::Tls(_)) => Idle::Open,
            Ok(_) => Idle::Spoke,
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        written.await.map_err(|e| broken(Cause::Reset, format!("writing: {e}")))
    }

    /// No byte may have come that belongs to no response.
    pub(super) fn nothing_more(&self) -> Result<(), Broken> {
        match self.received.len() {
            0 => Ok(()),
            n => Err(broken(Cause::Unasked, format!("{n} bytes after the response"))),
        }
    }

    /// Writes the request with all its pauses, and reads the response. `held` grows by the time of
    /// the pauses.
    pub(super) async fn exchange(&mut self, ask: &Ask, host: &str, held: &mut Duration) -> Result<Response, Broken> {
        let written = self.request(ask, host, held).await;
        let response = self.response().await;
        match (written, response) {
            // A server may answer before it has read everything.
            (_, Ok(response)) => Ok(response),
            (Err(broken), Err(Broken { cause: Cause::Closed, .. })) => Err(broken),
            (_, Err(broken)) => Err(broken),
        }
    }

    async fn request(&mut self, ask: &Ask, host: &str, held: &mut Duration) -> Result<(), Broken> {
        let mut head = ask.head(host);
        if let Some((thousandths, hold)) = &ask.split {
            let rest = head.split_off((head.len() * thousandths / 1000).clamp(1, head.len() - 1));
            self.write(&head).await?;
            let waits = Instant::now();
            hold.wait().await;
            *held += waits.elapsed();
            head = rest;
        }
        self.write(&head).await?;
        for piece in &ask.body {
            let waits = Instant::now();
            tokio::time::sleep(ask.pause).await;
            *held += waits.elapsed();
            self.write(piece).await?;
        }
        Ok(())
    }

    /// Reads one response with its body.
    pub(super) async fn response(&mut self) -> Result<Response, Broken> {
        let head = loop {
            match parse_head(&self.received, self.generation_header.as_deref())? {
                // An interim response: the real one follows.
                Some(head) if (100..200).contains(&head.status) => drop(self.received.drain(..head.length)),
                Some(head) => break head,
                None if self.received.len() > MAX_HEAD => {
                    return Err(broken(Cause::Malformed, "a head without an end"));
                }
                None => self.fill(!self.received.is_empty()).await?,
            }
        };
        self.received.drain(..head.length);
        let mut body = Body::default();
        match head.framing {
            Framing::Length(length) => self.take(length, &mut body).await?,
            Framing::Chunked => self.chunks(&mut body).await?,
        }
        Ok(Response { status: head.status, close: head.close, body, generation: head.generation })
    }

    async fn chunks(&mut self, body: &mut Body) -> Result<(), Broken> {
        loop {
            let line = self.line().await?;
            let size = line.split(|&b| b == b';').next().and_then(|digits| std::str::from_utf8(digits).ok());
            let size = size.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
            let size = size
                .ok_or_else(|| broken(Cause::Malformed, format!("chunk size {:?}", String::from_utf8_lossy(&line))))?;
            if size == 0 {
                break;
            }
            self.take(size, body).await?;
            if !self.line().await?.is_empty() {
                return Err(broken(Cause::Malformed, "a chunk longer than its size"));
            }
        }
        while !self.line().await?.is_empty() {} // trailers
        Ok(())
    }

    /// Reads so many bytes of the body as they come.
    async fn take(&mut self, length: u64, body: &mut Body) -> Result<(), Broken> {
        let mut left = length;
        while left > 0 {
            if self.received.is_empty() {
                self.fill(true).await?;
            }
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(self.received.len());
            body.push(&self.received[..part]);
            self.received.drain(..part);
            left -= part as u64;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.received.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.received.len() > MAX_HEAD {
                return Err(broken(Cause::Malformed, "a line without an end"));
            }
            self.fill(true).await?;
        }
    }

    /// Reads what there is; `begun` tells whether a part of the response has come already.
    async fn fill(&mut self, begun: bool) -> Result<(), Broken> {
        self.received.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) if begun => Err(broken(Cause::Truncated, "closed within the response")),
            Ok(0) => Err(broken(Cause::Closed, "closed without an answer")),
            Ok(_) => Ok(()),
            Err(e) if begun => Err(broken(Cause::Truncated, format!("within the response: {e}"))),
            Err(e) => Err(broken(Cause::Reset, format!("instead of an answer: {e}"))),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    close: bool,
    framing: Framing,
    generation: Option<String>,
    /// Bytes of the head itself.
    length: usize,
}

fn parse_head(bytes: &[u8], generation_header: Option<&str>) -> Result<Option<Head>, Broken> {
    let malformed = |detail: String| broken(Cause::Malformed, detail);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(malformed(format!("the response's head: {e}"))),
    };
    let status = response.code.unwrap_or_default();
    let mut close = response.version == Some(0);
    // 1xx, 204 and 304 have no body, whatever their head says (RFC 9112, 6.3).
    let mut framing = (status < 200 || status == 204 || status == 304).then_some(Framing::Length(0));
    let mut generation = None;
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        if generation_header.is_some_and(|name| header.name.eq_ignore_ascii_case(name)) {
            generation = Some(value.trim().to_owned());
        }
        if header.name.eq_ignore_ascii_case("connection") {
            close |= value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
        {
            framing = framing.or(Some(Framing::Chunked));
        } else if header.name.eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse().map_err(|e| malformed(format!("Content-Length {value:?}: {e}")))?;
            framing = framing.or(Some(Framing::Length(length)));
        }
    }
    // A body that only the close ends could be cut without anyone seeing it: such an answer proves
    // nothing here.
    let framing = framing.ok_or_else(|| malformed("neither Content-Length nor chunked".into()))?;
    Ok(Some(Head { status, close, framing, generation, length }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn heads() {
        let head = |text: &str| parse_head(text.as_bytes(), Some("x-g"));
        assert_eq!(head("HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        let plain = head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap().unwrap();
        assert_eq!((plain.status, plain.close, plain.framing, plain.length), (200, false, Framing::Length(5), 38));
        let last =
            head("HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nX-G: 7\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap()
                .unwrap();
        assert_eq!((last.close, last.framing, last.generation.as_deref()), (true, Framing::Chunked, Some("7")));
        let empty = head("HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!(empty.framing, Framing::Length(0));
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n"] {
            assert_eq!(head(bad).unwrap_err().cause, Cause::Malformed, "{bad}");
        }
    }

    /// Sends these bytes, one by one so that every split is met, then closes.
    async fn read_from(bytes: &'static str) -> Result<Response, Broken> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for byte in bytes.bytes() {
                stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut connection = Connection::open(&Target::tcp(address), Duration::from_secs(10)).await.unwrap();
        let response = connection.response().await;
        server.await.unwrap();
        response
    }

    #[tokio::test]
    async fn bodies() {
        let response = read_from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        assert!(response.body.is(b"hello"));
        let response = read_from(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n",
        )
        .await
        .unwrap();
        assert!(response.body.is(b"hello!"));
        let response =
            read_from("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        assert!(response.status == 200 && response.body.is(b"ok"));
    }

    #[tokio::test]
    async fn breaks() {
        for (bytes, cause) in [
            ("", Cause::Closed),
            ("HTTP/1.1 2", Cause::Truncated),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", Cause::Truncated),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Cause::Truncated),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Cause::Truncated),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello!\r\n", Cause::Malformed),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfive\r\n", Cause::Malformed),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Cause::Truncated),
        ] {
            assert_eq!(read_from(bytes).await.unwrap_err().cause, cause, "{bytes}");
        }
    }
}
