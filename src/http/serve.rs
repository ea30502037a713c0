//! Serving with a tower service, or with one of hyper's own.

use super::conn::Conn;
use super::framed::Framed;
use super::options::HttpOptions;
use super::task::{self, BoxError};
use crate::drain::{Accepted, Acceptor, Drain, Limit};
use crate::error::{Error, Kind, Result};
use crate::service::Service;
use crate::systemd::activation::Listener;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;

impl Service {
    /// Serves HTTP on all listeners of that name with any tower service, an axum `Router` included.
    ///
    /// Accepting starts when the service is ready. Connections are counted and drained.
    ///
    /// # Errors
    /// It fails as [`listeners`](Self::listeners) does; and outside of a tokio runtime.
    pub fn serve_http<S, B>(&self, name: &str, service: S) -> Result<()>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.serve_http_with(name, service, HttpOptions::default())
    }

    /// Serves HTTP as [`serve_http`](Self::serve_http) does, with settings.
    ///
    /// # Errors
    /// It fails as [`serve_http`](Self::serve_http) does; and with a setting that cannot work.
    pub fn serve_http_with<S, B>(&self, name: &str, service: S, options: HttpOptions) -> Result<()>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        serve(self.drain(), name, self.listeners(name)?, service, options)
    }

    /// Serves HTTP as [`serve_http`](Self::serve_http) does, with hyper's own kind of service.
    ///
    /// # Errors
    /// It fails as [`serve_http`](Self::serve_http) does.
    pub fn serve_hyper<S, B>(&self, name: &str, service: S) -> Result<()>
    where
        S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        serve_hyper(self.drain(), name, self.listeners(name)?, service, HttpOptions::default())
    }
}

/// Serves HTTP on these listeners, with nothing but a [`Drain`]: for programs that do their own
/// activation and notification. `name` is for log lines.
///
/// Returns at once; accepting starts when the drain's gate [opens](Drain::accept).
///
/// ```
/// # async fn example() -> handover::Result<()> {
/// use axum::{Router, routing::get};
/// use handover::http::{self, HttpOptions};
/// use handover::{Drain, systemd::activation};
/// use std::time::Duration;
///
/// let drain = Drain::new();
/// let router = Router::new().route("/", get(|| async { "hello" }));
/// http::serve(&drain, "http", activation::bind("127.0.0.1:0")?, router, HttpOptions::new())?;
/// drain.accept(true);
/// // ... and in the end
/// drain.begin(Duration::from_secs(5));
/// if tokio::time::timeout(Duration::from_secs(30), drain.drained()).await.is_err() {
///     for cut in drain.hammer() {
///         eprintln!("cut: {cut}");
///     }
/// }
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// # Errors
/// Outside of a tokio runtime, a setting that cannot work, or a broken listener.
pub fn serve<S, B>(drain: &Drain, name: &str, listeners: Vec<Listener>, service: S, options: HttpOptions) -> Result<()>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    serve_hyper(drain, name, listeners, TowerToHyperService::new(service), options)
}

/// Serves HTTP as [`serve`] does, with hyper's own kind of service.
///
/// # Errors
/// It fails as [`serve`] does.
pub fn serve_hyper<S, B>(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    service: S,
    options: HttpOptions,
) -> Result<()>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (runtime, acceptors) = prepare(drain, name, listeners, &options)?;
    let drain = drain.clone();
    accept(&runtime, acceptors, move |Accepted { stream, peer, entering }, name| {
        let conn = Arc::new(Conn::new(drain.clone(), name, peer, options.keep_alive));
        let guard = entering.track(Arc::clone(&conn) as _);
        let framed = Framed::new(stream, Arc::clone(&conn), guard);
        task::connection(framed, conn, service.clone(), options)
    });
    Ok(())
}

/// Accepts connections, and serves each in a task of its own.
pub(super) fn accept<F>(
    runtime: &tokio::runtime::Handle,
    acceptors: Vec<Acceptor>,
    serve: impl Fn(Accepted, Arc<str>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    for mut acceptor in acceptors {
        let serve = serve.clone();
        runtime.spawn(async move {
            while let Some(accepted) = acceptor.accept().await {
                tokio::spawn(serve(accepted, Arc::clone(acceptor.name())));
            }
        });
    }
}

pub(super) fn prepare(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    options: &HttpOptions,
) -> Result<(tokio::runtime::Handle, Vec<Acceptor>)> {
    options.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(Kind::State, format!("cannot serve {name:?} outside of a tokio runtime: call it within one"))
    })?;
    let limit = options.max_connections.map(Limit::new);
    let acceptor = |listener| {
        let acceptor = Acceptor::new(drain, name, listener)?.nodelay(options.tcp_nodelay);
        Ok(if let Some(limit) = &limit { acceptor.limit(limit) } else { acceptor })
    };
    Ok((runtime, listeners.into_iter().map(acceptor).collect::<Result<_>>()?))
}
