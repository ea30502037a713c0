//! Settings as one value, from a file and from the environment.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::duration;
use crate::error::{Error, Kind, Result};
use crate::service::signals::SignalMap;
use crate::systemd::environment::Environment;

/// What a variable's name begins with; the rest is the key, in capitals.
const PREFIX: &str = "HANDOVER_";

/// All timeouts, limits and policies of a service as one value: what is `None` was not said.
///
/// A call of the [`Builder`](crate::Builder) wins over these, whichever comes first. Of the environment and a file, let the environment
/// win: `Settings::from_env()?.over(Settings::from_toml(&text)?)`. Nothing is read that is not asked for.
///
/// Times are written as `"30s"`, `"500ms"` or `"1m 30s"`. A key or value that cannot be meant is an error that names it, and the line
/// that it is in; what works and is odd is a warning when the service starts. What cannot be seen from inside, such as a
/// `TimeoutStartSec=` below `ready_timeout`, is for the unit's linter, `handover check`. A `WatchdogSec=` below `ready_timeout` is no mistake:
/// while a next generation gets ready the old one pings, and on a first start systemd counts from `READY=1`.
///
/// | key | variable | default |
/// |---|---|---|
/// | `ready_timeout` | `HANDOVER_READY_TIMEOUT` | [30 s](super::READY_TIMEOUT) |
/// | `switch_timeout` | `HANDOVER_SWITCH_TIMEOUT` | [5 s](super::SWITCH_TIMEOUT) |
/// | `probation` | `HANDOVER_PROBATION` | [0](super::PROBATION) |
/// | `handover_timeout` | `HANDOVER_HANDOVER_TIMEOUT` | [10 s](super::HANDOVER_TIMEOUT) |
/// | `standby_timeout` | `HANDOVER_STANDBY_TIMEOUT` | [60 s](super::STANDBY_TIMEOUT) |
/// | `drain_timeout` | `HANDOVER_DRAIN_TIMEOUT` | [30 s](super::DRAIN_TIMEOUT) |
/// | `hurry_timeout` | `HANDOVER_HURRY_TIMEOUT` | [500 ms](super::HURRY_TIMEOUT) |
/// | `linger` | `HANDOVER_LINGER` | [5 s](super::LINGER) |
/// | `stop_linger` | `HANDOVER_STOP_LINGER` | [1 s](super::STOP_LINGER) |
/// | `hook_timeout` | `HANDOVER_HOOK_TIMEOUT` | [10 s](super::HOOK_TIMEOUT) |
/// | `max_draining` | `HANDOVER_MAX_DRAINING` | [8](super::MAX_DRAINING) |
/// | `signals` | `HANDOVER_SIGNALS` | `"default"`, of [`SignalMap::PRESETS`] |
/// | `pidfile` | `HANDOVER_PIDFILE` | none |
///
/// It is an ordinary serde type as well, for a table in a configuration of one's own:
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Config {
///     handover: handover::Settings,
/// }
/// let config: Config = serde_json::from_str(r#"{"handover": {"drain_timeout": "1m 30s"}}"#).unwrap();
/// assert_eq!(config.handover.drain_timeout, Some(std::time::Duration::from_secs(90)));
/// let builder = handover::Service::builder().settings(config.handover);
/// # drop(builder);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a next generation may take until it is ready.
    pub ready_timeout: Option<Duration>,
    /// How long a ready generation may take to confirm that it accepts.
    pub switch_timeout: Option<Duration>,
    /// How long a next generation serves under the eyes of the old one before it becomes main.
    pub probation: Option<Duration>,
    /// How long the service manager may take to read of its new main process.
    pub handover_timeout: Option<Duration>,
    /// How long a ready generation waits to be told to accept.
    pub standby_timeout: Option<Duration>,
    /// How long accepted work may take to finish before it is cut.
    pub drain_timeout: Option<Duration>,
    /// How long accepted work may take when a restart of the service waits for it.
    pub hurry_timeout: Option<Duration>,
    /// How long an idle connection is kept for one more request after a handover.
    pub linger: Option<Duration>,
    /// The same when the service stops.
    pub stop_linger: Option<Duration>,
    /// How long a hook may take that has no timeout of its own.
    pub hook_timeout: Option<Duration>,
    /// How many old generations may drain at once before the oldest is hammered.
    pub max_draining: Option<usize>,
    /// The name of one of [`SignalMap::PRESETS`].
    pub signals: Option<String>,
    /// See [`Builder::pidfile`](crate::Builder::pidfile).
    pub pidfile: Option<PathBuf>,
    /// What was odd where it was read.
    pub(crate) warnings: Vec<String>,
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    /// Something that no setting can be, by name.
    Other(&'static str),
}

impl Settings {
    pub(crate) const KEYS: [&str; 13] = [
        "ready_timeout",
        "switch_timeout",
        "probation",
        "handover_timeout",
        "standby_timeout",
        "drain_timeout",
        "hurry_timeout",
        "linger",
        "stop_linger",
        "hook_timeout",
        "max_draining",
        "signals",
        "pidfile",
    ];

    /// Those of the variables `HANDOVER_…`.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: a variable holds something that cannot be used. The message names all such variables.
    pub fn from_env() -> Result<Self> {
        Self::from_environment(&Environment::capture())
    }

    /// [`Settings::from_env`] of another environment.
    ///
    /// # Errors
    /// As there.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let (mut settings, mut mistakes) = (Self::default(), Vec::new());
        for (name, value) in environment.iter() {
            let Some(key) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(str::to_ascii_lowercase) else {
                continue;
            };
            let name = name.to_string_lossy();
            if !Self::KEYS.contains(&key.as_str()) {
                // Others have variables that begin so, too: not an error.
                if let Some(near) = nearest(&key, 2) {
                    let near = near.to_ascii_uppercase();
                    settings.warnings.push(format!("{name} is no setting; is {PREFIX}{near} meant?"));
                }
                continue;
            }
            let set = match value.to_str() {
                Some(value) => settings.set(&key, Value::Text(value.to_owned())),
                None => Err("is not UTF-8".into()),
            };
            if let Err(why) = set {
                mistakes.push(format!("{name}={:?} {why}", value.to_string_lossy()));
            }
        }
        report("the environment", &mistakes).map(|()| settings)
    }

    /// These where they say something, and the others elsewhere.
    #[must_use]
    pub fn over(self, others: Self) -> Self {
        Self {
            ready_timeout: self.ready_timeout.or(others.ready_timeout),
            switch_timeout: self.switch_timeout.or(others.switch_timeout),
            probation: self.probation.or(others.probation),
            handover_timeout: self.handover_timeout.or(others.handover_timeout),
            standby_timeout: self.standby_timeout.or(others.standby_timeout),
            drain_timeout: self.drain_timeout.or(others.drain_timeout),
            hurry_timeout: self.hurry_timeout.or(others.hurry_timeout),
            linger: self.linger.or(others.linger),
            stop_linger: self.stop_linger.or(others.stop_linger),
            hook_timeout: self.hook_timeout.or(others.hook_timeout),
            max_draining: self.max_draining.or(others.max_draining),
            signals: self.signals.or(others.signals),
            pidfile: self.pidfile.or(others.pidfile),
            warnings: [others.warnings, self.warnings].concat(),
        }
    }

    /// The error goes on from the key and its value.
    pub(crate) fn set(&mut self, key: &str, value: Value) -> Result<(), String> {
        match key {
            "max_draining" => self.max_draining = Some(count(value)?),
            "signals" => self.signals = Some(preset(value)?),
            "pidfile" => self.pidfile = Some(path(value)?),
            _ => {
                let Some(slot) = self.time(key) else { return Err(unknown(key)) };
                let time = match value {
                    Value::Text(text) => duration::parse(&text)?,
                    Value::Number(number) if number < 0 => {
                        return Err("is negative; write a time such as \"30s\"".into());
                    }
                    Value::Number(number) => {
                        return Err(format!(
                            "has no unit; for seconds write \"{number}s\", for milliseconds \"{number}ms\""
                        ));
                    }
                    Value::Other(kind) => return Err(format!("is {kind}; write a time such as \"30s\"")),
                };
                if let (true, Some(why)) = (time.is_zero(), super::why_not_zero(key)) {
                    return Err(why.into());
                }
                *slot = Some(time);
            }
        }
        Ok(())
    }

    fn time(&mut self, key: &str) -> Option<&mut Option<Duration>> {
        Some(match key {
            "ready_timeout" => &mut self.ready_timeout,
            "switch_timeout" => &mut self.switch_timeout,
            "probation" => &mut self.probation,
            "handover_timeout" => &mut self.handover_timeout,
            "standby_timeout" => &mut self.standby_timeout,
            "drain_timeout" => &mut self.drain_timeout,
            "hurry_timeout" => &mut self.hurry_timeout,
            "linger" => &mut self.linger,
            "stop_linger" => &mut self.stop_linger,
            "hook_timeout" => &mut self.hook_timeout,
            _ => return None,
        })
    }

    /// What was said, as it is read.
    fn said(&self) -> Vec<(&'static str, Value)> {
        let mut copy = self.clone();
        let mut said = Vec::new();
        for key in Self::KEYS {
            let value = match key {
                "max_draining" => self.max_draining.and_then(|n| i64::try_from(n).ok()).map(Value::Number),
                "signals" => self.signals.clone().map(Value::Text),
                "pidfile" => self.pidfile.as_ref().map(|p| Value::Text(p.display().to_string())),
                _ => copy.time(key).and_then(|time| Some(Value::Text(duration::show((*time)?)))),
            };
            said.extend(value.map(|value| (key, value)));
        }
        said
    }
}

