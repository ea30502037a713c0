//! `handover run --metrics`: what the status says, for Prometheus, over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use handover::service::Handle;
use handover::supervise::goes_on;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::believed;
use crate::failure::Failure;
use crate::prometheus::{self, Service};

/// From the connection to the end of the answer: one connection is for one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a listener that cannot accept just now.
const PAUSE: Duration = Duration::from_millis(100);
/// Of an address that cannot be bound just now.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Who asks beyond that waits.
const MOST_CLIENTS: usize = 16;

/// A socket that is bound, or is going to be.
#[derive(Debug)]
pub(super) struct Metrics {
    address: SocketAddr,
    listener: Option<TcpListener>,
    service: Arc<Service>,
}

impl Metrics {
    /// What cannot be bound is a mistake of the command line; but not where a supervisor goes on as
    /// another version of itself, whose program must not end because of that.
    pub(super) async fn bind(address: SocketAddr, program: &Path) -> Result<Self, Failure> {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => Some(listener),
            Err(_) if goes_on() => None,
            Err(e) => return Err(Failure::cannot_run(format!("--metrics {address} cannot be bound: {e}"))),
        };
        let unit = believed::unit_of("self").ok().and_then(|(unit, _)| unit);
        let program = || program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { address, listener, service: Arc::new(Service { unit: unit.unwrap_or_else(program) }) })
    }

    /// Answers, for as long as it is asked to.
    pub(super) async fn serve(self, handle: Handle) {
        let places = Arc::new(Semaphore::new(MOST_CLIENTS));
        let listener = match self.listener {
            Some(listener) => listener,
            None => bound(self.address).await,
        };
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    warn!("--metrics: no connection can be accepted: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (handle, service) = (handle.clone(), Arc::clone(&self.service));
            tokio::spawn(async move {
                // Whoever went away needs no answer.
                let _ = tokio::time::timeout(ANSWER_TIMEOUT, converse(stream, &handle, &service)).await;
                drop(place);
            });
        }
    }
}

/// As soon as that can be.
async fn bound(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(e) if !told => {
                warn!("--metrics {address} cannot be bound, and is tried again: {e}");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

async fn converse(stream: TcpStream, handle: &Handle, service: &Arc<Service>) -> hyper::Result<()> {
    let answer = |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), handle, service).await)
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ANSWER_TIMEOUT).keep_alive(false);
    http.serve_connection(TokioIo::new(stream), service_fn(answer)).await
}

async fn answer(method: &Method, path: &str, handle: &Handle, service: &Arc<Service>) -> Response<String> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, text(handle, service).await),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    if status == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::CONTENT_TYPE));
    }
    response
}

async fn text(handle: &Handle, service: &Arc<Service>) -> String {
    let status = handle.status().await.ok().and_then(|status| serde_json::to_value(status).ok());
    let service = Arc::clone(service);
    // It reads the program.
    let rendered = tokio::task::spawn_blocking(move || service.render(status.as_ref().filter(|s| **s != Value::Null)));
    rendered.await.unwrap_or_default()
}
