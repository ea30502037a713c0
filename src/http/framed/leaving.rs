//! The way of a connection to the next generation, between two requests.

use super::Framed;
use crate::drain::moving::Leaving;
use crate::error::Error;
use crate::http::framing::Framing;
use crate::http::scan;
use crate::http::stage::Stage;
use crate::http::transport::Transport;
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
        let contents = Contents { unread: [hyper, &self.held].concat(), ..Contents::default() };
        let record = Record {
            listener: conn.listener().to_string(),
            protocol: HTTP1.into(),
            known: known || self.known,
            requests: conn.requests(),
            open_ms: millis(conn.opened().elapsed()),
            quiet_ms: millis(quiet),
            half: conn.stage() == Stage::Half,
            copied: self.copied,
            moves: conn.before().moves + 1,
            ..Record::default()
        };
        let fd = self.stream.detach().map_err(|e| Error::os("its socket cannot be duplicated", e));
        let parcel = match fd.and_then(|fd| Parcel::new(record, fd, contents).map_err(|(error, ..)| error)) {
            Ok(parcel) => parcel,
            Err(error) => return Err(Box::new(self.stays(hyper, known, &error))),
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
