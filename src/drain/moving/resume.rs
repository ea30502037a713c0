//! Connections that have waited for this start of the service.
//!
//! All is looked at before the service is ready, and taken just before it serves: a process that
//! dies meanwhile, as a bad version does, leaves everything to the next one.
//!
//! There are those that were [kept](super::keep) by the process before, and those that were
//! [insured](crate::transit::insurance) and that a process has left which ended without a word. Of
//! these only such are served as were between two requests: of the others a part of a request is
//! lost, and what comes next must not be taken for the beginning of one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::sys::stat::fstat;
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use super::prepare::{Prepared, Unserved, Waiting, prepare_all};
use super::take::is_last;
use crate::drain::handle::Drain;
use crate::error::{Error, Kind, Result};
use crate::sys::look::{Look, look};
use crate::sys::{fdtable, socket};
use crate::transit::Parcel;
use crate::transit::channel::Arrival;
use crate::transit::mailbox::{self, Found, Opened};
use crate::transit::marks::{LeftMarks, State};
use crate::wire::parcel::{MAX_PARCELS, Record, UPGRADED};

/// The last word to a WebSocket: a close frame with code 1012, "service restart".
const COME_AGAIN: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// Why those are closed that were in the middle of a request when their process ended.
const MIDDLE: &str = "middle";
/// How long a process may take to end whose link is closed.
pub(crate) const OWNER_TIMEOUT: Duration = Duration::from_secs(1);

/// A mailbox of insured connections, and its name in the store.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) name: String,
    pub(crate) reader: OwnedFd,
}

/// What has been found, ready to be served.
pub(crate) struct Resuming {
    readers: Vec<OwnedFd>,
    /// Entries of the store that are of no use from then on.
    spent: Vec<String>,
    /// Entries of processes that live.
    living: Vec<String>,
    found: Vec<Waiting>,
    /// Those that are got ready already, or that nobody serves: they are closed when the others are
    /// served, as the next start may serve them if this one fails.
    prepared: Vec<Prepared>,
    resumed: Resumed,
}

/// What has become of the connections that had waited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resumed {
    pub(crate) resumed: usize,
    /// How many of them a crash has left.
    pub(crate) rescued: usize,
    /// How many were closed, by the reason in one word.
    pub(crate) closed: BTreeMap<&'static str, usize>,
    /// For how long the oldest of them had waited.
    pub(crate) waited: Duration,
}

impl Drain {
    /// Looks at all that has waited in these mailboxes, which stays there, to serve what has not
    /// waited for longer than this. `None`: nothing is to be served. What is the `left` of a
    /// process that lives is left alone.
    pub(crate) fn look_at_kept(
        &self,
        mut readers: Vec<OwnedFd>,
        left: Vec<Left>,
        within: Option<Duration>,
    ) -> Resuming {
        let mut resumed = Resumed::default();
        let (mut spent, mut living) = (Vec::with_capacity(left.len()), Vec::new());
        let mut looking = Looking {
            drain: self,
            within,
            found: Vec::new(),
            prepared: Vec::new(),
            resumed: &mut resumed,
            // Who kept all is one process, and has nothing twice.
            seen: (!left.is_empty()).then(HashSet::new),
            marks: HashMap::new(),
            most_fds: socket::max_open_files(),
        };
        let mut all = Vec::with_capacity(readers.len());
        for reader in &readers {
            looking.or_damaged(|_| Opened::look(reader.as_fd()).and_then(Filled::begin).map(|one| all.push(one)));
        }
        // As they have left, so they come back: nobody waits for longer than others.
        all.sort_by_key(|filled| Reverse(filled.expected()));
        for filled in all {
            looking.or_damaged(|looking| looking.look(filled));
        }
        for Left { name, reader } in left {
            match looking.look_at_left(&reader) {
                Ok(true) => readers.push(reader),
                Ok(false) => {
                    tracing::debug!(name, "a process that lives serves the connections in this mailbox");
                    living.push(name);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(name, "a mailbox of insured connections is damaged, and they are closed: {error}");
                    looking.resumed.close(None, "damaged", 1);
                    readers.push(reader);
                }
            }
            spent.push(name);
        }
        let Looking { found, prepared, .. } = looking;
        Resuming { readers, spent, living, found, prepared, resumed }
    }
}

