//! Whether a client keeps its connection waiting, and how far it has got.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What the client makes us wait for in the middle of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// More of its body.
    Body,
    /// That it takes more of the reply.
    Reply,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The socket takes no more of what hyper has to send.
    blocked: AtomicBool,
    /// HTTP/1: hyper waits for more of the body.
    starved: AtomicBool,
    /// HTTP/2: the replies of which a piece is with h2, and nothing is asked of their bodies.
    sending: AtomicUsize,
    /// It goes up whenever the client has sent or taken something that was waited for.
    moves: AtomicU64,
}

impl Progress {
    /// Notes whether the socket takes what hyper has to send.
    #[inline]
    pub(super) fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Relaxed) != blocked {
            self.blocked.store(blocked, Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Notes that the socket has taken something.
    #[inline]
    pub(super) fn wrote(&self) {
        if self.is_blocked() {
            self.moved();
        }
    }

    /// Notes whether hyper waits for more of the body.
    #[inline]
    pub(super) fn set_starved(&self, starved: bool) {
        if self.starved.load(Relaxed) != starved {
            self.starved.store(starved, Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_starved(&self) -> bool {
        self.starved.load(Relaxed)
    }

    /// Notes that the client has sent or taken something that was waited for.
    #[inline]
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Relaxed)
    }

    /// Notes that a reply begins to wait for what h2 has of it to be sent, or no longer does.
    #[inline]
    pub(super) fn set_sending(&self, sending: bool) {
        if sending {
            self.sending.fetch_add(1, Relaxed)
        } else {
            self.sending.fetch_sub(1, Relaxed)
        };
    }

    /// Returns how many replies wait so.
    pub(super) fn sending(&self) -> usize {
        self.sending.load(Relaxed)
    }
}
