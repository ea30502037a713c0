//! A mailbox: parcels that wait while there is no process, in the queue of a socket that somebody
//! else keeps.
//!
//! It is a `SOCK_SEQPACKET` pair whose writing end puts parcels into the queue of the reading end.
//! Only the reading end is kept, as one entry of systemd's fd store, which holds the queue with all
//! connections in it. The next process first [looks](Opened::next) at everything without taking it,
//! so that one that dies meanwhile loses nothing, and [empties](empty) the queue just before it
//! serves.
//!
//! # Limits
//! A queue takes as many bytes as `SO_SNDBUF` lets it, and each message costs some more: two or
//! three thousand connections. When it is [full](Put::Full), another mailbox is begun. Fds in all
//! queues count against the soft `LimitNOFILE=` of whoever puts them there, for each user
//! ([`Put::TooMany`]).
//!
//! # References
//! unix(7), `SCM_RIGHTS`; socket(7), `SO_PEEK_OFF`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::time::ClockId;

use super::channel::{Arrival, message, unpack};
use super::parcel::Parcel;
use crate::error::{Error, Kind, Result};
use crate::sys::{link, scm};
use crate::wire::frame::MAX_FDS;
use crate::wire::parcel::{MAX_MESSAGE, Note, Postmark, Record, millis};

/// What a queue may hold, where the kernel lets it (`net.core.wmem_max`).
const QUEUE: usize = 8 << 20;

/// One that is being filled.
#[derive(Debug)]
pub(crate) struct Mailbox {
    writer: OwnedFd,
    reader: OwnedFd,
}

/// What has become of the first parcels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// So many of them are in the queue. The giver still has its own fds.
    In(usize),
    /// There is no room in this queue.
    Full,
    /// This user has as many fds in queues as it may have.
    TooMany,
}

/// One that is looked into, or read.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    reader: BorrowedFd<'a>,
    buffer: Vec<u8>,
}

/// One message of it.
#[derive(Debug)]
pub(crate) enum Found {
    /// Who has filled it, and what came with that; the first.
    Postmark(Postmark, Vec<OwnedFd>),
    Parcels(Vec<Arrival>),
    /// A message of another format, or a damaged one, and what came with it.
    Odd(Error, Vec<OwnedFd>),
}

impl Mailbox {
    /// Makes one for so many connections, which it may be too small for, and says whose it is.
    fn with_queue(generation: u64, count: usize, queue: usize) -> Result<Self> {
        let mailbox = Self::unmarked(queue)?;
        mailbox.mark(generation, count, &[])?;
        Ok(mailbox)
    }

