//! One connection as it travels.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::error::{Error, Kind, Result};
use crate::sys::memfd;
use crate::sys::secret::Secret;
use crate::wire::parcel::{Lengths, MAX_CONTENTS, MAX_INLINE, Record};

/// What a connection takes along, beside what its [`Record`] says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The head of the request that upgraded it.
    pub(crate) head: Vec<u8>,
    /// What the application gave with it, or its protocol has to know, as JSON.
    pub(crate) state: Vec<u8>,
    /// What was received and not used.
    pub(crate) unread: Vec<u8>,
    /// The state of its TLS, keys among it.
    pub(crate) tls: Secret,
}

/// A connection, and all that is known of it.
#[derive(Debug)]
pub(crate) struct Parcel {
    record: Record,
    fd: OwnedFd,
    contents: Contents,
    /// The contents, if they are too long for a message.
    memfd: Option<OwnedFd>,
}

/// One that cannot be packed, and why.
pub(crate) type Returned = Box<(Error, OwnedFd, Contents)>;

impl Contents {
    pub(crate) fn lengths(&self) -> Lengths {
        let (unread, tls) = (self.unread.len() + self.tls.len(), self.tls.len());
        Lengths { head: self.head.len(), state: self.state.len(), unread, tls }
    }

    /// Takes the parts out of bytes that are as long as the lengths say.
    pub(crate) fn from_bytes(lengths: Lengths, bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(lengths.head)?;
        let (state, rest) = rest.split_at_checked(lengths.state)?;
        let (unread, tls) = rest.split_at_checked(lengths.unread.checked_sub(lengths.tls)?)?;
        let whole = tls.len() == lengths.tls;
        whole.then(|| Self { head: head.into(), state: state.into(), unread: unread.into(), tls: tls.to_vec().into() })
    }

    fn write(&self, to: &mut Secret) {
        [&self.head[..], &self.state, &self.unread, &self.tls].into_iter().for_each(|part| to.extend(part));
    }

    fn to_bytes(&self) -> Secret {
        let mut bytes = Secret::default();
        self.write(&mut bytes);
        bytes
    }
}

impl Parcel {
    /// Packs it. The record's number and lengths are filled in here and when it is sent.
    ///
    /// # Errors
    /// Its contents are too long, or there is no memory for them; then the connection comes back.
    pub(crate) fn new(mut record: Record, fd: OwnedFd, contents: Contents) -> Result<Self, Returned> {
        record.contents = contents.lengths();
        let memfd = match record.contents.total() {
            None => {
                let why = format!("a connection has more than {MAX_CONTENTS} bytes to take along");
                return Err(Returned::new((Error::new(Kind::Invalid, why), fd, contents)));
            }
            Some(length) if length > MAX_INLINE => match memfd::sealed(c"handover-parcel", &contents.to_bytes()) {
                Ok(memfd) => Some(memfd),
                Err(e) => {
                    let error = Error::os("no memory file for a connection's contents", e);
                    return Err(Returned::new((error, fd, contents)));
                }
            },
            Some(_) => None,
        };
        record.memfd = memfd.is_some();
        Ok(Self { record, fd, contents, memfd })
    }

    /// Makes one of what has come.
    pub(super) fn received(record: Record, fd: OwnedFd, contents: Contents) -> Self {
        Self { record, fd, contents, memfd: None }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn number(&mut self, id: u64) {
        self.record.id = id;
    }

    pub(crate) fn into_parts(self) -> (Record, OwnedFd, Contents) {
        (self.record, self.fd, self.contents)
    }

    /// The bytes that it adds to a message, at most.
    pub(super) fn size(&self) -> usize {
        /// The JSON of a record but for its names, and some more.
        const RECORD: usize = 400;
        let names = self.record.listener.len() * 6 + self.record.protocol.len();
        RECORD + names + if self.memfd.is_some() { 0 } else { self.record.contents.total().unwrap_or(0) }
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.fd.as_fd()), self.memfd.as_ref().map(|memfd| memfd.as_fd())].into_iter().flatten()
    }

    pub(super) fn inline(&self, to: &mut Secret) {
        if self.memfd.is_none() {
            self.contents.write(to);
        }
    }
}

/// Reads contents that did not fit into the message.
pub(super) fn from_memfd(lengths: Lengths, memfd: OwnedFd) -> io::Result<Contents> {
    let bytes = Secret::from(memfd::read(memfd)?);
    Contents::from_bytes(lengths, &bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the contents are not as long as they should be"))
}
