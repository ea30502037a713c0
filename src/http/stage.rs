//! How far a connection has got with its current request.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// How far the current request has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// No byte of a request is here, and the last reply has been written.
    Idle,
    /// A part of a head has come.
    Half,
    /// More of HTTP/2's preface has come than a request of HTTP/1 begins with, and not all of it.
    Preface,
    /// All of a head; hyper is parsing it.
    Head,
    /// The service is working on it.
    Called,
    /// The head of the reply is out, its body is not.
    Replying,
    /// hyper has all of the reply, but has not written it yet.
    Replied,
    /// hyper and the scanner disagree on where a message ends: bytes pass untouched.
    Unframed,
    /// It speaks HTTP/2, with any number of requests.
    Http2,
    /// It speaks HTTP no longer; whoever upgraded it owns it.
    Upgraded,
    /// The last reply is out; waiting for the client to close.
    Closing,
}

const STAGES: [Stage; 11] = {
    use Stage::*;
    [Idle, Half, Preface, Head, Called, Replying, Replied, Unframed, Http2, Upgraded, Closing]
};

/// The stage that a connection is in; at first it is idle.
#[derive(Debug)]
pub(super) struct AtomicStage(AtomicU8);

impl AtomicStage {
    #[inline]
    pub(super) fn load(&self) -> Stage {
        STAGES[usize::from(self.0.load(Relaxed))]
    }

    #[inline]
    pub(super) fn store(&self, stage: Stage) {
        self.0.store(stage as u8, Relaxed);
    }
}

impl Default for AtomicStage {
    fn default() -> Self {
        Self(AtomicU8::new(Stage::Idle as u8))
    }
}
