//! The sockets that a service asks for by name.

use crate::error::{Error, Kind, Result};
use crate::systemd::bind::Form;

/// A name that was asked for, with an address for when nobody passes a socket of that name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// `None`: the sockets must be passed in, and may be of any kind.
    pub(crate) address: Option<(Form, String)>,
}

impl Wanted {
    /// Refuses a name that was asked for twice.
    pub(crate) fn check(wanted: &[Self]) -> Result<()> {
        for (at, Self { name, .. }) in wanted.iter().enumerate() {
            if wanted[..at].iter().any(|before| before.name == *name) {
                return Err(Error::new(Kind::Invalid, format!("the socket name {name:?} was declared twice")));
            }
        }
        Ok(())
    }
}

/// Makes the methods of a builder that ask for sockets. It has a field `wanted`. The docs that are
/// given are those of `listen`.
macro_rules! listen_methods {
    ($(#[$listen:meta])*) => {
        $(#[$listen])*
        pub fn listen(self, name: impl Into<String>, address: impl Into<String>) -> Self {
            self.want(name.into(), Some((Form::Stream, address.into())))
        }

        /// Listens as [`listen`](Self::listen) does, for datagrams: UDP or, with a path or `@name`,
        /// a Unix socket. See [`bind_datagram`](crate::systemd::activation::bind_datagram).
        pub fn listen_datagram(self, name: impl Into<String>, address: impl Into<String>) -> Self {
            self.want(name.into(), Some((Form::Datagram, address.into())))
        }

        /// Listens as [`listen`](Self::listen) does, at a Unix socket that keeps packets apart. See
        /// [`bind_seqpacket`](crate::systemd::activation::bind_seqpacket).
        pub fn listen_seqpacket(self, name: impl Into<String>, address: impl Into<String>) -> Self {
            self.want(name.into(), Some((Form::Seqpacket, address.into())))
        }

        /// Asks for sockets, or other fds, that must be passed in: there is no start without them.
        pub fn socket(self, name: impl Into<String>) -> Self {
            self.want(name.into(), None)
        }

        fn want(mut self, name: String, address: Option<(Form, String)>) -> Self {
            self.wanted.push(Wanted { name, address });
            self
        }
    };
}
pub(crate) use listen_methods;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once() {
        let named = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| Wanted { name: (*name).to_owned(), address: None }).collect()
        };
        assert!(Wanted::check(&named(&["http", "admin"])).is_ok());
        let error = Wanted::check(&named(&["http", "admin", "http"])).unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(error.to_string(), "the socket name \"http\" was declared twice");
    }
}
