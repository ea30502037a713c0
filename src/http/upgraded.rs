//! What a WebSocket needs to go on in another process: the request that it began with, and whether
//! it is between two messages.

use crate::drain::Inherited;
use crate::transit::Permit;
use http::header::{HeaderName, UPGRADE};
use http::{Method, Request, Version};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The longest head that is kept. A client with a longer one is served, and does not move.
const MAX_HEAD: usize = 16 * 1024;

/// What its reader does.
#[repr(u8)]
enum Reader {
    /// It has had something since it waited last, and may have an answer to write.
    Busy,
    /// It has used all that it was given, which ends with a message, and waits for more.
    Waiting,
    /// It gets nothing more: the connection goes.
    Held,
}

#[derive(Debug)]
pub(super) struct Upgrade {
    /// The head of the request, as bytes that are read as the same request.
    head: Vec<u8>,
    inherited: Option<Inherited>,
    /// The head is being replayed, and the client does not get the reply.
    replaying: AtomicBool,
    /// It cannot go: its frames are not known, or mean something only here.
    stays: AtomicBool,
    /// The handler has waited for its turn: it knows how to give.
    asked: AtomicBool,
    reader: AtomicU8,
    /// It is the handler's turn as soon as the reader waits.
    wanted: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waker: Option<Waker>,
    leaving: Option<Given>,
}

/// What the handler has given, and what lets it go.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) state: Vec<u8>,
    pub(super) permit: Permit,
}

impl Upgrade {
    /// Keeps the head of a request that asks for a WebSocket.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let asks =
            request.headers().get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if !asks || request.method() != Method::GET || request.version() != Version::HTTP_11 {
            return None;
        }
        let mut line = String::new();
        // writing to a String cannot fail
        let _ = write!(line, "GET {} HTTP/1.1\r\n", request.uri());
        let mut head = line.into_bytes();
        let mut add = |name: &HeaderName, value: &[u8]| {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        request.headers().iter().for_each(|(name, value)| add(name, value.as_bytes()));
        head.extend_from_slice(b"\r\n");
        (head.len() <= MAX_HEAD).then(|| Self::new(head, None))
    }

    /// Goes on with one that was upgraded elsewhere: the head is replayed.
    pub(super) fn replayed(head: Vec<u8>, inherited: Inherited) -> Self {
        Self { replaying: AtomicBool::new(true), ..Self::new(head, Some(inherited)) }
    }

    fn new(head: Vec<u8>, inherited: Option<Inherited>) -> Self {
        Self {
            head,
            inherited,
            replaying: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            reader: AtomicU8::new(Reader::Busy as u8),
            wanted: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn inherited(&self) -> Option<&Inherited> {
        self.inherited.as_ref()
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.replaying.load(SeqCst)
    }

    /// The reply of the replayed request has been swallowed.
    pub(super) fn end_replay(&self) {
        self.replaying.store(false, SeqCst);
    }

    /// Notes that it cannot go to another process.
    pub(super) fn stay(&self) {
        self.stays.store(true, SeqCst);
    }

    pub(super) fn stays(&self) -> bool {
        self.stays.load(SeqCst)
    }

    pub(super) fn movable(&self) -> Result<(), &'static str> {
        match (self.stays(), self.asked.load(SeqCst)) {
            (true, _) => Err("upgraded"),
            (false, false) => Err("handler"),
            (false, true) => Ok(()),
        }
    }
}

/// The reader's side.
impl Upgrade {
    /// Returns whether the reader may have something now.
    pub(super) fn begin_read(&self) -> bool {
        let [waiting, busy] = [Reader::Waiting, Reader::Busy].map(|reader| reader as u8);
        let was = self.reader.compare_exchange(waiting, busy, SeqCst, SeqCst);
        was.map_or_else(|was| was == busy, |_| true)
    }

    /// Notes that the reader waits, having had whole messages.
    pub(super) fn wait(&self) {
        self.reader.store(Reader::Waiting as u8, SeqCst);
        if self.wanted.swap(false, SeqCst) {
            self.wake();
        }
    }
}

/// The handler's side.
impl Upgrade {
    /// Has the handler woken when it may be its turn.
    pub(super) fn ask(&self, waker: &Waker) {
        self.asked.store(true, SeqCst);
        match &mut self.inner().waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Returns whether the reader waits; if it does not, the handler is woken when it does.
    pub(super) fn wants(&self) -> bool {
        let waits = || self.reader.load(SeqCst) == Reader::Waiting as u8;
        if waits() {
            return true;
        }
        self.wanted.store(true, SeqCst);
        waits()
    }

    /// Has the reader wait on; returns whether it did.
    pub(super) fn hold(&self) -> bool {
        let [waiting, held] = [Reader::Waiting, Reader::Held].map(|reader| reader as u8);
        let was = self.reader.compare_exchange(waiting, held, SeqCst, SeqCst);
        if was.is_err() {
            self.wanted.store(true, SeqCst);
        }
        was.is_ok()
    }

    /// The reader, which is to be woken, may go on.
    pub(super) fn release(&self) {
        self.reader.store(Reader::Waiting as u8, SeqCst);
    }

    pub(super) fn leave(&self, given: Given) {
        self.inner().leaving = Some(given);
    }

    pub(super) fn take_given(&self) -> Option<Given> {
        self.inner().leaving.take()
    }

    pub(super) fn wake(&self) {
        let waker = self.inner().waker.clone();
        waker.into_iter().for_each(Waker::wake);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
