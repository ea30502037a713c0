//! What is known of the body of HTTP/1's current request.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// How many bytes of body follow a head.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Exact(u64),
    Chunked,
}

/// What hyper has not had of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Rest {
    None,
    /// All of it is here; one more read takes it.
    Held,
    /// More than hyper reads of a body that nobody wants.
    Coming,
}

const RESTS: [Rest; 3] = [Rest::None, Rest::Held, Rest::Coming];

/// The length of the body, and how much of it is still to come. At first there is none.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    length: AtomicU64,
    rest: AtomicU8,
}

impl RequestBody {
    /// Notes the length of the body of the request that the service is called with.
    #[inline]
    pub(super) fn begin(&self, exact: Option<u64>) {
        let length = exact.unwrap_or(u64::MAX);
        self.length.store(length, Relaxed);
        self.set_rest(if length == 0 { Rest::None } else { Rest::Coming });
    }

    /// Returns the length of the body of the request that the service was called with last.
    #[inline]
    pub(super) fn length(&self) -> Length {
        match self.length.load(Relaxed) {
            u64::MAX => Length::Chunked,
            exact => Length::Exact(exact),
        }
    }

    /// Notes what is left of the body.
    #[inline]
    pub(super) fn set_rest(&self, rest: Rest) {
        self.rest.store(rest as u8, Relaxed);
    }

    #[inline]
    pub(super) fn rest(&self) -> Rest {
        RESTS[usize::from(self.rest.load(Relaxed))]
    }
}
