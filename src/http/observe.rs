//! The service as hyper sees it: each request is known from its call to the end of its reply.

use super::conn::Conn;
use super::upgraded::Upgrade;
use bytes::{Buf, Bytes};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use http::{Extensions, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub(super) struct Observed<S> {
    service: S,
    conn: Arc<Conn>,
    /// What each request gets. Cloned as a whole, which is cheaper than to insert each time.
    extensions: Extensions,
}

/// It is never pinned, nor is what it wraps.
impl<S> Unpin for Observed<S> {}

impl<S> Observed<S> {
    /// Wraps a service; the extensions are what each request gets besides.
    pub(super) fn new(service: S, conn: Arc<Conn>, extensions: Extensions) -> Self {
        Self { service, conn, extensions }
    }
}

impl<S, B> Service<Request<Incoming>> for Observed<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<ReplyBody<B>>;
    type Error = S::Error;
    type Future = Replying<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let slot = self.conn.called(&request);
        let connect = request.method() == Method::CONNECT;
        let version = request.version();
        let extensions = request.extensions_mut();
        if self.extensions.is_empty() {
            // not asked for
        } else if extensions.is_empty() {
            *extensions = self.extensions.clone();
        } else {
            extensions.extend(self.extensions.clone()); // besides hyper's own, for an upgrade
        }
        Replying {
            future: self.service.call(request),
            waits: self.conn.is_paused().then(|| Waiting::new(&self.conn)),
            end: Some(ReplyEnd { conn: Arc::clone(&self.conn), slot, sending: false }),
            connect,
            version,
        }
    }
}

/// A request that was read in a pause: over HTTP/2, where frames of others may have to be read, or
/// just when the pause began. Its handler has it when the pause is over.
struct Waiting {
    conn: Arc<Conn>,
    resumed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Waiting {
    fn new(conn: &Arc<Conn>) -> Self {
        conn.count_waiting(true);
        Self { conn: Arc::clone(conn), resumed: Box::pin(conn.drain.resumed()) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.conn.count_waiting(false);
    }
}

pin_project! {
    pub(super) struct Replying<F> {
        #[pin]
        future: F,
        waits: Option<Waiting>,
        end: Option<ReplyEnd>,
        connect: bool,
        version: Version,
    }
}

impl<F, B, E> Future for Replying<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ReplyBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(waits) = this.waits {
            ready!(waits.resumed.as_mut().poll(cx));
            *this.waits = None;
        }
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(end) = &this.end {
            let status = response.status();
            let upgrade = status == StatusCode::SWITCHING_PROTOCOLS || (*this.connect && status.is_success());
            if upgrade && response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
                // what they remember of one frame for the next is known here alone
                end.conn.upgrade().into_iter().for_each(Upgrade::stay);
            }
            if end.conn.answered(upgrade) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                if *this.version == Version::HTTP_10 {
                    // else hyper adds `keep-alive` to what we have just said
                    *response.version_mut() = Version::HTTP_10;
                }
            }
        }
        let end = this.end.take();
        let http2 = *this.version == Version::HTTP_2;
        Poll::Ready(Ok(response.map(|body| ReplyBody { body, end, http2 })))
    }
}

pin_project! {
    /// A reply's body. hyper drops it in any case, read to its end or not, before it flushes. Over
    /// HTTP/2 it may be long until all is sent that it has given: as much as the client does not
    /// take waits in h2. So there the last frame is what ends the reply.
    pub(super) struct ReplyBody<B> {
        #[pin]
        body: B,
        end: Option<ReplyEnd>,
        http2: bool,
    }
}

impl<B: Body> Body for ReplyBody<B> {
    type Data = Sending<B::Data>;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let mut body = this.body;
        if !*this.http2 {
            let frame = ready!(body.poll_frame(cx)?);
            return Poll::Ready(frame.map(|frame| Ok(frame.map_data(|data| Sending { data, over: Over::Http1 }))));
        }
        // h2 may send more than it has
        if let Some(end) = this.end {
            end.set_sending(false);
        }
        let Some(frame) = ready!(body.as_mut().poll_frame(cx)?) else { return Poll::Ready(None) };
        let over = match this.end.take() {
            Some(mut end) => {
                end.set_sending(true);
                if frame.is_data() && body.is_end_stream() {
                    end.conn.unsent(end.slot);
                    Over::Last(end)
                } else {
                    let conn = Arc::clone(&end.conn);
                    *this.end = Some(end);
                    Over::Http2(conn)
                }
            }
            None => Over::Http1,
        };
        Poll::Ready(Some(Ok(frame.map_data(|data| Sending { data, over }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of a reply.
pub(super) struct Sending<D> {
    data: D,
    over: Over,
}

/// Who is told when a piece is sent.
enum Over {
    Http1,
    Http2(Arc<Conn>),
    /// The last one ends the reply when it has been sent, or nobody will have it.
    Last(ReplyEnd),
}

impl<D: Buf> Buf for Sending<D> {
    #[inline]
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    #[inline]
    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(to)
    }

    #[inline]
    fn advance(&mut self, by: usize) {
        self.data.advance(by);
        match &self.over {
            Over::Http1 => {}
            Over::Http2(conn) | Over::Last(ReplyEnd { conn, .. }) => conn.progress.moved(),
        }
    }

    #[inline]
    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}

/// Dropped: the request is over.
struct ReplyEnd {
    conn: Arc<Conn>,
    slot: usize,
    /// h2 has a piece of it, and has not asked for the next.
    sending: bool,
}

impl ReplyEnd {
    fn set_sending(&mut self, sending: bool) {
        if self.sending != sending {
            self.sending = sending;
            self.conn.progress.set_sending(sending);
        }
    }
}

impl Drop for ReplyEnd {
    fn drop(&mut self) {
        self.set_sending(false);
        self.conn.ended(self.slot);
    }
}
