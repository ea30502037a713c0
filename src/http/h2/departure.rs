//! How an HTTP/2 connection gets ready to leave.

use super::tap::{Tap, Tapped};
use crate::http::conn::Conn;
use crate::http::transport::Transport;
use crate::transit::Permit;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a client may take to acknowledge that its table has to be empty. It is served meanwhile
/// as ever.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// First the client is asked to empty its table. In its turn its new streams are held, and it goes
/// when none is open.
pub(super) struct Departure {
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Departure {
    /// Holds streams back for so long at most.
    pub(super) fn new(within: Duration) -> Self {
        Self { within, timer: None }
    }

    /// Goes on with it; returns the permit to go, when it may go at this moment.
    pub(super) fn poll<T: Transport>(&mut self, conn: &Conn, tap: &Tap<T>, cx: &mut Context<'_>) -> Option<Permit> {
        if !conn.is_draining() {
            return None;
        }
        let mut tapped = tap.lock();
        if !conn.moves() {
            if tapped.follower().holds() {
                tapped.stay(); // nobody takes it any more
            }
            return None;
        }
        if !tapped.can_leave() {
            let keeps_table = tapped.follower().keeps_table();
            self.stay(&mut tapped, if keeps_table { "table" } else { "closing" });
            return None;
        }
        if tapped.follower().can_be_asked() {
            if tapped.ask(cx).is_err() {
                return None; // the server is told so by its next read
            }
            self.arm(ASK_TIMEOUT);
        } else if tapped.follower().may_hold() {
            if tapped.is_quiet() {
                return conn.drain.permit();
            }
            if conn.has_tunnels() && !tapped.follower().is_idle() {
                self.stay(&mut tapped, "streams");
                return None;
            }
            if conn.drain.turn_to_leave() {
                tapped.hold();
                self.arm(self.within);
            }
        } else if tapped.follower().holds() && tapped.is_quiet() {
            return conn.drain.place();
        }
        let waits = tapped.follower().is_asked() || tapped.follower().holds();
        let late = waits && self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if late {
            let holds = tapped.follower().holds();
            self.stay(&mut tapped, if holds { "streams" } else { "silent" });
        }
        None
    }

    fn arm(&mut self, time: Duration) {
        self.timer = Some(Box::pin(sleep(time)));
    }

    /// It drains here.
    fn stay<T: Transport>(&mut self, tapped: &mut Tapped<T>, reason: &'static str) {
        self.timer = None;
        tapped.stay();
        if let Some(framed) = tapped.framed() {
            framed.stays(reason);
        }
    }
}
