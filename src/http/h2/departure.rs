//! How an HTTP/2 connection gets ready to leave.

use super::tap::{Tap, Tapped};
use crate::http::conn::Conn;
use crate::http::transport::Transport;
use crate::transit::Permit;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// So many times as long as its bound streams are held in all, while others end one by one. Where
/// the processors have too much to do, each reply takes long; one long stream among them does not
/// make new ones wait for longer.
const MOST_BOUNDS: u32 = 4;

/// So often its streams are held, if those that were in the way have ended meanwhile.
const MOST_TURNS: u32 = 3;

/// What can be added to any time.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// In its turn its new streams are held, and it goes when none is open.
pub(super) struct Departure {
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
    turns: u32,
    /// The latest of the streams that did not end in time: when all up to it have ended, there is
    /// another turn.
    waits_for: Option<u32>,
}

/// Since its new streams are held.
struct Held {
    until: Instant,
    /// Of those in flight.
    open: usize,
}

impl Departure {
    /// Holds streams back for so long at most, since one of those in flight has ended.
    pub(super) fn new(within: Duration) -> Self {
        Self { within, timer: None, held: None, turns: 0, waits_for: None }
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
            let lost = tapped.follower().has_lost_table();
            self.stay(&mut tapped, if lost { "table" } else { "closing" });
            return None;
        }
        if tapped.follower().holds() {
            if tapped.is_quiet() {
                return conn.drain.place();
            }
            self.go_on(tapped.follower().open());
        } else if tapped.follower().is_settled() {
            if tapped.is_quiet() {
                return conn.drain.permit();
            }
            if conn.has_tunnels() && !tapped.follower().is_idle() {
                self.stay(&mut tapped, "streams");
                return None;
            }
            self.waits_for = self.waits_for.filter(|id| tapped.follower().has_open_up_to(*id));
            if self.waits_for.is_none() && conn.drain.turn_to_leave() {
                tapped.hold();
                self.turns += 1;
                self.held = Some(Held { until: Instant::now() + self.longest(), open: tapped.follower().open() });
                self.arm(self.within);
            }
        }
        let waits = tapped.follower().holds() || self.waits_for.is_some();
        let late = waits && self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if late {
            self.late(&mut tapped, cx);
        }
        None
    }

    /// Gives up, or serves its streams and waits for another turn.
    fn late<T: Transport>(&mut self, tapped: &mut Tapped<T>, cx: &mut Context<'_>) {
        if tapped.follower().holds() && self.turns < MOST_TURNS && !self.within.is_zero() {
            tapped.release();
            self.waits_for = tapped.follower().latest_open();
            self.arm(self.longest());
            cx.waker().wake_by_ref(); // so that the timer is asked
        } else {
            let silent = tapped.follower().is_idle() && tapped.follower().awaits_acknowledgement();
            self.stay(tapped, if silent { "silent" } else { "streams" });
        }
    }

    fn longest(&self) -> Duration {
        self.within.saturating_mul(MOST_BOUNDS).min(LONGEST)
    }

    /// Notes how many streams are in flight.
    fn go_on(&mut self, open: usize) {
        if let Some(held) = &mut self.held
            && open < held.open
        {
            held.open = open;
            let left = held.until.saturating_duration_since(Instant::now());
            self.arm(self.within.min(left));
        }
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