/// Resolves when the processes have ended that these mailboxes are of, or at the latest after some
/// time.
pub(crate) async fn owners_ended(left: &[Left]) {
    let until = Instant::now() + OWNER_TIMEOUT;
    for Left { reader, .. } in left {
        let owner = Opened::look(reader.as_fd()).and_then(|mut opened| opened.next());
        let Ok(Some(Found::Postmark(_, fds))) = owner else { continue };
        let Some(Ok(owner)) = fds.into_iter().nth(1).map(|owner| socket::register(owner, Interest::READABLE)) else {
            continue;
        };
        // who lives on is seen later
        let _ = timeout_at(until, owner.readable()).await;
    }
}

struct Looking<'a> {
    drain: &'a Drain,
    within: Option<Duration>,
    found: Vec<Waiting>,
    prepared: Vec<Prepared>,
    resumed: &'a mut Resumed,
    /// The cookies of all that was seen, where there may be copies: a process that has just renewed
    /// a mailbox, or kept what it had, leaves the same connection twice.
    seen: Option<HashSet<u64>>,
    /// The marks of each process, which are beside each of its mailboxes, by their inode.
    marks: HashMap<u64, Rc<LeftMarks>>,
    /// As many may be open.
    most_fds: usize,
}

/// A mailbox that was filled at once, and its first message.
struct Filled<'a> {
    opened: Opened<'a>,
    first: Option<Found>,
}

impl<'a> Filled<'a> {
    fn begin(mut opened: Opened<'a>) -> Result<Self> {
        let first = opened.next()?;
        Ok(Self { opened, first })
    }

    /// How many connections are in it, and in those that were filled after it.
    fn expected(&self) -> usize {
        match &self.first {
            Some(Found::Postmark(postmark, _)) => postmark.count,
            _ => 0,
        }
    }
}

