//! Which of the passed fds are the store's, by their names.

use crate::systemd::fdstore::entry::Polling;
use crate::wire::store::{INSURED, MAILBOX, RESERVED};

/// Which of the passed names are entries of the fd store.
///
/// systemd passes stored fds beside those of the .socket units, and only the names tell which is
/// which. Names that begin with `handover.` are always the store's.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Names {
    rules: Vec<Rule>,
}

/// Names that are the store's.
#[derive(Debug, Clone)]
struct Rule {
    name: String,
    covers: Covers,
    polling: Polling,
}

#[derive(Debug, Clone, Copy)]
enum Covers {
    /// The rule is for the one name.
    Name,
    /// The rule is for all names that begin with it.
    Prefix,
}

impl Rule {
    fn covers(&self, name: &str) -> bool {
        match self.covers {
            Covers::Name => name == self.name,
            Covers::Prefix => name.starts_with(&self.name),
        }
    }
}

impl Names {
    /// Claims no names but handover's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims one more name.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.rule(name, Covers::Name, Polling::On)
    }

    /// Claims all names that begin so.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.rule(prefix, Covers::Prefix, Polling::On)
    }

    /// Claims one more name, of fds that are kept also when they hang up: see
    /// [`FdStore::put_unpolled`](super::FdStore::put_unpolled).
    pub fn unpolled(self, name: impl Into<String>) -> Self {
        self.rule(name, Covers::Name, Polling::Off)
    }

    fn rule(mut self, name: impl Into<String>, covers: Covers, polling: Polling) -> Self {
        self.rules.push(Rule { name: name.into(), covers, polling });
        self
    }

    /// Tells how systemd treats the fds of a name; `None`: the name is not the store's.
    pub(super) fn find(&self, name: &str) -> Option<Polling> {
        let rule = self.rules.iter().find(|rule| rule.covers(name)).map(|rule| rule.polling);
        rule.or_else(|| match name {
            // Its other end is gone, as nobody puts anything in any more.
            MAILBOX => Some(Polling::Off),
            // So is theirs after a crash.
            name if name.starts_with(INSURED) => Some(Polling::Off),
            _ => name.starts_with(RESERVED).then_some(Polling::On),
        })
    }
}
