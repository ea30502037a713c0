//! The way of a connection to the next generation, between two requests.

use super::Framed;
use crate::drain::moving::Leaving;
use crate::error::Error;
use crate::http::framing::Framing;
use crate::http::scan;
use crate::http::stage::Stage;
use crate::http::transport::{Detached, Transport};
use crate::transit::{Contents, Parcel, Permit};
use crate::wire::parcel::{HTTP1, HTTP2, Record, millis};
use std::sync::Arc;
use std::time::Duration;

impl<T: Transport> Framed<T> {
    /// Sends it to the next generation, with what hyper has read of a head, and what is held back.
    ///
    /// # Errors
    /// There is no fd for it, and it is to be served on.
    pub(in crate::http) fn leave(
        self,
        hyper: &[u8],
        known: bool,
        quiet: Duration,
        permit: Permit,
    ) -> Result<(), Box<Self>> {
        let before = known || self.known;
        let contents = Contents { unread: [hyper, &self.held].concat(), ..Contents::default() };
        self.depart(HTTP1, before, contents, quiet, permit).map_err(|mut framed| {
            framed.goes_on(hyper, known);
            framed
        })
    }

    /// Sends one of HTTP/2 to the next generation, with what that has to know, and what was not
    /// used.
    ///
    /// # Errors
    /// There is no fd for it, and it is to be served on.
    pub(in crate::http) fn leave_http2(
        self,
        state: Vec<u8>,
        unread: Vec<u8>,
        quiet: Duration,
        permit: Permit,
    ) -> Result<(), Box<Self>> {
        let contents = Contents { state, unread, ..Contents::default() };
        self.depart(HTTP2, true, contents, quiet, permit)
    }

    fn depart(
        mut self,
        protocol: &str,
        known: bool,
        contents: Contents,
        quiet: Duration,
        permit: Permit,
    ) -> Result<(), Box<Self>> {
        let conn = Arc::clone(&self.conn);
        let record = Record {
            listener: conn.listener().to_string(),
            protocol: Record::protocol_over(protocol, T::TLS),
            known,
            half: conn.stage() == Stage::Half,
            requests: conn.requests(),
            open_ms: millis(conn.opened().elapsed()),
            quiet_ms: millis(quiet),
            copied: self.copied,
            moves: conn.before().moves + 1,
            ..Record::default()
        };
        let detached = self.stream.detach().map_err(|e| Error::os("its socket cannot be duplicated", e));
        let parcel = detached.and_then(|Detached { fd, tls }| {
            let contents = Contents { tls, ..contents };
            Parcel::new(record, fd, contents).map_err(|returned| returned.0)
        });
        let parcel = match parcel {
            Ok(parcel) => parcel,
            Err(error) => {
                tracing::debug!(peer = %conn.peer, %error, "a connection cannot move");
                self.stays("no_fds");
                return Err(Box::new(self));
            }
        };
        // From here on nobody reads from it, until it is taken.
        self.moved = true;
        let (guard, policy) = (self.guard.take(), self.policy.take());
        drop(self);
        if let Some(guard) = guard {
            conn.drain.give(Leaving { parcel, guard, permit, policy });
        }
        Ok(())
    }

    /// Notes that it drains here, and the reason in one word.
    pub(in crate::http) fn stays(&self, reason: &'static str) {
        self.conn.may_not_move();
        if let Some(guard) = &self.guard {
            self.conn.drain.note_stay(guard, reason);
        }
    }

    /// Goes on here with what hyper has read of a head.
    fn goes_on(&mut self, hyper: &[u8], known: bool) {
        self.held = [hyper, &self.held].concat().as_slice().into();
        self.framing = Framing::Head(scan::Head::default());
        self.known |= known;
        self.conn.set_stage(Stage::Idle);
        self.note_held();
    }
}