impl Looking<'_> {
    fn or_damaged(&mut self, look: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = look(self) {
            tracing::warn!("a mailbox of connections that have waited for this start is damaged: {error}");
            self.resumed.close(None, "damaged", 1);
        }
    }

    fn look(&mut self, filled: Filled<'_>) -> Result<()> {
        make_room(filled.expected());
        let Filled { mut opened, mut first } = filled;
        // Of one that does not say when it was filled, nothing is known.
        let mut waited = Duration::MAX;
        while let Some(found) = first.take().map_or_else(|| opened.next(), |first| Ok(Some(first)))? {
            match found {
                Found::Postmark(postmark, _) => {
                    waited = mailbox::now().saturating_sub(Duration::from_millis(postmark.filled_ms));
                    self.resumed.waited = self.resumed.waited.max(waited);
                    tracing::debug!(?postmark, ?waited, "connections have waited for this start");
                }
                Found::Parcels(arrivals) => arrivals.into_iter().for_each(|arrival| self.admit(arrival, waited)),
                Found::Odd(error, fds) => self.close_odd(&error, fds),
            }
        }
        Ok(())
    }

    /// Looks at what a process has left; false: it lives.
    fn look_at_left(&mut self, reader: &OwnedFd) -> Result<bool> {
        let mut opened = Opened::look(reader.as_fd())?;
        let first = match opened.next()? {
            Some(Found::Postmark(postmark, fds)) => {
                tracing::debug!(?postmark, "connections that were insured");
                fds
            }
            // it was just being emptied
            None => return Ok(true),
            Some(_) => Vec::new(),
        };
        let Ok([marks, owner]) = <[OwnedFd; 2]>::try_from(first) else {
            return Err(Error::new(Kind::Protocol, "it does not begin with the marks of its connections"));
        };
        let ended = socket::wait(owner.as_fd(), PollFlags::POLLIN, std::time::Instant::now())
            .map_err(|e| Error::os("it cannot be told whether its process lives", e))?;
        if !ended {
            return Ok(false);
        }
        let marks = self.marks_of(marks)?;
        make_room(marks.count());
        let waited = mailbox::now().saturating_sub(marks.beat());
        while let Some(found) = opened.next()? {
            match found {
                Found::Postmark(..) => {}
                Found::Parcels(arrivals) => {
                    arrivals.into_iter().for_each(|arrival| self.admit_left(arrival, &marks, waited));
                }
                Found::Odd(error, fds) => self.close_odd(&error, fds),
            }
        }
        Ok(true)
    }

    fn marks_of(&mut self, memfd: OwnedFd) -> Result<Rc<LeftMarks>> {
        let os = |e| Error::os("the marks of insured connections cannot be read", e);
        let inode = fstat(memfd.as_fd()).map_err(|e| os(e.into()))?.st_ino;
        if let Some(known) = self.marks.get(&inode) {
            return Ok(Rc::clone(known));
        }
        let marks = Rc::new(LeftMarks::read(memfd).map_err(os)?);
        self.marks.insert(inode, Rc::clone(&marks));
        Ok(marks)
    }

    fn admit_left(&mut self, arrival: Arrival, marks: &LeftMarks, waited: Duration) {
        let parcel = match arrival {
            Arrival::Whole(parcel) => parcel,
            Arrival::Broken(record, reason) if marks.of(record.id).is_some() => {
                return self.resumed.close(None, reason, 1);
            }
            Arrival::Broken(..) => return,
        };
        let Some(state) = marks.of(parcel.record().id) else { return };
        let fd = parcel.fd();
        // Its client has gone, or its end was said before the mark was ended.
        if look(fd) == Look::End || !self.is_new(fd) {
            return;
        }
        match state {
            State::Between => {
                self.resumed.waited = self.resumed.waited.max(waited);
                self.admit_new(parcel, waited, true);
            }
            State::Middle | State::Withheld => {
                let (_, fd, _) = parcel.into_parts();
                *self.resumed.closed.entry(MIDDLE).or_default() += 1;
                let _ = shutdown(fd.as_raw_fd(), Shutdown::Both);
            }
        }
    }

    /// Returns whether this connection was not seen before.
    fn is_new(&mut self, fd: BorrowedFd<'_>) -> bool {
        let Some(seen) = &mut self.seen else { return true };
        socket::cookie(fd).is_ok_and(|cookie| seen.insert(cookie))
    }

    fn close_odd(&mut self, error: &Error, fds: Vec<OwnedFd>) {
        let count = fds.len();
        tracing::warn!(
            count,
            "{count} connections that have waited for this start cannot be read, and are closed: {error}"
        );
        let unserved = |fd| Unserved { reason: "damaged", fd: Some(fd), protocol: String::new() };
        self.prepared.extend(fds.into_iter().map(|fd| (false, Err(unserved(fd)))));
    }

    fn admit(&mut self, arrival: Arrival, waited: Duration) {
        let parcel = match arrival {
            Arrival::Whole(parcel) => parcel,
            Arrival::Broken(_, reason) => return self.resumed.close(None, reason, 1),
        };
        if self.is_new(parcel.fd()) {
            self.admit_new(parcel, waited, false);
        }
    }

    fn admit_new(&mut self, parcel: Parcel, waited: Duration, rescued: bool) {
        let refusal = match self.within {
            None => Some("off"),
            Some(within) if waited > within => Some("late"),
            Some(_) => None,
        };
        // The next message needs room, too, for as long as it is looked at.
        if is_last(parcel.fd(), self.most_fds, 2 * MAX_PARCELS) {
            let (record, fd, _) = parcel.into_parts();
            return self.resumed.close(Some((&fd, &record.protocol)), refusal.unwrap_or("no_fds"), 1);
        }
        let taker = refusal.map_or_else(|| self.drain.core.moving.taker(parcel.record()), Err);
        match taker {
            Ok((adopter, slot)) => self.found.push(Waiting { parcel, adopter, slot, waited, rescued }),
            Err(reason) => {
                let (Record { protocol, .. }, fd, _) = parcel.into_parts();
                self.prepared.push((rescued, Err(Unserved { reason, fd: Some(fd), protocol })));
            }
        }
    }
}

/// Opens the next fds without a pause. Where that fails, the pauses are made.
fn make_room(count: usize) {
    if let Err(error) = fdtable::make_room(count) {
        tracing::debug!(%error, count, "no room for fds ahead of time");
    }
}

