//! The types that settings have: how each is read, checked and written.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use super::signals::SignalMap;
use crate::drain::FAR;
use crate::error::Result;

/// The highest `max_draining`: each is a process, and a link to each comes beside one message.
const MOST_DRAINING: usize = 128;

/// What the table says of a setting.
#[derive(Debug)]
pub(crate) struct SettingRow {
    /// The name of the setting.
    pub(crate) key: &'static str,
    /// The default as it is written in a file; empty if there is none.
    pub(crate) default: &'static str,
    /// What would come of a 0. `None`: it may be 0.
    pub(crate) zero: Option<&'static str>,
}

/// A value as it was written, or as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SettingValue {
    Text(String),
    Number(i64),
    Time(Duration),
    /// Something that no setting can be, by name.
    Other(&'static str),
}

impl SettingValue {
    /// Reads it as the setting of this row. The error goes on from the key and the value.
    pub(super) fn read<T: Setting>(self, setting: &mut Option<T>, row: &SettingRow) -> Result<(), String> {
        let wrong = match self {
            Self::Other(kind) => Some(kind),
            Self::Number(_) => (!T::NUMBER).then_some("a number"),
            Self::Text(_) | Self::Time(_) => None,
        };
        if let Some(kind) = wrong {
            return Err(format!("is {kind}; write {}", T::such()));
        }
        *setting = Some(T::read(&self.to_string(), row)?);
        Ok(())
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Time(time) => f.write_str(&duration::show(*time)),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// Whether it may be written as a number. One without a unit is told so by [`Setting::read`].
    const NUMBER: bool = false;

    /// Gives an example of what can be written.
    fn such() -> String;

    /// Reads what was written. The error goes on from the key and the value.
    fn read(text: &str, row: &SettingRow) -> Result<Self, String>;

    /// Takes what was said as what holds. The error goes on from the key.
    fn held(self, _: &SettingRow) -> Result<Self, String> {
        Ok(self)
    }

    /// Writes it as [`Setting::read`] reads it.
    fn value(&self) -> SettingValue;
}

impl Setting for Duration {
    const NUMBER: bool = true;

    fn such() -> String {
        "a time such as \"30s\"".into()
    }

    fn read(text: &str, row: &SettingRow) -> Result<Self, String> {
        let time = duration::parse(text)?;
        time.held(row).map(|_| time)
    }

    /// Makes "for ever" a time that can be added to any other.
    fn held(self, row: &SettingRow) -> Result<Self, String> {
        match row.zero {
            Some(why) if self.is_zero() => Err(format!("is 0, which {why}; write a time such as {:?}", row.default)),
            _ => Ok(self.min(FAR)),
        }
    }

    fn value(&self) -> SettingValue {
        SettingValue::Time(*self)
    }
}

impl Setting for usize {
    const NUMBER: bool = true;

    fn such() -> String {
        "a whole number such as 8".into()
    }

    fn read(text: &str, row: &SettingRow) -> Result<Self, String> {
        let number: i64 = text.trim().parse().map_err(|_| "is no whole number; write one such as 8")?;
        match (Self::try_from(number), row.zero) {
            (Ok(0), Some(why)) => Err(format!("is 0, and {why}; write 1 or more")),
            (Ok(number), _) if number <= MOST_DRAINING => Ok(number),
            (Ok(_), _) => Err(format!("is more than {MOST_DRAINING}, and each is a whole process")),
            (Err(_), _) => Err("is negative; write 1 or more".into()),
        }
    }

    fn held(self, row: &SettingRow) -> Result<Self, String> {
        match row.zero {
            Some(why) if self == 0 => Err(format!("is 0: {why}; give it 1 or more")),
            _ => Ok(self),
        }
    }

    fn value(&self) -> SettingValue {
        SettingValue::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

/// The name of a preset of signals.
impl Setting for String {
    fn such() -> String {
        format!("one of {}", SignalMap::PRESETS.join(", "))
    }

    fn read(name: &str, _: &SettingRow) -> Result<Self, String> {
        let known = SignalMap::preset(name).map(|_| name.to_owned());
        known.ok_or_else(|| format!("is no preset; there are {}", SignalMap::PRESETS.join(", ")))
    }

    fn held(self, row: &SettingRow) -> Result<Self, String> {
        Self::read(&self, row).map_err(|why| format!("{self:?} {why}"))
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.clone())
    }
}

impl Setting for PathBuf {
    fn such() -> String {
        "a path such as \"/run/web.pid\"".into()
    }

    fn read(path: &str, _: &SettingRow) -> Result<Self, String> {
        let why = match path {
            "" => "is empty",
            path if !path.starts_with('/') => "is relative to wherever the service was started",
            path if path.ends_with('/') => "is a directory",
            path => return Ok(path.into()),
        };
        Err(format!("{why}; write {}", Self::such()))
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.display().to_string())
    }
}
