//! The one error type.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// What went wrong, in words that name the variable, path, fd, socket or unit, and what to do about
/// it.
///
/// The kind is opaque so that it can grow; ask with the `is_*` predicates. The underlying
/// operating-system error, where there is one, is the [`source`](std::error::Error::source).
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A variable, argument or setting holds something that cannot be used.
    Invalid,
    /// A socket name that nobody passed and no address was given for, or that was claimed twice.
    Socket,
    /// The service manager could not be told.
    Notify,
    /// The manager's fd store has no room, or not for this.
    Store,
    /// The next generation could not be started, or gave up.
    Generation,
    /// The peer at the other end of the handover does not speak our protocol.
    Protocol,
    /// A deadline passed.
    Timeout,
    /// The call came too late or in the wrong state: the service is stopping, or another generation
    /// is main.
    State,
    /// A new program could not be fetched.
    Fetch,
    /// A new program is not what it should be.
    Candidate,
    /// The operating system refused.
    Os,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn io(kind: Kind, message: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self { kind, message: message.into(), source: Some(source) }
    }

    pub(crate) fn os(message: impl Into<Cow<'static, str>>, source: impl Into<io::Error>) -> Self {
        Self::io(Kind::Os, message, source.into())
    }

    /// A variable, argument or setting holds something that cannot be used.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.kind == Kind::Invalid
    }

    /// A socket is missing, of another kind than asked for, or was claimed twice.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// The service manager could not be told. "There is no service manager" is *not* an error.
    #[must_use]
    pub fn is_notify(&self) -> bool {
        self.kind == Kind::Notify
    }

    /// The service manager's fd store has no room for it (`FileDescriptorStoreMax=`), or cannot
    /// keep it. "There is no fd store" is *not* an error.
    #[must_use]
    pub fn is_store(&self) -> bool {
        self.kind == Kind::Store
    }

    /// The next generation could not be started, ended too early, or said that it failed.
    #[must_use]
    pub fn is_generation(&self) -> bool {
        self.kind == Kind::Generation
    }

    /// The other end of a handover sent something that this version cannot read.
    #[must_use]
    pub fn is_protocol(&self) -> bool {
        self.kind == Kind::Protocol
    }

    /// A deadline passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::Timeout
    }

    /// The service is in a state in which this cannot be done, for example stopping.
    #[must_use]
    pub fn is_state(&self) -> bool {
        self.kind == Kind::State
    }

    /// A new program could not be fetched: nothing has changed.
    #[must_use]
    pub fn is_fetch(&self) -> bool {
        self.kind == Kind::Fetch
    }

    /// A new program is not what it should be (its signature, checksum, size, format, or its own
    /// check): nothing has changed.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.kind == Kind::Candidate
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
