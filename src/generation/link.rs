//! One end of the private socket between two generations.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Kind, Result};
use crate::sys::{link, scm, socket};
use crate::wire::frame::{Frame, MAX_FDS, MAX_FRAME, MAX_NAMES};

/// How long the previous generation may take for its first word. It is sent before we are started.
pub(crate) const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// An end that has not been given to a runtime yet.
#[derive(Debug)]
pub(crate) struct Idle(OwnedFd);

/// An end in use. Dropping it (and all copies) is seen at the other end.
#[derive(Debug)]
pub(crate) struct Link(AsyncFd<OwnedFd>);

impl Idle {
    /// Makes two connected ends; the second one, as an fd, is for the next generation.
    pub(crate) fn pair() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = link::pair().map_err(|e| Error::os("no socket pair for the next generation", e))?;
        Ok((Self(ours), theirs))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a frame. It never waits, see [`Link::send`].
    pub(crate) fn send(&self, frame: &Frame, fds: &[BorrowedFd<'_>]) -> Result<()> {
        scm::send(self.0.as_fd(), &frame.encode()?, fds).map(drop).map_err(|e| lost(frame, e))
    }

    /// Blocks until a frame is there, for [`LINK_TIMEOUT`] at most.
    pub(crate) fn receive(&self) -> Result<(Frame, Vec<OwnedFd>)> {
        let waited = socket::wait(self.0.as_fd(), PollFlags::POLLIN, Instant::now() + LINK_TIMEOUT)
            .map_err(|e| Error::os("the handover link cannot be read", e))?;
        if !waited {
            return Err(Error::new(
                Kind::Timeout,
                format!("the previous generation said nothing for {LINK_TIMEOUT:?}"),
            ));
        }
        match link::receive(self.0.as_fd(), MAX_FRAME, MAX_FDS) {
            Ok(Some((bytes, fds))) => Ok((Frame::decode(&bytes)?, fds)),
            Ok(None) => Err(Error::new(Kind::Generation, "the previous generation closed the handover link")),
            Err(e) => Err(Error::os("the handover link cannot be read", e)),
        }
    }

    /// Makes a link for use in the runtime that we are in.
    pub(crate) fn into_link(self) -> Result<Link> {
        socket::register(self.0, Interest::READABLE)
            .map(Link)
            .map_err(|e| Error::os("the handover link cannot be watched", e))
    }
}

impl Link {
    /// Sends a frame. It never waits: frames are few and far smaller than the socket's buffer.
    pub(crate) fn send(&self, frame: &Frame) -> Result<()> {
        self.send_with(frame, &[])
    }

    /// Sends a frame with at most [`MAX_FDS`] fds. It never waits either: the kernel counts fds on
    /// their way only against `LimitNOFILE=`.
    pub(crate) fn send_with(&self, frame: &Frame, fds: &[BorrowedFd<'_>]) -> Result<()> {
        scm::send(self.as_fd(), &frame.encode()?, fds).map(drop).map_err(|e| lost(frame, e))
    }

    /// Sends the entries, in as many frames as they need.
    pub(crate) fn send_entries(&self, entries: &[(String, OwnedFd)]) -> Result<()> {
        for some in entries.chunks(MAX_NAMES) {
            let names = some.iter().map(|(name, _)| name.clone()).collect();
            let fds: Vec<_> = some.iter().map(|(_, fd)| fd.as_fd()).collect();
            self.send_with(&Frame::Entries { names }, &fds)?;
        }
        Ok(())
    }

    pub(crate) fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.as_fd().try_clone_to_owned().map_err(|e| Error::os("a handover link cannot be duplicated", e))
    }

    /// Receives the next frame and its fds; `None` when the other end is gone.
    ///
    /// # Cancel safety
    /// No frame is lost.
    pub(crate) async fn receive(&self) -> Result<Option<(Frame, Vec<OwnedFd>)>> {
        let received = self.0.async_io(Interest::READABLE, |fd| link::receive(fd.as_fd(), MAX_FRAME, MAX_FDS)).await;
        match received {
            Ok(Some((bytes, fds))) => Frame::decode(&bytes).map(|frame| Some((frame, fds))),
            Ok(None) => Ok(None),
            // The other end went with frames of ours unread: gone all the same.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(e) => Err(Error::os("the handover link cannot be read", e)),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn lost(frame: &Frame, error: io::Error) -> Error {
    Error::caused(Kind::Generation, format!("the other generation could not be told {frame:?}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Idle, Idle) {
        let (ours, theirs) = Idle::pair().unwrap();
        (ours, Idle::from_fd(theirs))
    }

    #[test]
    fn frames_bring_their_fds() {
        let (ours, theirs) = pair();
        let (read, write) = nix::unistd::pipe().unwrap();
        ours.send(&Frame::Ready, &[write.as_fd()]).unwrap();
        drop(write);
        let (frame, fds) = theirs.receive().unwrap();
        assert_eq!((frame, fds.len()), (Frame::Ready, 1));
        nix::unistd::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&read, &mut byte), Ok(1));
    }

    #[test]
    fn an_end_that_is_gone_is_told_from_a_silent_one() {
        let (ours, theirs) = pair();
        theirs.send(&Frame::Switched, &[]).unwrap();
        drop(theirs);
        assert_eq!(ours.receive().unwrap().0, Frame::Switched, "what it said before");
        let error = ours.receive().unwrap_err();
        assert!(error.is_generation(), "{error}");
        let error = ours.send(&Frame::Ready, &[]).unwrap_err();
        assert!(error.is_generation() && error.to_string().contains("Ready"), "{error}");
    }

    #[tokio::test]
    async fn a_peer_that_left_our_frames_unread_is_gone_and_no_error() {
        let (ours, theirs) = pair();
        let ours = ours.into_link().unwrap();
        ours.send(&Frame::Switch).unwrap();
        drop(theirs);
        assert!(ours.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn more_entries_than_one_frame_has_room_for_all_arrive() {
        let (ours, theirs) = pair();
        let (ours, theirs) = (ours.into_link().unwrap(), theirs.into_link().unwrap());
        let (read, _write) = nix::unistd::pipe().unwrap();
        let entry = |n: usize| (format!("{n}"), read.try_clone().unwrap());
        let entries: Vec<_> = (0..MAX_NAMES * 2 + 1).map(entry).collect();
        ours.send_entries(&entries).unwrap();
        drop(ours);
        let mut arrived = Vec::new();
        while let Some((Frame::Entries { names }, fds)) = theirs.receive().await.unwrap() {
            assert_eq!(names.len(), fds.len());
            arrived.extend(names);
        }
        assert!(arrived.iter().eq(entries.iter().map(|(name, _)| name)));
    }

    #[tokio::test]
    async fn dropped_receives_lose_no_frame() {
        let (ours, theirs) = pair();
        let ours = ours.into_link().unwrap();
        tokio::select! {
            biased;
            frame = ours.receive() => panic!("nothing was sent: {frame:?}"),
            () = tokio::task::yield_now() => {}
        }
        for frame in [Frame::Ready, Frame::Switched] {
            theirs.send(&frame, &[]).unwrap();
            assert_eq!(ours.receive().await.unwrap().map(|(frame, _)| frame), Some(frame));
        }
    }
}
