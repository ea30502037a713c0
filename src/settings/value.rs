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
/// A time that is longer than this is odd.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the table says of a setting.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name of the setting.
    pub(crate) key: &'static str,
    /// The default as it is written in a file; empty if there is none.
    pub(crate) default: &'static str,
    /// What would come of a 0. `None`: it may be 0.
    pub(crate) zero: Option<&'static str>,
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    /// Something that no setting can be, by name.
    Other(&'static str),
}

impl Value {
    /// Reads it as the setting of this row.
    pub(super) fn read_into<T: Setting>(self, setting: &mut Option<T>, row: &Row) -> Result<(), String> {
        *setting = Some(T::read(self, row)?);
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

/// A type that a setting can have.
pub(crate) trait Setting {
    /// Takes what was written. The error goes on from the key and the value.
    fn read(value: Value, row: &Row) -> Result<Self, String>
    where
        Self: Sized;

    /// Takes what a call or a file said as what holds. The error goes on from the key.
    fn held(self, row: &Row) -> Result<Self, String>
    where
        Self: Sized;

    /// Writes it so that [`Setting::read`] can read it.
    fn written(&self) -> Value;

    /// Writes it for people, once it holds.
    fn shown(&self) -> Value {
        self.written()
    }

    /// Says what is odd about it, going on from the key.
    fn odd(&self) -> Option<String> {
        None
    }
}

impl Setting for Duration {
    fn read(value: Value, row: &Row) -> Result<Self, String> {
        match value {
            Value::Other(kind) => Err(format!("is {kind}; write a time such as \"30s\"")),
            // A number is a time without a unit, which is said in the same words.
            written => not_zero(duration::parse(&written.to_string())?, row),
        }
    }

    fn held(self, row: &Row) -> Result<Self, String> {
        not_zero(self, row).map(|time| time.min(FAR))
    }

    fn written(&self) -> Value {
        Value::Text(duration::show(*self))
    }

    fn shown(&self) -> Value {
        if *self == FAR { Value::Text("for ever".into()) } else { self.written() }
    }

    fn odd(&self) -> Option<String> {
        (*self > A_DAY && *self < FAR).then(|| format!("is {}, longer than a day", duration::show(*self)))
    }
}

fn not_zero(time: Duration, row: &Row) -> Result<Duration, String> {
    match row.zero {
        Some(why) if time.is_zero() => Err(format!("is 0, which {why}; write a time such as {:?}", row.default)),
        _ => Ok(time),
    }
}

impl Setting for usize {
    fn read(value: Value, row: &Row) -> Result<Self, String> {
        let number = match value {
            Value::Text(text) => {
                text.trim().parse().map_err(|_| format!("is no whole number; write one such as {}", row.default))?
            }
            Value::Number(number) => number,
            Value::Other(kind) => return Err(format!("is {kind}; write a whole number such as {}", row.default)),
        };
        match (Self::try_from(number), row.zero) {
            (Ok(0), Some(why)) => Err(format!("is 0, and {why}; write 1 or more")),
            (Ok(number), _) if number <= MOST_DRAINING => Ok(number),
            (Ok(_), _) => Err(format!("is more than {MOST_DRAINING}, and each is a whole process")),
            (Err(_), _) => Err("is negative; write 1 or more".into()),
        }
    }

    fn held(self, row: &Row) -> Result<Self, String> {
        match row.zero {
            Some(why) if self == 0 => Err(format!("is 0: {why}; give it 1 or more")),
            _ => Ok(self),
        }
    }

    fn written(&self) -> Value {
        Value::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

/// The name of a preset of signals.
impl Setting for String {
    fn read(value: Value, _: &Row) -> Result<Self, String> {
        let known = SignalMap::PRESETS.join(", ");
        match value {
            Value::Text(name) if SignalMap::preset(&name).is_some() => Ok(name),
            Value::Text(_) => Err(format!("is no preset; there are {known}")),
            Value::Number(_) => Err(format!("is a number; write one of {known}")),
            Value::Other(kind) => Err(format!("is {kind}; write one of {known}")),
        }
    }

    fn held(self, row: &Row) -> Result<Self, String> {
        Self::read(Value::Text(self.clone()), row).map_err(|why| format!("{self:?} {why}"))
    }

    fn written(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Setting for PathBuf {
    fn read(value: Value, _: &Row) -> Result<Self, String> {
        let why = match value {
            Value::Text(text) if text.is_empty() => "is empty".into(),
            Value::Text(text) if !text.starts_with('/') => "is relative to wherever the service was started".into(),
            Value::Text(text) if text.ends_with('/') => "is a directory".into(),
            Value::Text(text) => return Ok(text.into()),
            Value::Number(_) => "is a number".into(),
            Value::Other(kind) => format!("is {kind}"),
        };
        Err(format!("{why}; write a path such as \"/run/web.pid\""))
    }

    fn held(self, _: &Row) -> Result<Self, String> {
        Ok(self)
    }

    fn written(&self) -> Value {
        Value::Text(self.display().to_string())
    }
}