/// All of them at once: nobody likes to find one after the other.
pub(crate) fn report(place: &str, mistakes: &[String]) -> Result<()> {
    match mistakes {
        [] => Ok(()),
        [one] => Err(Error::new(Kind::Invalid, format!("settings in {place}: {one}"))),
        more => {
            let (count, list) = (more.len(), more.join("; "));
            Err(Error::new(Kind::Invalid, format!("settings in {place}, {count} mistakes: {list}")))
        }
    }
}

pub(crate) fn unknown(key: &str) -> String {
    match nearest(key, 3) {
        Some(near) => format!("is no setting; is {near} meant?"),
        None => format!("is no setting; there are {}", Settings::KEYS.join(", ")),
    }
}

fn count(value: Value) -> Result<usize, String> {
    let number = match value {
        Value::Text(text) => text.trim().parse::<i64>().map_err(|_| "is no whole number; write one such as 8")?,
        Value::Number(number) => number,
        Value::Other(kind) => return Err(format!("is {kind}; write a whole number such as 8")),
    };
    match usize::try_from(number) {
        Ok(0) => Err("is 0, and the generation that hands over could not finish its requests; write 1 or more".into()),
        Ok(number) if number <= super::MOST_DRAINING => Ok(number),
        Ok(_) => Err(format!("is more than {}, and each is a whole process", super::MOST_DRAINING)),
        Err(_) => Err("is negative; write 1 or more".into()),
    }
}

