//! A client's side of HTTP/2 over one connection.
//!
//! What the server announced is told apart from what it broke: streams above the last one of a
//! GOAWAY, and those refused by REFUSED_STREAM, were not acted on; everything else that ends
//! without its whole answer is lost.

use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use tokio::task::JoinHandle;

use super::ask::Ask;
use super::body::Body;
use super::http1::connect;
use super::kind::Cause;
use super::message::{Broken, Idle, Response, broken};
use super::target::Target;

/// Large enough that no stream waits for another one's reader.
const WINDOW: u32 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    driver: JoinHandle<()>,
    pub(super) opened: Instant,
    pub(super) served_by: Option<u32>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) async fn open(target: &Target, limit: Duration) -> Result<Self, Broken> {
        let stream = connect(target, limit).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let handshake = tokio::time::timeout(limit, builder.handshake::<_, Bytes>(stream)).await;
        let (send, connection) = handshake
            .map_err(|_| broken(Cause::Timeout, "the HTTP/2 preface"))?
            .map_err(|e| broken(Cause::Reset, format!("the HTTP/2 preface: {e}")))?;
        // Its end is told by every handle to it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { send, driver, opened: Instant::now(), served_by: None })
    }

    /// Waits that long with nothing under way, and ends early when the server closes.
    pub(super) async fn idle(&mut self, time: Duration) -> Idle {
        let _ = tokio::time::timeout(time, &mut self.driver).await;
        self.ready().await
    }

    /// Whether a request can be sent: no GOAWAY has come, and no close.
    pub(super) async fn ready(&mut self) -> Idle {
        if self.driver.is_finished() {
            // Asked for its readiness, the handle tells how it ended.
            return match poll_fn(|cx| self.send.poll_ready(cx)).await {
                Err(e) if e.is_go_away() => Idle::Announced,
                _ => Idle::Closed,
            };
        }
        // The driver has not necessarily read what the kernel has: it is given the chance.
        tokio::task::yield_now().await;
        match futures_util::FutureExt::now_or_never(poll_fn(|cx| self.send.poll_ready(cx))) {
            Some(Err(e)) if e.is_go_away() => Idle::Announced,
            Some(Err(_)) => Idle::Closed,
            _ => Idle::Open,
        }
    }

    /// `None`: handed back, unprocessed.
    pub(super) async fn exchange(
        &mut self,
        ask: &Ask,
        target: &Target,
        held: &mut Duration,
    ) -> Result<Option<Response>, Broken> {
        match self.try_exchange(ask, target, held).await {
            Ok(response) => Ok(Some(response)),
            Err(Ended::Broken(broken)) => Err(broken),
            Err(Ended::Stream(e, _)) if handed_back(&e) => Ok(None),
            Err(Ended::Stream(e, begun)) => Err(cause(&e, begun)),
        }
    }

    async fn try_exchange(&mut self, ask: &Ask, target: &Target, held: &mut Duration) -> Result<Response, Ended> {
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        let request = Request::builder().method(ask.method).uri(format!("{scheme}://{}{}", target.host, ask.path));
        let request = request.body(()).map_err(|e| broken(Cause::Malformed, format!("the request: {e}")))?;
        poll_fn(|cx| self.send.poll_ready(cx)).await.map_err(|e| Ended::Stream(e, false))?;
        let sent = self.send.send_request(request, ask.body.is_empty());
        let (response, mut body) = sent.map_err(|e| Ended::Stream(e, false))?;
        for (n, piece) in ask.body.iter().enumerate() {
            let waits = Instant::now();
            tokio::time::sleep(ask.pause).await;
            *held += waits.elapsed();
            // A server may answer before it has read everything; what it says then is in the
            // response.
            if write(&mut body, piece, n + 1 == ask.body.len()).await.is_err() {
                break;
            }
        }
        let response = response.await.map_err(|e| Ended::Stream(e, false))?;
        let header = target.generation_header.as_ref().and_then(|name| response.headers().get(name.as_str()));
        let generation = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let status = response.status().as_u16();
        let body = read(response.into_body()).await?;
        Ok(Response { status, close: false, body, generation })
    }
}

async fn write(stream: &mut SendStream<Bytes>, piece: &[u8], last: bool) -> Result<(), h2::Error> {
    let mut left = Bytes::copy_from_slice(piece);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(Reason::CANCEL.into());
        };
        let part = left.split_to(capacity?.min(left.len()));
        let end = last && left.is_empty();
        stream.send_data(part, end)?;
    }
    Ok(())
}

async fn read(mut stream: RecvStream) -> Result<Body, Ended> {
    let mut body = Body::default();
    while let Some(data) = stream.data().await {
        let data = data.map_err(|e| Ended::Stream(e, true))?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.push(&data);
    }
    stream.trailers().await.map_err(|e| Ended::Stream(e, true))?;
    Ok(body)
}

enum Ended {
    Broken(Broken),
    /// And whether the answer had begun.
    Stream(h2::Error, bool),
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

fn handed_back(e: &h2::Error) -> bool {
    e.is_remote() && (e.is_go_away() || (e.is_reset() && e.reason() == Some(Reason::REFUSED_STREAM)))
}

fn cause(e: &h2::Error, begun: bool) -> Broken {
    let eof = |e: &io::Error| matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof);
    match e.get_io() {
        _ if begun => broken(Cause::Truncated, format!("within the response: {e}")),
        Some(io) if eof(io) => broken(Cause::Closed, format!("closed without an answer: {e}")),
        Some(_) => broken(Cause::Reset, format!("instead of an answer: {e}")),
        None if e.is_reset() || e.is_go_away() => broken(Cause::Reset, format!("instead of an answer: {e}")),
        None => broken(Cause::Malformed, e.to_string()),
    }
}
