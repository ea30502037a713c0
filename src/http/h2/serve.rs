//! Serving HTTP/2, here and where it has come from another process.

use super::departure::Departure;
use super::tap::Tap;
use super::{FRAME_SIZE, WINDOW};
use crate::error::BoxError;
use crate::http::conn::Conn;
use crate::http::executor::Streams;
use crate::http::framed::Framed;
use crate::http::observe::Observed;
use crate::http::task::{Clock, drive};
use crate::http::transport::Transport;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// A service that hyper has, which does not return it, and that is still there when hyper is done.
struct Lent<S>(Arc<Mutex<S>>);

impl<S: Service<R>, R> Service<R> for Lent<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: R) -> S::Future {
        // nobody else calls it
        self.0.lock().unwrap_or_else(PoisonError::into_inner).call(request)
    }
}

pub(in crate::http) async fn http2<T, S, B>(
    mut framed: Framed<T>,
    service: Observed<S>,
    conn: &Conn,
    clock: &mut Clock<'_>,
) -> Result<(), BoxError>
where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut carried = framed.take_http2();
    let service = Arc::new(Mutex::new(service));
    loop {
        let streams = Streams::default();
        let options = clock.options();
        let mut builder = http2::Builder::new(streams.executor());
        builder
            .timer(TokioTimer::new())
            .enable_connect_protocol() // WebSockets over HTTP/2
            .max_concurrent_streams(options.http2_max_concurrent_streams)
            .keep_alive_interval(options.http2_keep_alive_interval)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME_SIZE);
        let tap = match carried.take() {
            None => Tap::new(framed, None, conn.may_move()),
            Some(from) => {
                let (state, unread) = *from;
                let (window, stream_window, frame_size) = state.least();
                builder
                    .initial_stream_window_size(stream_window)
                    .initial_connection_window_size(window)
                    .max_frame_size(frame_size);
                Tap::new(framed, Some((state, &unread)), conn.may_move())
            }
        };
        let mut departure = Departure::new(options.http2_move_within);
        let mut leaves = None;
        {
            let lent = Lent(Arc::clone(&service));
            let mut hyper = pin!(builder.serve_connection(TokioIo::new(tap.clone()), lent));
            let mut told = false;
            let driven = poll_fn(|cx| {
                drive(conn, clock, cx, |cx| {
                    let result = streams.poll(|| hyper.as_mut().poll(cx));
                    if result.is_ready() {
                        return result;
                    }
                    leaves = departure.poll(conn, &tap, cx);
                    if leaves.is_some() {
                        return Poll::Ready(Ok(()));
                    }
                    // a fresh one lingers, too: told before its first request it could not send it
                    let due = conn.closes_idle() || (conn.drains() && conn.requests() > 0);
                    if told || !due {
                        return result;
                    }
                    told = true;
                    hyper.as_mut().graceful_shutdown();
                    streams.poll(|| hyper.as_mut().poll(cx))
                })
            });
            driven.await?;
        }
        let Some(permit) = leaves else { return Ok(()) };
        let Some((taken, state, unread)) = tap.lock().take() else { return Ok(()) };
        let record = state.encode()?;
        match taken.leave_http2(record, unread.clone(), clock.quiet(), permit) {
            Ok(()) => return Ok(()),
            Err(stays) => (framed, carried) = (*stays, Some(Box::new((state, unread)))),
        }
    }
}