    /// Makes one for copies of connections, with what tells of each whether it can be used.
    ///
    /// # Errors
    /// There are no fds for it.
    pub(crate) fn with(generation: u64, fds: &[BorrowedFd<'_>]) -> Result<Self> {
        let mailbox = Self::unmarked(QUEUE)?;
        mailbox.mark(generation, 0, fds)?;
        Ok(mailbox)
    }

    fn unmarked(queue: usize) -> Result<Self> {
        let (writer, reader) = link::pair().map_err(|e| Error::os("no socket pair for connections to wait in", e))?;
        // As much as the kernel allows, which is never less than before.
        let _ = setsockopt(&writer, sockopt::SndBuf, &queue);
        Ok(Self { writer, reader })
    }

    /// Says whose it is. It is the first that is said, also of one that was emptied.
    fn mark(&self, generation: u64, count: usize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION").into();
        let postmark = Postmark { version, generation, filled_ms: millis(now()), count };
        scm::send(self.writer.as_fd(), &Note::Mailbox(postmark).encode()?, fds)
            .map(drop)
            .map_err(|e| Error::os("a mailbox for connections cannot be written to", e))
    }

    /// Empties it, to be filled again.
    ///
    /// # Errors
    /// It cannot be read, or not be written to.
    pub(crate) fn begin_anew(&self, generation: u64, fds: &[BorrowedFd<'_>]) -> Result<()> {
        empty(self.reader.as_fd())?;
        self.mark(generation, 0, fds)
    }

    /// Puts copies of these connections in, which have no more to take along than their records. It
    /// never waits.
    ///
    /// # Errors
    /// They are those of [`put`](Self::put).
    pub(crate) fn put_copies(&self, records: Vec<Record>, fds: &[BorrowedFd<'_>]) -> Result<Put> {
        let count = records.len();
        self.send(&Note::Parcels { records }.encode()?, fds, count)
    }

    /// Puts the first parcels in, as many as go into one message. It never waits.
    ///
    /// # Errors
    /// They cannot be written, or the kernel refuses them for another reason than [`Put`] has.
    pub(crate) fn put(&self, parcels: &VecDeque<Parcel>) -> Result<Put> {
        let (count, bytes) = message(parcels)?;
        let fds: Vec<BorrowedFd<'_>> = parcels.iter().take(count).flat_map(Parcel::fds).collect();
        self.send(&bytes, &fds, count)
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], count: usize) -> Result<Put> {
        match scm::send(self.writer.as_fd(), bytes, fds) {
            Ok(_) => Ok(Put::In(count)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => Ok(Put::Full),
            Err(e) if e.raw_os_error() == Some(libc::ETOOMANYREFS) => Ok(Put::TooMany),
            Err(e) => Err(Error::os("connections cannot be put into a mailbox", e)),
        }
    }

    /// Returns what somebody else keeps.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Returns what is to be kept by somebody else: for the fd store, unpolled, as its other end
    /// is gone by then.
    pub(crate) fn into_reader(self) -> OwnedFd {
        self.reader
    }
}

/// As many mailboxes as are needed, one after the other.
#[derive(Debug)]
pub(crate) struct Filling {
    generation: u64,
    queue: usize,
    full: Vec<OwnedFd>,
    current: Option<Mailbox>,
}

impl Filling {
    pub(crate) fn new(generation: u64) -> Self {
        Self { generation, queue: QUEUE, full: Vec::new(), current: None }
    }

    /// Puts the first parcels in, as many as go into one message, and returns their number. `all`
    /// is how many are expected from here on, these among them.
    ///
    /// # Errors
    /// There are no fds for a mailbox, or the kernel refuses these parcels.
    pub(crate) fn put(&mut self, parcels: &VecDeque<Parcel>, all: usize) -> Result<usize> {
        if let Some(current) = &self.current {
            match current.put(parcels)? {
                Put::In(count) => return Ok(count),
                Put::Full => self.full.extend(self.current.take().map(Mailbox::into_reader)),
                Put::TooMany => return Err(too_many()),
            }
        }
        let mailbox = Mailbox::with_queue(self.generation, all, self.queue)?;
        match mailbox.put(parcels)? {
            Put::In(count) => {
                self.current = Some(mailbox);
                Ok(count)
            }
            Put::Full => Err(Error::new(Kind::State, "a mailbox for connections takes none")),
            Put::TooMany => Err(too_many()),
        }
    }

    /// Returns what is to be kept by somebody else.
    pub(crate) fn into_readers(mut self) -> Vec<OwnedFd> {
        self.full.extend(self.current.map(Mailbox::into_reader));
        self.full
    }
}

fn too_many() -> Error {
    Error::new(Kind::State, "as many fds of this user wait in queues as LimitNOFILE= lets it have open")
}

impl<'a> Opened<'a> {
    /// Begins to look, from the start, also if another process has looked before.
    ///
    /// # Errors
    /// It is no socket.
    pub(crate) fn look(reader: BorrowedFd<'a>) -> Result<Self> {
        scm::look_from_start(reader).map_err(|e| Error::os("a mailbox cannot be looked into", e))?;
        Ok(Self { reader, buffer: vec![0; 2 * MAX_MESSAGE] })
    }

    /// Looks at the next message, which stays where it is; the fds are copies. `None`: there is no
    /// more.
    ///
    /// Of a message whose fds this process has no room for, the parcels without one are
    /// [`Broken`](Arrival::Broken).
    ///
    /// # Errors
    /// The kernel has none of it.
    pub(crate) fn next(&mut self) -> Result<Option<Found>> {
        let scm::Received { length, truncated, fds, .. } = match scm::look(self.reader, &mut self.buffer, MAX_FDS) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(Error::os("a mailbox cannot be read", e)),
        };
        if length == 0 {
            return Ok(None); // nobody can put more in
        }
        if truncated && length == self.buffer.len() {
            let why = format!("a mailbox has a message of more than {length} bytes");
            return Ok(Some(Found::Odd(Error::new(Kind::Protocol, why), fds)));
        }
        Ok(Some(match Note::decode(&self.buffer[..length]) {
            Ok((Note::Mailbox(postmark), _)) => Found::Postmark(postmark, fds),
            Ok((Note::Parcels { records }, contents)) => Found::Parcels(unpack(records, fds, contents)),
            Ok((Note::Answer { .. } | Note::Unknown, _)) => {
                let why = "a mailbox has a note of a kind that this version of handover does not know";
                Found::Odd(Error::new(Kind::Protocol, why), fds)
            }
            Err(error) => Found::Odd(error, fds),
        }))
    }
}

/// Takes all messages out of the queue and closes what is in them: whoever has copies has the only
/// ones from here on.
///
/// # Errors
/// It cannot be read.
pub(crate) fn empty(reader: BorrowedFd<'_>) -> Result<()> {
    // With no room for fds the kernel closes them by itself.
    loop {
        match recv(reader.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::os("a mailbox cannot be emptied", e)),
        }
    }
}

/// Returns the time of a [`Postmark`]: since the machine was booted, with the time that it slept.
/// It goes on over a soft reboot.
pub(crate) fn now() -> Duration {
    // The clock always exists.
    nix::time::clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transit::Contents;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn parcel(id: u64, unread: usize) -> (Parcel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let record = Record { id, listener: "http".into(), protocol: "http1".into(), ..Record::default() };
        let contents = Contents { unread: vec![b'x'; unread], ..Contents::default() };
        (Parcel::new(record, ours.into(), contents).unwrap(), theirs)
    }

    fn parcels(count: u64, unread: usize) -> (VecDeque<Parcel>, Vec<UnixStream>) {
        (0..count).map(|id| parcel(id, unread)).unzip()
    }

    fn fill(mut filling: Filling, mut some: VecDeque<Parcel>) -> Vec<OwnedFd> {
        while !some.is_empty() {
            let count = filling.put(&some, some.len()).unwrap();
            some.drain(..count);
        }
        filling.into_readers()
    }

    fn all(reader: &OwnedFd) -> (Vec<Postmark>, Vec<Arrival>, Vec<Error>) {
        let (mut marks, mut arrivals, mut odd) = (Vec::new(), Vec::new(), Vec::new());
        let mut opened = Opened::look(reader.as_fd()).unwrap();
        while let Some(found) = opened.next().unwrap() {
            match found {
                Found::Postmark(mark, _) => marks.push(mark),
                Found::Parcels(some) => arrivals.extend(some),
                Found::Odd(error, _) => odd.push(error),
            }
        }
        (marks, arrivals, odd)
    }

    fn echo(arrival: Arrival, client: &mut UnixStream) {
        let Arrival::Whole(parcel) = arrival else { panic!("{arrival:?}") };
        let (_, fd, _) = parcel.into_parts();
        UnixStream::from(fd).write_all(b"y").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
    }

    #[test]
    fn what_was_put_in_is_seen_by_each_who_looks_until_it_is_emptied() {
        let (some, mut clients) = parcels(200, 10);
        let readers = fill(Filling::new(7), some);
        assert_eq!(readers.len(), 1);
        for round in 0..2 {
            let (marks, arrivals, odd) = all(&readers[0]);
            assert_eq!((marks.len(), marks[0].generation, arrivals.len(), odd.len()), (1, 7, 200, 0));
            if round == 1 {
                empty(readers[0].as_fd()).unwrap();
                let copies = all(&readers[0]);
                assert!(copies.0.is_empty() && copies.1.is_empty());
                for (arrival, client) in arrivals.into_iter().zip(&mut clients) {
                    echo(arrival, client);
                    assert_eq!(client.read(&mut [0]).unwrap(), 0, "no copy is left anywhere");
                }
            }
        }
    }

    #[test]
    fn a_full_one_is_followed_by_another() {
        let (some, clients) = parcels(100, 60_000);
        let readers = fill(Filling { queue: 300_000, ..Filling::new(1) }, some);
        assert!(readers.len() > 1, "{}", readers.len());
        let ids: Vec<u64> = readers
            .iter()
            .flat_map(|reader| all(reader).1)
            .map(|arrival| match arrival {
                Arrival::Whole(parcel) => parcel.record().id,
                Arrival::Broken(..) => panic!("{arrival:?}"),
            })
            .collect();
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        drop(clients);
    }

    #[test]
    fn what_waits_is_closed_with_the_mailbox() {
        let (some, mut clients) = parcels(3, 0);
        let readers = fill(Filling::new(1), some);
        clients[0].set_nonblocking(true).unwrap();
        assert_eq!(clients[0].read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody has closed it");
        drop(readers);
        clients[0].set_nonblocking(false).unwrap();
        assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn another_format_is_named_and_what_came_with_it_is_there_to_be_closed() {
        let mailbox = Mailbox::with_queue(1, 1, QUEUE).unwrap();
        let (one, _client) = UnixStream::pair().unwrap();
        for bytes in
            [&b"parcels/2 and so on"[..], b"parcels/1 \0\0\0\x02{]", b"parcels/1 \0\0\0\x10{\"type\":\"pause\"}"]
        {
            scm::send(mailbox.writer.as_fd(), bytes, &[one.as_fd()]).unwrap();
        }
        let (mut some, _clients) = parcels(1, 0);
        assert_eq!(mailbox.put(&some).unwrap(), Put::In(1));
        some.clear();
        let (marks, arrivals, odd) = all(&mailbox.into_reader());
        assert_eq!((marks.len(), arrivals.len(), odd.len()), (1, 1, 3));
        assert!(odd[0].to_string().contains("parcels/2"), "{}", odd[0]);
        assert!(odd[2].to_string().contains("does not know"), "{}", odd[2]);
    }
}
