//! The process environment as a value.

use std::ffi::{OsStr, OsString};
use std::fmt;

/// The environment of the process, read once.
///
/// Everything that systemd passes by variables is read from such a value: so one sees what a
/// program was started with, whatever else changes the environment later, and tests need not change
/// it at all.
///
/// ```
/// use handover::systemd::environment::Environment;
///
/// let environment = Environment::from_pairs([("NOTIFY_SOCKET", "/run/systemd/notify")]);
/// assert_eq!(environment.get("NOTIFY_SOCKET").unwrap(), "/run/systemd/notify");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the environment of this process. To be done first in `main`.
    #[must_use]
    pub fn capture() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// An environment of these variables. Of equal names the first one counts, as for getenv(3).
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str())
    }

    /// All variables, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

/// Names alone: a value may be a secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.iter().map(|(name, _)| name)).finish()
    }
}
