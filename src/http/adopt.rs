//! Connections that come from another generation.

use super::conn::{Before, Conn};
use super::framed::Framed;
use super::options::HttpOptions;
use super::task;
use super::upgraded::Upgrade;
use crate::drain::moving::{Adopter, Adoption, Arrived};
use crate::drain::{Drain, Inherited, Limit, Stream};
use crate::error::BoxError;
use crate::transit::marks::State;
use crate::wire::parcel::{HTTP1, UPGRADED};
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
        let Arrived { record, fd, contents, was, again, waited } = arrival;
        let upgraded = record.protocol == UPGRADED;
        if record.protocol != HTTP1 && !upgraded {
            return Err("protocol");
        }
        if upgraded && contents.head.is_empty() {
            return Err("damaged");
        }
        let slot = match &self.limit {
            Some(limit) if was.is_none() => Some(limit.take().ok_or("full")?),
            _ => None,
        };
        // Whoever asks may be in another runtime.
        let in_runtime = self.runtime.enter();
        let (stream, peer) = Stream::adopted(fd).map_err(|_| "socket")?;
        drop(in_runtime);
        // One that nobody took does not try again.
        let is_new = was.is_none();
        let may_move = is_new || again;
        let before = Before {
            // the one that upgraded it comes once more
            requests: record.requests.saturating_sub(u64::from(upgraded)),
            open: Duration::from_millis(record.open_ms),
            // One that comes back lingers from now on; its client has had no chance yet.
            quiet: if may_move || record.half { Duration::from_millis(record.quiet_ms) } else { Duration::ZERO },
            half: record.half,
            moves: record.moves,
        };
        let state = match contents.unread.is_empty() {
            _ if !waited => State::Withheld,
            true => State::Between,
            false => State::Middle,
        };
        let policy = if upgraded { None } else { self.drain.insure(stream.as_fd(), &self.name, before.open, state) };
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
