//! Crash insurance: copies of the connections that are served, in mailboxes that somebody else
//! keeps, and a [mark](super::marks) for each.
//!
//! A connection is put into a mailbox as it comes, one message each. When that is full, those of it
//! that still live are put into another one, many in a message, and it is emptied and used again:
//! so connections that come and go never reach the service manager, and what has ended does not
//! pile up. A copy that has ended, or that is in two mailboxes for a moment, does no harm: marks
//! have numbers, and sockets a cookie.
//!
//! A copy keeps a connection open when its process closes it. So whoever is insured shuts it down
//! first.

mod renewal;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::mailbox::{Mailbox, Put, now};
use super::marks::{Marks, State};
use crate::error::{Error, Result};
use crate::metrics::{INSURED, Metrics};
use crate::sys::{pidfd, socket};
use crate::wire::parcel::{HTTP1, Record, millis};

/// A mailbox of more than so many is renewed as soon as half of it has ended.
const SOME: usize = 128;
/// No more are put into one, one by one: what is renewed is in flight twice meanwhile.
const MOST: usize = 512;

/// The insurance of one process.
pub(crate) struct Insurance {
    generation: u64,
    marks: Marks,
    /// This process: as long as it lives, its connections are nobody else's.
    owner: OwnedFd,
    metrics: Metrics,
    books: Mutex<Books>,
    /// There is something to be stored, or to be renewed.
    changed: Notify,
    /// Mailboxes are renewed by one at a time.
    renewing: Mutex<()>,
}

/// The insurance of one connection, which ends when this is dropped.
pub(crate) struct Policy {
    insurance: Arc<Insurance>,
    id: u64,
    between: bool,
}

/// What the insurance may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// This generation is not main yet: the mailboxes are not in the store.
    #[default]
    Waiting,
    Active,
    /// The store is the next generation's: what is there stays as it is.
    Frozen,
    Over,
}

#[derive(Default)]
struct Books {
    phase: Phase,
    all: BTreeMap<u64, Book>,
    /// How many there have been.
    begun: u64,
    /// Where connections are put as they come.
    single: Option<u64>,
    /// Where those are put that have lived for a while.
    packed: Option<u64>,
    /// Empty ones that are in the store.
    spare: Vec<u64>,
    /// Which book each connection is in.
    homes: HashMap<u64, u64>,
    /// It was said that some are not insured.
    warned: bool,
}

/// A mailbox, and what is in it.
struct Book {
    mailbox: Arc<Mailbox>,
    /// What it is called in the store, once it is there, or is just being put there.
    name: Option<String>,
    since: Instant,
    messages: usize,
    entries: usize,
    /// How many of them have ended, or are elsewhere by now.
    dead: usize,
    /// All that lives of it is elsewhere.
    moved: bool,
}

impl Insurance {
    /// Begins with no connection.
    ///
    /// # Errors
    /// There are no fds for it.
    pub(crate) fn new(generation: u64, metrics: Metrics) -> Result<Arc<Self>> {
        let os = |e| Error::os("connections cannot be insured against a crash", e);
        let marks = Marks::new(socket::max_open_files()).map_err(os)?;
        marks.beat(now());
        let owner = pidfd::open(std::process::id()).map_err(os)?;
        Ok(Arc::new(Self {
            generation,
            marks,
            owner,
            metrics,
            books: Mutex::default(),
            changed: Notify::new(),
            renewing: Mutex::new(()),
        }))
    }

    /// Insures a connection of HTTP/1 that was accepted, or has come from elsewhere, and says where
    /// it is. `None`: it cannot be, which is counted.
    pub(crate) fn insure(
        self: &Arc<Self>,
        fd: BorrowedFd<'_>,
        listener: &str,
        open: Duration,
        state: State,
    ) -> Option<Policy> {
        let mut books = self.lock();
        if books.phase == Phase::Over {
            return None;
        }
        let Some(id) = self.marks.take(state) else {
            books.cannot(self, "there are more than LimitNOFILE= was when the process began");
            return None;
        };
        let record = Record {
            id,
            listener: listener.to_owned(),
            protocol: HTTP1.into(),
            open_ms: millis(open),
            written_ms: millis(now()),
            copied: true,
            ..Record::default()
        };
        match books.add(self, &record, fd) {
            Ok(()) => Some(Policy { insurance: Arc::clone(self), id, between: state == State::Between }),
            Err(why) => {
                self.marks.end(id);
                books.cannot(self, &why);
                None
            }
        }
    }

    /// Has the mailboxes stored, now and later: this generation is main.
    pub(crate) fn activate(&self) {
        let mut books = self.lock();
        if books.phase == Phase::Waiting {
            books.phase = Phase::Active;
        }
        self.changed.notify_one();
    }

    /// Leaves the store alone from now on: it is the next generation's.
    pub(crate) fn freeze(&self) {
        let mut books = self.lock();
        if books.phase != Phase::Over {
            books.phase = Phase::Frozen;
        }
    }

    /// Ends all of it: the mailboxes are empty, wherever they are.
    pub(crate) fn end(&self) {
        let mut books = self.lock();
        books.phase = Phase::Over;
        for book in std::mem::take(&mut books.all).into_values() {
            if let Err(error) = super::mailbox::empty(book.mailbox.reader()) {
                tracing::warn!(%error, "what is closed here may still be open");
            }
        }
        let Books { homes, spare, single, packed, .. } = &mut *books;
        homes.clear();
        spare.clear();
        (*single, *packed) = (None, None);
        self.changed.notify_one();
    }