impl Resuming {
    /// Takes the names of entries of the store that are of no use once it has begun; also of those
    /// whose process lives, if that is nobody whom we know.
    pub(crate) fn take_spent(&mut self, also_living: bool) -> Vec<String> {
        let mut names = std::mem::take(&mut self.spent);
        if also_living {
            names.append(&mut self.living);
        }
        names
    }

    /// Gets ready to serve them. What is to be insured has to be so before it is served.
    pub(crate) fn get_ready(&mut self) {
        prepare_all(std::mem::take(&mut self.found), |one| self.prepared.push(one));
    }

    /// Serves them. From here on the mailboxes are empty.
    ///
    /// Whoever has waited for the longest time is served at once, while others are got ready.
    pub(crate) fn begin(self, drain: &Drain) -> Resumed {
        let Self { readers, found, prepared, mut resumed, .. } = self;
        for reader in &readers {
            // What is not emptied would be served a second time after a crash.
            if let Err(error) = mailbox::empty(reader.as_fd()) {
                tracing::error!(%error, "the connections that have waited for this start are still in the fd store");
            }
        }
        let mut serve = |(rescued, prepared): Prepared| match prepared {
            Ok(adoption) => {
                adoption();
                resumed.resumed += 1;
                resumed.rescued += usize::from(rescued);
            }
            Err(Unserved { reason, fd, protocol }) => {
                resumed.close(fd.as_ref().map(|fd| (fd, protocol.as_str())), reason, 1);
            }
        };
        prepare_all(found, &mut serve);
        prepared.into_iter().for_each(serve);
        drain.core.moving.adopted.fetch_add(resumed.resumed, Ordering::Relaxed);
        drain.metrics().rescued(resumed.rescued);
        for (reason, count) in &resumed.closed {
            drain.metrics().not_resumed(reason, *count);
        }
        resumed
    }
}