fn preset(value: Value) -> Result<String, String> {
    let known = SignalMap::PRESETS.join(", ");
    match value {
        Value::Text(name) if SignalMap::preset(&name).is_some() => Ok(name),
        Value::Text(_) => Err(format!("is no preset; there are {known}")),
        Value::Number(_) => Err(format!("is a number; write one of {known}")),
        Value::Other(kind) => Err(format!("is {kind}; write one of {known}")),
    }
}

fn path(value: Value) -> Result<PathBuf, String> {
    match value {
        Value::Text(text) if text.is_empty() => Err("is empty; write a path such as \"/run/web.pid\"".into()),
        Value::Text(text) if !text.starts_with('/') => {
            Err("is relative to wherever the service was started; write a path such as \"/run/web.pid\"".into())
        }
        Value::Text(text) if text.ends_with('/') => Err("is a directory; write a path such as \"/run/web.pid\"".into()),
        Value::Text(text) => Ok(text.into()),
        Value::Number(_) => Err("is a number; write a path such as \"/run/web.pid\"".into()),
        Value::Other(kind) => Err(format!("is {kind}; write a path such as \"/run/web.pid\"")),
    }
}

/// The key that is so few edits away.
fn nearest(word: &str, edits: usize) -> Option<&'static str> {
    let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let word = plain(word);
    let far = |key: &str| distance(&word, &plain(key));
    Settings::KEYS.into_iter().map(|key| (far(key), key)).min().filter(|(far, _)| *far <= edits).map(|(_, key)| key)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, d) in b.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let said = self.said();
        let mut map = serializer.serialize_map(Some(said.len()))?;
        for (key, value) in said {
            match value {
                Value::Text(text) => map.serialize_entry(key, &text)?,
                Value::Number(number) => map.serialize_entry(key, &number)?,
                Value::Other(_) => {}
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Settings;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut settings = Settings::default();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value::<Value>()?;
                    settings.set(&key, value).map_err(|why| A::Error::custom(format!("{key} {why}")))?;
                }
                Ok(settings)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(match value {
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Number(number) => number.as_i64().map_or(Self::Other("no whole number"), Self::Number),
            serde_json::Value::Bool(_) => Self::Other("a boolean"),
            serde_json::Value::Array(_) => Self::Other("a list"),
            serde_json::Value::Object(_) => Self::Other("a table"),
            serde_json::Value::Null => Self::Other("nothing"),
        })
    }
}
