//! Serving with a tower service, or with one of hyper's own.

use super::adopt::HttpAdopter;
use super::conn::Conn;
use super::framed::Framed;
use super::options::HttpOptions;
use super::service::HttpService;
use super::task;
use crate::drain::{Accepted, Acceptor, Drain, Limit};
use crate::error::{Error, Kind, Result};
use crate::service::Service;
use crate::systemd::activation::Listener;
use crate::transit::marks::State;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

impl Service {
    /// Serves HTTP on all listeners of that name with any tower service, an axum `Router` included.
    ///
    /// Accepting starts when the service is ready. Connections are counted and drained.
    ///
    /// ```no_run
    /// # fn example(service: &handover::Service) -> handover::Result<()> {
    /// use axum::{Router, routing::get};
    ///
    /// service.serve_http("http", Router::new().route("/", get(|| async { "hello\n" })))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It fails as [`listeners`](Self::listeners) does; and outside of a tokio runtime.
    pub fn serve_http(&self, name: &str, service: impl HttpService) -> Result<()> {
        self.serve_http_with(name, HttpOptions::default(), service)
    }

    /// Serves HTTP as [`serve_http`](Self::serve_http) does, with settings.
    ///
    /// # Errors
    /// It fails as [`serve_http`](Self::serve_http) does; and with a setting that cannot work.
    pub fn serve_http_with(&self, name: &str, options: HttpOptions, service: impl HttpService) -> Result<()> {
        serve(self.drain(), name, self.listeners(name)?, options, service)
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
/// use handover::drain::Drain;
/// use handover::http::{self, HttpOptions};
/// use handover::systemd::activation;
/// use std::time::Duration;
///
/// let drain = Drain::new();
/// let router = Router::new().route("/", get(|| async { "hello" }));
/// http::serve(&drain, "http", activation::bind("127.0.0.1:0")?, HttpOptions::new(), router)?;
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
/// Outside of a tokio runtime, and with a setting that cannot work.
pub fn serve(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    options: HttpOptions,
    service: impl HttpService,
) -> Result<()> {
    let Prepared { runtime, acceptors, limit } = prepare(drain, name, listeners, &options)?;
    let (drain, options, service) = (drain.clone(), Arc::new(options), service.into_hyper());
    if options.migrate {
        let (drain, options, service) = (drain.clone(), Arc::clone(&options), Mutex::new(service.clone()));
        let adopter = HttpAdopter {
            name: name.into(),
            runtime: runtime.clone(),
            drain,
            options,
            limit,
            #[cfg(feature = "tls")]
            tls: None,
            service,
        };
        adopter.drain.clone().adopt_with(name, Arc::new(adopter));
    }
    accept(&runtime, acceptors, move |Accepted { stream, peer, entering }, name| {
        let policy =
            if options.migrate { drain.insure(stream.as_fd(), &name, Duration::ZERO, State::Between) } else { None };
        let conn =
            Arc::new(Conn::new(drain.clone(), name, peer, options.keep_alive, options.may_move()).aside(options.aside));
        let guard = entering.track(Arc::clone(&conn) as _);
        let framed = Framed::new(stream, Arc::clone(&conn), guard).insured(policy, false);
        task::connection(framed, conn, service.clone(), Arc::clone(&options))
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

/// What serving needs.
pub(super) struct Prepared {
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) limit: Option<Limit>,
}

pub(super) fn prepare(drain: &Drain, name: &str, listeners: Vec<Listener>, options: &HttpOptions) -> Result<Prepared> {
    options.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(Kind::State, format!("cannot serve {name:?} outside of a tokio runtime: call it within one"))
    })?;
    let limit = options.max_connections.map(Limit::new);
    let acceptor = |listener| {
        let acceptor = Acceptor::new(drain, name, listener).nodelay(options.tcp_nodelay);
        #[cfg(feature = "admin")]
        let acceptor = if options.aside { acceptor.aside() } else { acceptor };
        if let Some(limit) = &limit { acceptor.limit(limit) } else { acceptor }
    };
    let acceptors = listeners.into_iter().map(acceptor).collect();
    Ok(Prepared { runtime, acceptors, limit })
}
