//! The one error type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;

/// Whatever a function of the application fails with: `?` makes it of every error, and
/// `Err("no".into())` of a text.
///
/// [Hooks](crate::service::hooks::Hook), the [check of the health](crate::Builder::health) and
/// [migrations](crate::state::State::migrate) return it; the log has it with all of its sources.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, in words that name the variable, path, fd, socket or unit, and what to do about
/// it.
///
/// The kind is opaque so that it can grow; ask with the `is_*` predicates. The text has the
/// underlying error of the operating system at its end, where there is one, and [`io`](Self::io)
/// returns it. So it is not the [`source`](std::error::Error::source), which whoever prints a chain
/// of errors would print once more: that is what the text does not have, the cause of that
/// underlying error.
///
/// Its `Debug` is made to be read, because `main() -> handover::Result<()>` prints it: the message,
/// and what it was caused by, as that of `anyhow` does. `{:#?}` shows the fields.
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

    pub(crate) fn caused(kind: Kind, message: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self { kind, message: message.into(), source: Some(source) }
    }

    pub(crate) fn os(message: impl Into<Cow<'static, str>>, source: impl Into<io::Error>) -> Self {
        Self::caused(Kind::Os, message, source.into())
    }

    /// Returns the underlying error of the operating system, if there is one: its
    /// [`kind`](io::Error::kind) tells a missing file from one that is not permitted.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()
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

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, message, source } = self;
        if f.alternate() {
            return f
                .debug_struct("Error")
                .field("kind", kind)
                .field("message", message)
                .field("source", source)
                .finish();
        }
        f.write_str(message)?;
        let mut cause = source.as_ref().map(|error| error as &dyn StdError);
        if cause.is_some() {
            f.write_str("\n\nCaused by:")?;
        }
        while let Some(error) = cause {
            write!(f, "\n    {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().and_then(StdError::source)
    }
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns the error's text with those of all its sources, on one line: for a log.
///
/// A source whose text the error has at its own end already, as those of many crates do, is not
/// said twice.
pub(crate) fn in_full(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<BoxError>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|error| error as _)
        }
    }

    fn refused() -> Error {
        let io = io::Error::other(Layer("the disk is gone", Some(Layer("cable", None).into())));
        Error::os("cannot bind 127.0.0.1:80", io)
    }

    #[test]
    fn what_main_prints_is_for_people() {
        let printed = format!("Error: {:?}", refused());
        assert_eq!(printed, "Error: cannot bind 127.0.0.1:80\n\nCaused by:\n    the disk is gone\n    cable");
        assert_eq!(format!("{:?}", Error::new(Kind::Socket, "no socket \"http\"")), "no socket \"http\"");
        assert!(format!("{:#?}", refused()).starts_with("Error {\n    kind: Os,"));
    }

    /// As `anyhow` and the like do.
    #[test]
    fn whoever_prints_the_chain_prints_each_once() {
        let error = refused();
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        assert_eq!(chain, ["cannot bind 127.0.0.1:80: the disk is gone", "cable"]);
        assert_eq!(error.io().map(io::Error::kind), Some(io::ErrorKind::Other));
        let plain = Error::os("cannot open /x", io::Error::from(io::ErrorKind::NotFound));
        assert!(plain.source().is_none() && plain.io().is_some_and(|e| e.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn a_log_has_all_sources_each_once() {
        assert_eq!(in_full(&refused()), "cannot bind 127.0.0.1:80: the disk is gone: cable");
        let wrapped = Layer("the check failed", Some(refused().into()));
        assert_eq!(in_full(&wrapped), "the check failed: cannot bind 127.0.0.1:80: the disk is gone: cable");
        let text: BoxError = "no".into();
        assert_eq!(in_full(&*text), "no");
    }
}