impl Resumed {
    /// Says goodbye as its protocol demands. A copy is in the queue still, so that the end has to
    /// be said; what is only closed ends with the queue.
    fn close(&mut self, fd: Option<(&OwnedFd, &str)>, reason: &'static str, count: usize) {
        *self.closed.entry(reason).or_default() += count;
        let Some((fd, protocol)) = fd else { return };
        if protocol == UPGRADED {
            // A client that does not read does not read that either.
            let _ = send(fd.as_raw_fd(), &COME_AGAIN, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
        let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
    }

    /// Returns whether a process left some that ended without a word.
    pub(crate) fn is_after_crash(&self) -> bool {
        self.rescued > 0 || self.closed.contains_key(MIDDLE)
    }

    pub(crate) fn closed(&self) -> usize {
        self.closed.values().sum()
    }
}

impl fmt::Debug for Resuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resuming").field("found", &(self.found.len() + self.prepared.len())).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::limit::{Limit, LimitSlot};
    use crate::drain::moving::{Adoption, Arrived};
    use crate::sys::{link, scm};
    use crate::transit::Contents;
    use crate::wire::parcel::{Note, Postmark, STREAM, millis};
    use std::collections::VecDeque;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    const MINUTE: Duration = Duration::from_secs(60);

    /// What is served, and for how long it was idle before.
    type Served = Arc<Mutex<Vec<(u64, OwnedFd)>>>;

    /// Takes as many as there may be, and has them once they are served.
    struct Taking {
        limit: Limit,
        served: Served,
    }

    impl crate::drain::moving::Adopter for Taking {
        fn prepare(&self, arrival: Arrived) -> std::result::Result<Adoption, &'static str> {
            let served = Arc::clone(&self.served);
            Ok(Box::new(move || served.lock().unwrap().push((arrival.record.quiet_ms, arrival.fd))))
        }

        fn slot(&self, _: &Record) -> std::result::Result<Option<LimitSlot>, &'static str> {
            Limit::slot_of(Some(&self.limit))
        }
    }

    fn drain() -> (Drain, Served) {
        drain_of(&Limit::new(usize::MAX))
    }

    fn drain_of(limit: &Limit) -> (Drain, Served) {
        let (drain, served) = (Drain::new(), Served::default());
        drain.adopt_with("http", Arc::new(Taking { limit: limit.clone(), served: Arc::clone(&served) }));
        (drain, served)
    }

    fn parcel(record: Record) -> (Parcel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(MINUTE)).unwrap();
        (Parcel::new(record, ours.into(), Contents::default()).unwrap(), theirs)
    }

    fn filled(mut parcels: VecDeque<Parcel>, more: usize) -> Vec<OwnedFd> {
        let mut filling = mailbox::Filling::new(1);
        while !parcels.is_empty() {
            let count = filling.put(&parcels, parcels.len() + more).unwrap();
            parcels.drain(..count);
        }
        filling.into_readers()
    }

    fn kept(of: &[(&str, &str)]) -> (Vec<OwnedFd>, Vec<UnixStream>) {
        let record = |(listener, protocol): &(&str, &str)| Record {
            listener: (*listener).into(),
            protocol: (*protocol).into(),
            ..Record::default()
        };
        let (parcels, clients) = of.iter().map(|one| parcel(record(one))).unzip();
        (filled(parcels, 0), clients)
    }

    fn copies(readers: &[OwnedFd]) -> Vec<OwnedFd> {
        readers.iter().map(|reader| reader.try_clone().unwrap()).collect()
    }

    fn rest(client: &mut UnixStream) -> Vec<u8> {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        rest
    }

    #[test]
    fn a_start_that_dies_before_it_serves_leaves_all_to_the_next_one() {
        let (readers, clients) = kept(&[("http", "http1"), ("http", STREAM)]);
        let (drain, served) = drain();
        drop(drain.look_at_kept(copies(&readers), Vec::new(), Some(MINUTE)));
        let resumed = drain.look_at_kept(copies(&readers), Vec::new(), Some(MINUTE)).begin(&drain);
        assert_eq!((resumed.resumed, resumed.closed()), (2, 0));
        assert_eq!((served.lock().unwrap().len(), drain.adopted()), (2, 2));
        let again = drain.look_at_kept(readers, Vec::new(), Some(MINUTE)).begin(&drain);
        assert_eq!((again.resumed, again.closed()), (0, 0), "none is served a second time");
        drop(clients);
    }

    #[test]
    fn a_start_that_dies_has_closed_none_that_the_next_one_serves() {
        let (readers, mut clients) = kept(&[("http", "http1")]);
        let without = Drain::new();
        drop(without.look_at_kept(copies(&readers), Vec::new(), Some(MINUTE)));
        let (drain, served) = drain();
        drain.look_at_kept(readers, Vec::new(), Some(MINUTE)).begin(&drain);
        let (_, fd) = served.lock().unwrap().pop().unwrap();
        UnixStream::from(fd).write_all(b"answer").unwrap();
        assert_eq!(rest(&mut clients[0]), b"answer");
    }

    #[test]
    fn a_panic_closes_the_one_that_it_is_about() {
        struct Panicking;
        impl crate::drain::moving::Adopter for Panicking {
            fn prepare(&self, _: Arrived) -> std::result::Result<Adoption, &'static str> {
                panic!("a service that cannot be cloned");
            }

            fn slot(&self, _: &Record) -> std::result::Result<Option<LimitSlot>, &'static str> {
                Ok(None)
            }
        }
        let (readers, mut clients) = kept(&[("bad", UPGRADED), ("http", "http1")]);
        let (drain, served) = drain();
        drain.adopt_with("bad", Arc::new(Panicking));
        let resumed = drain.look_at_kept(readers, Vec::new(), Some(MINUTE)).begin(&drain);
        assert_eq!((resumed.resumed, resumed.closed["panicked"]), (1, 1));
        assert_eq!(served.lock().unwrap().len(), 1);
        assert_eq!(rest(&mut clients[0]), COME_AGAIN);
    }

    /// The gate is open before they are served.
    #[test]
    fn whoever_comes_anew_gets_no_place_of_those_that_have_waited() {
        let (readers, mut clients) = kept(&[("http", "http1"), ("http", "http1")]);
        let limit = Limit::new(1);
        let (drain, _served) = drain_of(&limit);
        let resuming = drain.look_at_kept(readers, Vec::new(), Some(MINUTE));
        assert!(limit.take().is_none());
        let resumed = resuming.begin(&drain);
        assert_eq!((resumed.resumed, resumed.closed["full"]), (1, 1));
        assert_eq!(rest(&mut clients[1]), b"", "it is closed");
    }

    /// Whoever had to leave first has waited for the longest time.
    #[test]
    fn they_come_back_in_the_order_in_which_they_left() {
        const EACH: u64 = 300;
        /// Longer than the test takes.
        const APART: u64 = 1_000_000;
        let mut clients = Vec::new();
        let mut readers = Vec::new();
        for part in [1, 0] {
            let some = part * EACH..(part + 1) * EACH;
            let quiet = some.map(|at| Record { quiet_ms: at * APART, ..http1() });
            let (parcels, more): (VecDeque<_>, Vec<_>) = quiet.map(parcel).unzip();
            readers.extend(filled(parcels, usize::try_from((1 - part) * EACH).unwrap()));
            clients.extend(more);
        }
        let (drain, served) = drain();
        drain.look_at_kept(readers, Vec::new(), Some(MINUTE)).begin(&drain);
        let order: Vec<_> = served.lock().unwrap().iter().map(|(quiet, _)| quiet / APART).collect();
        assert_eq!(order, (0..2 * EACH).collect::<Vec<_>>());
    }

    fn http1() -> Record {
        Record { listener: "http".into(), protocol: "http1".into(), ..Record::default() }
    }

    #[test]
    fn who_is_not_served_is_told_as_its_protocol_does() {
        for (within, listener, reason) in
            [(Some(MINUTE), "other", "listener"), (None, "http", "off"), (Some(Duration::ZERO), "http", "late")]
        {
            let (readers, mut clients) = kept(&[(listener, "http1"), (listener, UPGRADED)]);
            let begun = mailbox::now();
            while mailbox::now() < begun + Duration::from_millis(2) {
                std::hint::spin_loop(); // to wait for any time at all is too long for the last of them
            }
            let (drain, served) = drain();
            let resumed = drain.look_at_kept(readers, Vec::new(), within).begin(&drain);
            assert_eq!((resumed.resumed, resumed.closed[reason]), (0, 2), "{reason}");
            assert!(served.lock().unwrap().is_empty());
            assert_eq!(rest(&mut clients[0]), b"");
            assert_eq!(rest(&mut clients[1]), COME_AGAIN);
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_the_rest_is_served() {
        let (drain, served) = drain();
        let (writer, reader) = link::pair().unwrap();
        let filled_ms = millis(mailbox::now()).saturating_sub(5_000);
        let postmark = Note::Mailbox(Postmark { filled_ms, ..Postmark::default() }).encode().unwrap();
        scm::send(writer.as_fd(), &postmark, &[]).unwrap();
        let (ours, mut odd) = UnixStream::pair().unwrap();
        scm::send(writer.as_fd(), b"parcels/2 of a newer format", &[ours.as_fd()]).unwrap();
        let (good, _good) = UnixStream::pair().unwrap();
        let two = Note::Parcels { records: vec![http1(), http1()] }.encode().unwrap();
        scm::send(writer.as_fd(), &two, &[good.as_fd()]).unwrap();
        drop((writer, ours, good));
        let resumed = drain.look_at_kept(vec![reader], Vec::new(), Some(MINUTE)).begin(&drain);
        assert_eq!((resumed.resumed, resumed.closed["damaged"], resumed.closed["no_fds"]), (1, 1, 1));
        assert_eq!(rest(&mut odd), b"", "it is closed");
        let quiet = served.lock().unwrap()[0].0;
        assert!((5_000..60_000).contains(&quiet), "it was idle meanwhile: {quiet}");
    }

    #[test]
    fn what_is_no_mailbox_is_no_reason_to_fail() {
        let (drain, _) = drain();
        let file = std::fs::File::open("/dev/null").unwrap();
        let resumed = drain.look_at_kept(vec![file.into()], Vec::new(), Some(MINUTE)).begin(&drain);
        assert_eq!((resumed.resumed, resumed.closed["damaged"]), (0, 1));
    }
}
