//! The socket that parcels go by: from one process to the next, and answers back. It is one of its
//! own, as frames on the link must never wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Duration, sleep};

use super::parcel::{Contents, Parcel, from_memfd};
use crate::error::{Error, Kind, Result};
use crate::sys::secret::Secret;
use crate::sys::{link, scm, socket};
use crate::wire::frame::MAX_FDS;
use crate::wire::parcel::{MAX_MESSAGE, MAX_PARCELS, Note, Record, Refusal};

/// More fds are on their way than this user may have: what is taken makes room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// One end of it.
#[derive(Debug)]
pub(crate) struct Channel(AsyncFd<OwnedFd>);

/// What has come of one parcel.
#[derive(Debug)]
pub(crate) enum Arrival {
    Whole(Parcel),
    /// It cannot be used, as its fd or its contents are missing.
    Broken(Record, &'static str),
}

impl Channel {
    /// Makes two connected ends, which are given to a runtime by [`new`](Self::new).
    pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
        link::pair().map_err(|e| Error::os("no socket pair for connections that move", e))
    }

    /// Takes an end for use in the runtime that we are in.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        socket::register(fd, Interest::READABLE | Interest::WRITABLE)
            .map(Self)
            .map_err(|e| Error::os("the channel for connections that move cannot be watched", e))
    }

    /// Sends the first parcels, as many as go into one message; returns their number.
    ///
    /// # Cancel safety
    /// They were sent, or none was.
    pub(crate) async fn send(&self, parcels: &VecDeque<Parcel>) -> Result<usize> {
        let (count, bytes) = message(parcels)?;
        let fds: Vec<BorrowedFd<'_>> = parcels.iter().take(count).flat_map(Parcel::fds).collect();
        loop {
            match self.0.async_io(Interest::WRITABLE, |fd| scm::send(fd.as_fd(), &bytes, &fds)).await {
                Ok(_) => return Ok(count),
                Err(e) if e.raw_os_error() == Some(libc::ETOOMANYREFS) => sleep(FULL_PAUSE).await,
                Err(e) => return Err(lost(e)),
            }
        }
    }

    /// Receives the next parcels; `None` when no more come.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(crate) async fn parcels(&self) -> Result<Option<Vec<Arrival>>> {
        loop {
            let Some((bytes, fds)) = self.receive().await? else { return Ok(None) };
            let (note, contents) = Note::decode(&bytes)?;
            match note {
                Note::Parcels { records } => return Ok(Some(unpack(records, fds, contents))),
                other => tracing::debug!(?other, "a note that means nothing here"),
            }
        }
    }

    /// Receives the next answers; `None` when no more come.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(crate) async fn answers(&self) -> Result<Option<(Vec<u64>, Vec<Refusal>)>> {
        loop {
            let Some((bytes, _)) = self.receive().await? else { return Ok(None) };
            match Note::decode(&bytes)?.0 {
                Note::Answer { took, refused } => return Ok(Some((took, refused))),
                other => tracing::debug!(?other, "a note that means nothing here"),
            }
        }
    }

    /// Tells the giver what has become of its parcels. If that is gone, nobody needs to know.
    pub(crate) async fn answer(&self, took: Vec<u64>, refused: Vec<Refusal>) -> Result<()> {
        let bytes = Note::Answer { took, refused }.encode()?;
        let sent = self.0.async_io(Interest::WRITABLE, |fd| scm::send(fd.as_fd(), &bytes, &[])).await;
        match sent {
            Err(e) if !is_gone(&e) => Err(lost(e)),
            _ => Ok(()),
        }
    }

    async fn receive(&self) -> Result<Option<(Secret, Vec<OwnedFd>)>> {
        loop {
            match self.0.async_io(Interest::READABLE, |fd| receive(fd.as_fd())).await {
                Ok(received) => return Ok(received),
                // Said once, and before what is in our queue: the other end has gone, and had not
                // read all. What it sent is still to be heard, as it may have taken something.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
                Err(e) if is_gone(&e) => return Ok(None),
                Err(e) => return Err(lost(e)),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn lost(error: io::Error) -> Error {
    Error::caused(Kind::Generation, "the channel for connections that move is broken", error)
}

/// Packs the first parcels; returns how many. Keys may be among the bytes.
pub(super) fn message(parcels: &VecDeque<Parcel>) -> Result<(usize, Secret)> {
    let mut room = MAX_MESSAGE;
    let fitting = parcels.iter().take(MAX_PARCELS).take_while(|parcel| {
        let left = room.checked_sub(parcel.size());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let count = fitting.count().max(1).min(parcels.len());
    let some = || parcels.iter().take(count);
    let note = Note::Parcels { records: some().map(|parcel| parcel.record().clone()).collect() };
    let mut bytes = Secret::from(note.encode()?);
    some().for_each(|parcel| parcel.inline(&mut bytes));
    Ok((count, bytes))
}

fn receive(fd: BorrowedFd<'_>) -> io::Result<Option<(Secret, Vec<OwnedFd>)>> {
    let length = recv(fd.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
    if length > 2 * MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    // Truncated, it has fewer fds than it should: those that are there are of its first parcels.
    let scm::Received { length, fds, .. } = scm::receive(fd, &mut bytes, MAX_FDS)?;
    bytes.truncate(length);
    Ok((length > 0).then_some((bytes.into(), fds)))
}

pub(super) fn unpack(records: Vec<Record>, fds: Vec<OwnedFd>, mut contents: &[u8]) -> Vec<Arrival> {
    let mut fds = fds.into_iter();
    let mut arrivals = Vec::with_capacity(records.len());
    for record in records {
        let fd = fds.next();
        let memfd = if record.memfd { Some(fds.next()) } else { None };
        let lengths = record.contents;
        let read = match memfd {
            Some(memfd) => memfd.and_then(|memfd| from_memfd(lengths, memfd).ok()),
            None => lengths.total().and_then(|total| contents.split_at_checked(total)).and_then(|(own, rest)| {
                contents = rest;
                Contents::from_bytes(lengths, own)
            }),
        };
        arrivals.push(match (fd, read) {
            (Some(fd), Some(read)) => Arrival::Whole(Parcel::received(record, fd, read)),
            (None, _) => Arrival::Broken(record, "no_fds"),
            (Some(_), None) => Arrival::Broken(record, "damaged"),
        });
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn parcel(id: u64, unread: usize) -> (Parcel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let record = Record { listener: "http".into(), protocol: "http1".into(), ..Record::default() };
        let contents = Contents { head: b"head".to_vec(), unread: vec![b'x'; unread], ..Contents::default() };
        let mut parcel = Parcel::new(record, ours.into(), contents).unwrap();
        parcel.number(id);
        (parcel, theirs)
    }

    fn channel() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap())
    }

    async fn arrive(giver: &Channel, taker: &Channel, parcels: &mut VecDeque<Parcel>) -> Vec<Arrival> {
        let mut arrived = Vec::new();
        while !parcels.is_empty() {
            let sent = giver.send(parcels).await.unwrap();
            parcels.drain(..sent).for_each(drop);
            arrived.extend(taker.parcels().await.unwrap().unwrap());
        }
        arrived
    }

    #[tokio::test]
    async fn what_is_packed_is_unpacked() {
        let (giver, taker) = channel();
        let (mut parcels, mut clients) = (VecDeque::new(), Vec::new());
        let sizes = [0, 5, 60_000, 0, 60_000, 60_000, 70_000, 3, 1_000_000];
        for (id, size) in (0..).zip(sizes) {
            let (parcel, client) = parcel(id, size);
            parcels.push_back(parcel);
            clients.push(client);
        }
        let arrived = arrive(&giver, &taker, &mut parcels).await;
        assert_eq!(arrived.len(), sizes.len());
        for ((id, arrival), (size, client)) in (0..).zip(arrived).zip(sizes.iter().zip(&mut clients)) {
            let Arrival::Whole(parcel) = arrival else { panic!("{arrival:?}") };
            let (record, fd, contents) = parcel.into_parts();
            assert_eq!((record.id, contents.unread.len(), contents.head.as_slice()), (id, *size, &b"head"[..]));
            UnixStream::from(fd).write_all(b"y").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"y", "each with its own fd");
        }
    }

    #[tokio::test]
    async fn hundreds_go_and_answers_come_back() {
        let (giver, taker) = channel();
        let (mut parcels, clients): (VecDeque<_>, Vec<_>) = (0..200).map(|id| parcel(id, 10)).unzip();
        assert_eq!(arrive(&giver, &taker, &mut parcels).await.len(), clients.len());
        let refused = vec![Refusal { id: 3, reason: "full".into() }];
        taker.answer(vec![1, 2], refused.clone()).await.unwrap();
        drop(taker);
        assert_eq!(giver.answers().await.unwrap(), Some((vec![1, 2], refused)), "also when it has gone since");
        assert_eq!(giver.answers().await.unwrap(), None);
        let (mut one, _client): (VecDeque<_>, Vec<_>) = (0..1).map(|id| parcel(id, 10)).unzip();
        assert!(giver.send(&one).await.is_err());
        one.clear();
    }

    /// The kernel tells of the reset before it hands out what was sent before.
    #[tokio::test]
    async fn what_was_said_is_heard_of_one_that_is_gone_and_had_not_read_all() {
        let (giver, taker) = channel();
        let (mut parcels, clients): (VecDeque<_>, Vec<_>) = (0..2).map(|id| parcel(id, 10)).unzip();
        for id in 0..2 {
            assert_eq!(giver.send(&parcels.drain(..1).collect()).await.unwrap(), 1);
            if id == 0 {
                assert_eq!(taker.parcels().await.unwrap().unwrap().len(), 1);
                taker.answer(vec![0], Vec::new()).await.unwrap();
            }
        }
        drop(taker);
        assert_eq!(giver.answers().await.unwrap(), Some((vec![0], Vec::new())), "it was taken");
        assert_eq!(giver.answers().await.unwrap(), None);
        drop(clients);

        let (giver, taker) = channel();
        let (parcels, clients): (VecDeque<_>, Vec<_>) = (0..2).map(|id| parcel(id, 10)).unzip();
        taker.answer(vec![7], Vec::new()).await.unwrap();
        assert_eq!(giver.send(&parcels).await.unwrap(), 2);
        drop((giver, parcels));
        assert_eq!(taker.parcels().await.unwrap().unwrap().len(), 2, "they are in its queue");
        assert!(taker.parcels().await.unwrap().is_none());
        drop(clients);
    }

    #[test]
    fn a_parcel_without_its_fd_is_told_from_the_others() {
        let record = |id, memfd| Record { id, memfd, ..Record::default() };
        let fd = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let arrivals = unpack(vec![record(1, false), record(2, true), record(3, false)], vec![fd(), fd()], &[]);
        assert!(matches!(&arrivals[0], Arrival::Whole(parcel) if parcel.record().id == 1));
        assert!(matches!(&arrivals[1], Arrival::Broken(record, "damaged") if record.id == 2));
        assert!(matches!(&arrivals[2], Arrival::Broken(record, "no_fds") if record.id == 3));
        let long =
            Record { contents: crate::wire::parcel::Lengths { unread: 9, ..Default::default() }, ..Record::default() };
        assert!(matches!(unpack(vec![long], vec![fd()], b"short")[0], Arrival::Broken(_, "damaged")));
    }
}
