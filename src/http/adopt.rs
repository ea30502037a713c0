//! Connections that come from another generation.

use super::conn::{Before, Conn};
use super::framed::Framed;
use super::h2::Http2State;
use super::options::HttpOptions;
use super::task;
use super::transport::Transport;
use super::upgraded::Upgrade;
use crate::drain::moving::{Adopter, Adoption, Arrived};
use crate::drain::{Drain, Inherited, Limit, LimitSlot, Stream};
use crate::error::BoxError;
use crate::sys::secret::Secret;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::transit::marks::State;
use crate::wire::parcel::{HTTP1, HTTP2, Record, UPGRADED};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Serves the connections of one listener as those that it accepts.
pub(super) struct HttpAdopter<S> {
    pub(super) name: Arc<str>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) drain: Drain,
    pub(super) options: Arc<HttpOptions>,
    pub(super) limit: Option<Limit>,
    /// What it speaks HTTP over, if not over the socket itself.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    /// A service can be cloned, and need not be shared.
    pub(super) service: Mutex<S>,
}

impl<S, B> Adopter for HttpAdopter<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn prepare(&self, arrival: Arrived) -> Result<Adoption, &'static str> {
        let (_, over_tls) = arrival.record.speaks();
        #[cfg(feature = "tls")]
        match (&self.tls, over_tls) {
            // whom it has let in it does not ask again
            (Some(tls), true) if arrival.was.is_some() => {
                return self.prepare_over(arrival, |stream, state| tls.take_back(stream, state));
            }
            (Some(tls), true) => return self.prepare_over(arrival, |stream, state| tls.adopt(stream, state)),
            (Some(_), false) => return Err("protocol"),
            (None, _) => {}
        }
        if over_tls { Err("protocol") } else { self.prepare_over(arrival, |stream, _| Ok(stream)) }
    }

    fn slot(&self, record: &Record) -> Result<Option<LimitSlot>, &'static str> {
        let (protocol, _) = record.speaks();
        if ![HTTP1, HTTP2, UPGRADED].contains(&protocol) {
            return Err("protocol");
        }
        Limit::slot_of(self.limit.as_ref())
    }

    #[cfg(feature = "tls")]
    fn has_keys(&self) -> bool {
        self.tls.is_some()
    }
}

impl<S, B> HttpAdopter<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Prepares it over what is made of its socket and the state of its TLS.
    fn prepare_over<T: Transport>(
        &self,
        arrival: Arrived,
        carry: impl FnOnce(Stream, &Secret) -> Result<T, &'static str>,
    ) -> Result<Adoption, &'static str> {
        let Arrived { record, fd, contents, was, slot, again, waited } = arrival;
        let (protocol, _) = record.speaks();
        let (upgraded, http2) = (protocol == UPGRADED, protocol == HTTP2);
        if upgraded && contents.head.is_empty() {
            return Err("damaged");
        }
        let state = http2.then(|| Http2State::decode(&contents.state).ok_or("damaged")).transpose()?;
        // Whoever asks may be in another runtime.
        let in_runtime = self.runtime.enter();
        let (stream, peer) = Stream::adopted(fd).map_err(|_| "socket")?;
        let mark = match contents.unread.is_empty() {
            _ if !waited => State::Withheld,
            true => State::Between,
            false => State::Middle,
        };
        let open = Duration::from_millis(record.open_ms);
        let policy = match protocol == HTTP1 && !T::TLS {
            true => self.drain.insure(stream.as_fd(), &self.name, open, mark),
            false => None,
        };
        let stream = carry(stream, &contents.tls)?;
        drop(in_runtime);
        // One that nobody took does not try again.
        let is_new = was.is_none();
        let may_move = is_new || again;
        let before = Before {
            // the one that upgraded it comes once more
            requests: record.requests.saturating_sub(u64::from(upgraded)),
            open,
            // One that comes back lingers from now on; its client has had no chance yet.
            quiet: if may_move || record.half { Duration::from_millis(record.quiet_ms) } else { Duration::ZERO },
            half: record.half,
            http2,
            moves: record.moves,
        };
        let (drain, name) = (self.drain.clone(), Arc::clone(&self.name));
        let conn = Arc::new(Conn::adopted(drain, name, peer, self.options.keep_alive, (may_move, is_new), before));
        let guard = self.drain.track(Arc::clone(&conn) as _);
        let guard = match was {
            Some(was) => was.continues_as(guard),
            None => guard.holding(slot),
        };
        let framed = if upgraded {
            conn.replay(Upgrade::replayed(contents.head.clone(), Inherited::new(&contents.state, &[])));
            Framed::replayed(stream, Arc::clone(&conn), guard, &contents.head, &contents.unread)
        } else if let Some(state) = state {
            Framed::adopted_http2(stream, Arc::clone(&conn), guard, state, &contents.unread)
        } else {
            Framed::adopted(stream, Arc::clone(&conn), guard, record.known, &contents.unread)
        };
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (options, runtime) = (Arc::clone(&self.options), self.runtime.clone());
        Ok(Box::new(move || {
            // Not before: what is not served here after all must not be ended.
            let framed = framed.insured(policy, record.copied);
            runtime.spawn(task::connection(framed, conn, service, options));
        }))
    }
}
