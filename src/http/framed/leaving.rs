//! The way of a connection to the next generation, between two requests.

use super::Framed;
use crate::drain::moving::Leaving;
use crate::error::Error;
use crate::http::framing::Framing;
use crate::http::scan;
use crate::http::stage::Stage;
use crate::http::transport::{Detached, Transport};
use crate::transit::{Contents, Parcel, Permit};
use crate::wire::parcel::{HTTP1, Record, millis};
use std::sync::Arc;
use std::time::Duration;

impl<T: Transport> Framed<T> {
    /// Sends it to the next generation, with what hyper has read of a head, and what is held back.
    ///
    /// # Errors
    /// There is no fd for it, and it is to be served on.
    pub(in crate::http) fn leave(
        mut self,
        hyper: &[u8],
        known: bool,
        quiet: Duration,
        permit: Permit,
    ) -> Result<(), Box<Self>> {
        let conn = Arc::clone(&self.conn);
        let record = Record {
            listener: conn.listener().to_string(),
            protocol: Record::protocol_over(HTTP1, T::TLS),
            known: known || self.known,
            requests: conn.requests(),
            open_ms: millis(conn.opened().elapsed()),
            quiet_ms: millis(quiet),
            half: conn.stage() == Stage::Half,
            moves: conn.before().moves + 1,
            ..Record::default()
        };
        let unread = [hyper, &self.held].concat();
        let detached = self.stream.detach().map_err(|e| Error::os("its socket cannot be duplicated", e));
        let parcel = detached.and_then(|Detached { fd, tls }| {
            let contents = Contents { unread, tls, ..Contents::default() };
            Parcel::new(record, fd, contents).map_err(|returned| returned.0)
        });
        let parcel = match parcel {
            Ok(parcel) => parcel,
            Err(error) => return Err(Box::new(self.stays(hyper, known, &error))),
        };
        // From here on nobody reads from it, until it is taken.
        self.moved = true;
        let guard = self.guard.take();
        drop(self);
        if let Some(guard) = guard {
            conn.drain.give(Leaving { parcel, guard, permit });
        }
        Ok(())
    }

    /// Goes on here with what hyper has read of a head.
    fn stays(mut self, hyper: &[u8], known: bool, error: &Error) -> Self {
        tracing::debug!(peer = %self.conn.peer, %error, "a connection cannot move");
        self.conn.may_not_move();
        if let Some(guard) = &self.guard {
            self.conn.drain.note_stay(guard, "no_fds");
        }
        self.held = [hyper, &self.held].concat().as_slice().into();
        self.framing = Framing::Head(scan::Head::default());
        self.known |= known;
        self.conn.set_stage(Stage::Idle);
        self.note_held();
        self
    }
}
