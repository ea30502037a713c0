//! Which connections go to another process, and what a stop means for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::{Setting, SettingRow, SettingValue};
use crate::error::{Error, Kind, Result};

/// When established connections go to another process, rather than be finished where they are. Each
/// has what those before it have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Migrate {
    /// Never: a generation that hands over drains all that it has.
    Never,
    /// In a reload, to the next generation.
    #[default]
    Reload,
    /// In a restart of the service, too: they wait in systemd's fd store for the next start. See
    /// [`docs::migration`](crate::docs::migration).
    Restart,
    /// After a crash, too: a copy of each connection of HTTP/1 without TLS is in the fd store
    /// always, and those that were between two requests are served on by the next start. See
    /// [`docs::migration`](crate::docs::migration).
    Crash,
}

/// How it is found out whether a stop is the first half of a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KeepOnStop {
    /// The service manager is asked what follows. Where it cannot be, it is a plain stop.
    #[default]
    Ask,
    /// Nobody is asked: each stop keeps the connections, for a start that may never come.
    Always,
}

/// Makes a setting of an enum whose values have names.
macro_rules! named {
    ($type:ident { $($name:literal = $value:ident),+ }) => {
        impl $type {
            const ALL: &[(&str, Self)] = &[$(($name, Self::$value)),+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        /// Reads it as the settings have it.
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let known = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
                known.ok_or_else(|| Error::new(Kind::Invalid, format!("{text:?} is none; write {}", Self::such())))
            }
        }

        impl Setting for $type {
            fn such() -> String {
                let names: Vec<_> = Self::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
                format!("one of {}", names.join(", "))
            }

            fn read(text: &str, _: &SettingRow) -> std::result::Result<Self, String> {
                text.parse().map_err(|_| format!("is none; write {}", Self::such()))
            }

            fn value(&self) -> SettingValue {
                SettingValue::Text(self.name().into())
            }
        }
    };
}

pub(super) use named;

named!(Migrate { "never" = Never, "reload" = Reload, "restart" = Restart, "crash" = Crash });
named!(KeepOnStop { "ask" = Ask, "always" = Always });
