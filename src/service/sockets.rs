//! The sockets of this generation: what the application uses, and what the next generation gets.

use std::os::fd::{AsFd as _, OwnedFd};

use crate::error::{Error, Kind, Result};
use crate::systemd::activation::{Activation, Listener, bind};

/// A name that the application declared, with an address for when nobody passes a socket of that name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) address: Option<String>,
}

#[derive(Debug)]
struct Kept {
    name: String,
    listeners: Vec<Listener>,
    taken: bool,
}

/// Owns every listening socket for as long as the generation lives, so that the next one can have it.
#[derive(Debug)]
pub(crate) struct Sockets {
    activation: Activation,
    kept: Vec<Kept>,
}

impl Sockets {
    pub(crate) fn open(mut activation: Activation, wanted: &[Wanted]) -> Result<Self> {
        let mut kept: Vec<Kept> = Vec::new();
        for Wanted { name, address } in wanted {
            if kept.iter().any(|k| k.name == *name) {
                return Err(Error::new(Kind::Invalid, format!("the socket name {name:?} was declared twice")));
            }
            let passed = activation.names().iter().any(|n| n == name);
            let listeners = match address {
                Some(address) if !passed => bind(address)?,
                _ => activation.listeners(name)?,
            };
            kept.push(Kept { name: name.clone(), listeners, taken: false });
        }
        Ok(Self { activation, kept })
    }

    /// For the application, once per name.
    pub(crate) fn take(&mut self, name: &str) -> Result<Vec<Listener>> {
        let at = match self.kept.iter().position(|k| k.name == name) {
            Some(at) => at,
            None => {
                let listeners = self.activation.listeners(name)?;
                self.kept.push(Kept { name: name.to_owned(), listeners, taken: false });
                self.kept.len() - 1
            }
        };
        let kept = &mut self.kept[at];
        if kept.taken {
            return Err(Error::new(
                Kind::Socket,
                format!("the sockets named {name:?} are in use already: each name can be served once"),
            ));
        }
        let copies = kept.listeners.iter().map(Listener::try_clone).collect::<Result<_>>()?;
        kept.taken = true;
        Ok(copies)
    }

    /// Closes what nobody asked for; its names are for the log.
    pub(crate) fn close_unclaimed(&mut self) -> Vec<String> {
        self.activation.close_unclaimed()
    }

    /// Copies for the next generation.
    pub(crate) fn estate(&self) -> Result<Vec<(String, OwnedFd)>> {
        let mut fds = Vec::new();
        for kept in &self.kept {
            for listener in &kept.listeners {
                let fd = listener.as_fd().try_clone_to_owned().map_err(|e| {
                    Error::os(format!("the socket {:?} cannot be duplicated (LimitNOFILE=)", kept.name), e)
                })?;
                fds.push((kept.name.clone(), fd));
            }
        }
        Ok(fds)
    }
}