    /// Notes that the process is alive; false: the insurance is over.
    pub(crate) fn beat(&self) -> bool {
        self.marks.beat(now());
        let books = self.lock();
        self.metrics.set_gauge(INSURED, books.homes.len() as f64);
        books.phase != Phase::Over
    }

    /// Resolves when there may be something to [renew](Self::renew).
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns whether the store has that one of ours under this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().all.values().any(|book| book.name.as_deref() == Some(name))
    }

    fn end_of(&self, id: u64) {
        let mut books = self.lock();
        self.marks.end(id);
        let Some(home) = books.homes.remove(&id) else { return };
        let Some(book) = books.all.get_mut(&home) else { return };
        book.dead += 1;
        if book.is_half_dead() && book.entries >= SOME {
            books.seal(home);
            self.changed.notify_one();
        }
    }

    fn mailbox(&self) -> Result<Mailbox> {
        Mailbox::with(self.generation, &self.postage())
    }

    /// What comes with the first message of each mailbox.
    fn postage(&self) -> [BorrowedFd<'_>; 2] {
        [self.marks.memfd(), self.owner.as_fd()]
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Puts a connection where those are that have just come.
    fn add(&mut self, insurance: &Insurance, record: &Record, fd: BorrowedFd<'_>) -> Result<(), String> {
        let id = record.id;
        loop {
            let at = match self.single {
                Some(at) => at,
                None => self.begin(insurance, true).map_err(|e| e.to_string())?,
            };
            self.single = Some(at);
            let Some(book) = self.all.get_mut(&at) else { return Err("its mailbox is gone".into()) };
            match book.mailbox.put_copies(vec![record.clone()], &[fd]) {
                Ok(Put::In(_)) => {
                    book.messages += 1;
                    book.entries += 1;
                    self.homes.insert(id, at);
                    let full = book.entries >= MOST;
                    if full || book.name.is_none() {
                        insurance.changed.notify_one();
                    }
                    if full {
                        self.seal(at);
                    }
                    return Ok(());
                }
                Ok(Put::Full) if book.entries > 0 => {
                    self.seal(at);
                    insurance.changed.notify_one();
                }
                Ok(Put::Full) => return Err("a mailbox for connections takes none".into()),
                Ok(Put::TooMany) => {
                    if book.dead > 0 {
                        // What has ended makes room.
                        self.seal(at);
                        insurance.changed.notify_one();
                    }
                    return Err("as many fds of this user wait in queues as LimitNOFILE= lets it have open".into());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Nothing more is put into it.
    fn seal(&mut self, at: u64) {
        self.single = self.single.filter(|single| *single != at);
        self.packed = self.packed.filter(|packed| *packed != at);
    }

    /// Begins a mailbox; one that is in the store already, if there is one.
    fn begin(&mut self, insurance: &Insurance, used: bool) -> Result<u64> {
        if used && let Some(at) = self.spare.pop() {
            return Ok(at);
        }
        let book = Book {
            mailbox: Arc::new(insurance.mailbox()?),
            name: None,
            since: Instant::now(),
            messages: 0,
            entries: 0,
            dead: 0,
            moved: false,
        };
        self.begun += 1;
        self.all.insert(self.begun, book);
        Ok(self.begun)
    }

    fn cannot(&mut self, insurance: &Insurance, why: &str) {
        insurance.metrics.uninsured();
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(why, "not all connections are insured against a crash; it is said once");
        }
    }
}

impl Book {
    /// Returns whether it is to be renewed, if nothing is put into it any more: half of it is dead,
    /// or each of few has a message of its own.
    fn is_worn(&self) -> bool {
        !self.moved && (self.is_half_dead() || self.entries < self.messages * 8)
    }

    fn is_half_dead(&self) -> bool {
        self.dead > 0 && self.dead * 2 >= self.entries
    }
}

impl Policy {
    /// Says where it is, from the moment on in which it is this process's.
    pub(crate) fn cover(&mut self, between: bool) {
        self.between = between;
        self.insurance.marks.set(self.id, if between { State::Between } else { State::Middle });
    }

    /// Notes that bytes may be taken from the socket from now on; returns whether nothing was in
    /// progress.
    #[inline]
    pub(crate) fn begin(&mut self) -> bool {
        if self.between {
            self.insurance.marks.set(self.id, State::Middle);
        }
        std::mem::replace(&mut self.between, false)
    }

    /// Notes that nothing is in progress: what comes next is all in the socket.
    #[inline]
    pub(crate) fn wait(&mut self) {
        if !std::mem::replace(&mut self.between, true) {
            self.insurance.marks.set(self.id, State::Between);
        }
    }

    #[inline]
    pub(crate) fn is_between(&self) -> bool {
        self.between
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        self.insurance.end_of(self.id);
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("id", &self.id).field("between", &self.between).finish_non_exhaustive()
    }
}

impl fmt::Debug for Insurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Insurance").field("generation", &self.generation).finish_non_exhaustive()
    }
}
