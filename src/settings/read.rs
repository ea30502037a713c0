//! Settings from the environment and from any serde format, with a message for each mistake.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::table::Settings;
use super::value::{SettingRow, SettingValue};
use crate::error::{Error, Kind, Result};
use crate::systemd::environment::Environment;

/// What a variable's name begins with. The rest is the key, in capitals.
const PREFIX: &str = "HANDOVER_";

impl Settings {
    /// Reads the variables `HANDOVER_…`.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: a variable holds something that cannot be used. The message
    /// names all such variables.
    pub fn from_env() -> Result<Self> {
        Self::from_environment(&Environment::capture())
    }

    /// Reads the same variables of another environment.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let (mut settings, mut mistakes) = (Self::default(), Vec::new());
        for (name, value) in environment.iter() {
            let Some(key) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).map(str::to_ascii_lowercase) else {
                continue;
            };
            let (name, written) = (name.to_string_lossy(), value.to_string_lossy());
            match settings.set(&key, SettingValue::Text(written.clone().into_owned())) {
                // Other programs have variables that begin so, too. That is no error.
                None => settings.warnings.extend(
                    nearest(&key, 2)
                        .map(|near| format!("{name} is no setting; is {PREFIX}{} meant?", near.to_ascii_uppercase())),
                ),
                Some(_) if value.to_str().is_none() => mistakes.push(format!("{name}={written:?} is not UTF-8")),
                Some(Err(why)) => mistakes.push(format!("{name}={written:?} {why}")),
                Some(Ok(())) => {}
            }
        }
        report("the environment", &mistakes).map(|()| settings)
    }
}

/// Fails if there are mistakes, with all of them at once: nobody likes to find one after the other.
pub(super) fn report(place: &str, mistakes: &[String]) -> Result<()> {
    if mistakes.is_empty() { Ok(()) } else { Err(mistake(place, mistakes)) }
}

pub(super) fn mistake(place: &str, mistakes: &[String]) -> Error {
    let place = match mistakes.len() {
        1 => place.to_owned(),
        count => format!("{place}, {count} mistakes"),
    };
    Error::new(Kind::Invalid, format!("settings in {place}: {}", mistakes.join("; ")))
}

/// Says of a key that is no setting what may be meant. It goes on from the key.
pub(super) fn unknown(key: &str) -> String {
    match nearest(key, 3) {
        Some(near) => format!("is no setting; is {near} meant?"),
        None => {
            let keys: Vec<_> = SettingRow::ALL.iter().map(|row| row.key).collect();
            format!("is no setting; there are {}", keys.join(", "))
        }
    }
}

/// Finds the key that is nearest to a word, at most so many edits away.
fn nearest(word: &str, edits: usize) -> Option<&'static str> {
    let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let word = plain(word);
    let far = |key: &str| distance(&word, &plain(key));
    let nearest = SettingRow::ALL.iter().map(|row| (far(row.key), row.key)).min();
    nearest.filter(|(far, _)| *far <= edits).map(|(_, key)| key)
}

/// Counts the edits between two words, after Levenshtein.
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
        let mut map = serializer.serialize_map(Some(self.said().count()))?;
        for (SettingRow { key, .. }, value) in self.said() {
            match value {
                SettingValue::Number(number) => map.serialize_entry(key, &number)?,
                value => map.serialize_entry(key, &value.to_string())?,
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
                    let value = map.next_value::<SettingValue>()?;
                    let set = settings.set(&key, value).unwrap_or_else(|| Err(unknown(&key)));
                    set.map_err(|why| A::Error::custom(format!("{key} {why}")))?;
                }
                Ok(settings)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for SettingValue {
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
