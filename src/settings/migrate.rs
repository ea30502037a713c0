//! Which connections move.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::{Setting, SettingRow, SettingValue};
use crate::error::{Error, Kind, Result};

/// When established connections go to another process, rather than be finished where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Migrate {
    /// Never: a generation that hands over drains all that it has.
    Never,
    /// In a reload, to the next generation.
    #[default]
    Reload,
}

impl Migrate {
    const ALL: [(&str, Self); 2] = [("never", Self::Never), ("reload", Self::Reload)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("reload", |(name, _)| name)
    }
}

impl fmt::Display for Migrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads it as the settings have it: `never` or `reload`.
impl FromStr for Migrate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        known.ok_or_else(|| Error::new(Kind::Invalid, format!("{text:?} is neither; write {}", Self::such())))
    }
}

impl Setting for Migrate {
    fn such() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("one of {}", names.join(", "))
    }

    fn read(text: &str, _: &SettingRow) -> std::result::Result<Self, String> {
        text.parse().map_err(|_| format!("is neither; write {}", Self::such()))
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.name().into())
    }
}
