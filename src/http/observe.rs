//! The service as hyper sees it: each request is known from its call to the end of its reply.

use super::conn::Conn;
use http::header::{CONNECTION, HeaderValue};
use http::{Extensions, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub(super) struct Observed<S> {
    service: S,
    conn: Arc<Conn>,
    /// What each request gets. Cloned as a whole, which is cheaper than to insert each time.
    extensions: Extensions,
}

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
            end: Some(ReplyEnd { conn: Arc::clone(&self.conn), slot }),
            connect,
            version,
        }
    }
}

pin_project! {
    pub(super) struct Replying<F> {
        #[pin]
        future: F,
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
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(end) = &this.end {
            let status = response.status();
            let upgrade = status == StatusCode::SWITCHING_PROTOCOLS || (*this.connect && status.is_success());
            if end.conn.answered(upgrade) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                if *this.version == Version::HTTP_10 {
                    // else hyper adds `keep-alive` to what we have just said
                    *response.version_mut() = Version::HTTP_10;
                }
            }
        }
        let end = this.end.take();
        Poll::Ready(Ok(response.map(|body| ReplyBody { body, _end: end })))
    }
}

pin_project! {
    /// A reply's body. hyper drops it in any case, read to its end or not, before it flushes.
    pub(super) struct ReplyBody<B> {
        #[pin]
        body: B,
        _end: Option<ReplyEnd>,
    }
}

impl<B: Body> Body for ReplyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Dropped: the request is over.
struct ReplyEnd {
    conn: Arc<Conn>,
    slot: usize,
}

impl Drop for ReplyEnd {
    fn drop(&mut self) {
        self.conn.ended(self.slot);
    }
}
