//! HTTP over TLS: the handshake first, then the same as without.

use super::adopt::HttpAdopter;
use super::conn::Conn;
use super::framed::Framed;
use super::options::HttpOptions;
use super::serve::{Prepared, accept, prepare};
use super::service::HttpService;
use super::task;
use super::transport::{Detached, HttpVersion, Transport};
use crate::drain::Drain;
use crate::error::Result;
use crate::service::Service;
use crate::sys::look::Look;
use crate::systemd::activation::Listener;
use crate::tls::{Tls, TlsInfo, TlsStream};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

impl Service {
    /// Serves HTTPS on all listeners of that name with any tower service, an axum `Router`
    /// included: HTTP/2 and HTTP/1 as the client wants it (ALPN).
    ///
    /// As [`serve_http`](Self::serve_http), and session tickets are [shared](Tls::share_tickets)
    /// with the generations to come, unless clients are
    /// [verified](crate::tls::TlsOptions::client_verifier): each generation does that for itself.
    /// Handlers find [`TlsInfo`] in the request's [`ConnectionInfo`](super::ConnectionInfo::tls).
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use handover::tls::Tls;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().listen("https", "127.0.0.1:8443").start()?;
    /// let tls = Tls::from_files("/etc/ssl/example/fullchain.pem", "/etc/ssl/example/privkey.pem")?;
    /// service.serve_https("https", &tls, Router::new().route("/", get(|| async { "hello\n" })))?;
    /// service.run().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// It fails as [`serve_http`](Self::serve_http) does.
    pub fn serve_https(&self, name: &str, tls: &Tls, service: impl HttpService) -> Result<()> {
        self.serve_https_with(name, tls, HttpOptions::default(), service)
    }

    /// Serves HTTPS as [`serve_https`](Self::serve_https) does, with settings.
    ///
    /// # Errors
    /// It fails as [`serve_https`](Self::serve_https) does; and with a setting that cannot work.
    pub fn serve_https_with(
        &self,
        name: &str,
        tls: &Tls,
        options: HttpOptions,
        service: impl HttpService,
    ) -> Result<()> {
        let listeners = self.listeners(name)?;
        if tls.may_share_tickets()
            && let Err(error) = tls.share_tickets(self.states())
        {
            // worth a full handshake to each client, and no more
            tracing::warn!(%error, "the keys of session tickets are not shared with other generations yet");
        }
        serve_tls(self.drain(), name, listeners, tls, options, service)
    }
}

/// Serves HTTP over TLS, as [`serve`](super::serve) does without. Its session tickets are shared
/// only by [`share_tickets`](Tls::share_tickets).
///
/// # Errors
/// It fails as [`serve`](super::serve) does.
pub fn serve_tls(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    tls: &Tls,
    options: HttpOptions,
    service: impl HttpService,
) -> Result<()> {
    let Prepared { runtime, acceptors, limit } = prepare(drain, name, listeners, &options)?;
    tls.serves_for(drain);
    let (drain, tls, options, service) = (drain.clone(), tls.clone(), Arc::new(options), service.into_hyper());
    if options.migrate {
        let adopter = HttpAdopter {
            name: name.into(),
            runtime: runtime.clone(),
            drain: drain.clone(),
            options: Arc::clone(&options),
            limit,
            tls: Some(tls.clone()),
            service: Mutex::new(service.clone()),
        };
        drain.adopt_with(name, Arc::new(adopter));
    }
    accept(&runtime, acceptors, move |accepted, name| {
        let (drain, tls, options, service) = (drain.clone(), tls.clone(), Arc::clone(&options), service.clone());
        async move {
            let peer = accepted.peer();
            let what = format!("{name}: {peer}");
            let entered = if options.migrate {
                tls.enter_to_move(accepted, &what, tls.http_config()).await
            } else {
                tls.enter(accepted, &what, tls.http_config()).await
            };
            match entered {
                Ok((stream, handshake)) => {
                    let may_move =
                        options.may_move().and_then(|()| if stream.can_move() { Ok(()) } else { Err("tls") });
                    // fresh from now on
                    let conn = Arc::new(Conn::new(drain.clone(), name, peer, options.keep_alive, may_move));
                    let guard = handshake.continues_as(drain.track(Arc::clone(&conn) as _));
                    let framed = Framed::new(stream, Arc::clone(&conn), guard);
                    task::connection(framed, conn, service, options).await;
                }
                Err(error) => tracing::debug!(listener = &*name, %peer, %error, "no connection"),
            }
        }
    });
    Ok(())
}

impl Transport for TlsStream {
    const TLS: bool = true;
    const ANSWERS_CLOSE: bool = true;

    fn detach(&mut self) -> io::Result<Detached> {
        let fd = self.as_fd().try_clone_to_owned()?;
        Ok(Detached { fd, tls: self.leave()? })
    }

    fn look(&mut self) -> Look {
        TlsStream::look(self)
    }

    fn is_partial(&self) -> bool {
        TlsStream::is_partial(self)
    }

    fn protocol(&self) -> Option<HttpVersion> {
        match self.info().protocol() {
            Some(b"h2") => Some(HttpVersion::Http2),
            Some(b"http/1.1" | b"http/1.0") => Some(HttpVersion::Http1),
            _ => None,
        }
    }

    fn last_word(&mut self) {
        TlsStream::last_word(self);
    }

    fn tls(&self) -> Option<TlsInfo> {
        Some(self.info().clone())
    }
}
