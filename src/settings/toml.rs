//! Settings from a TOML file, with the line of every mistake.

use ::toml::de::{DeTable, DeValue};

use super::read::{mistake, report, unknown};
use super::table::Settings;
use super::value::SettingValue;
use crate::error::Result;

impl Settings {
    /// Reads a TOML document.
    ///
    /// ```
    /// use handover::Settings;
    ///
    /// let settings = Settings::from_toml("drain_timeout = \"1m\"\nsignals = \"nginx\"\n")?;
    /// let error = Settings::from_toml("drain_timeout = 60\n").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "settings in TOML: line 1: drain_timeout = 60 has no unit; \
    ///      for seconds write \"60s\", for milliseconds \"60ms\""
    /// );
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Errors
    /// With [`Error::is_invalid`](crate::Error::is_invalid): the document cannot be read, has a key
    /// that is no setting, or a value that cannot be meant. The message has all mistakes, each with
    /// its line.
    pub fn from_toml(text: &str) -> Result<Self> {
        let line_of = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            mistake("TOML", &[format!("line {line}: {}", error.message())])
        })?;
        let mut entries: Vec<_> = table.into_inner().into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let (mut settings, mut mistakes) = (Self::default(), Vec::new());
        for (key, value) in entries {
            let line = line_of(key.span().start);
            let written = text.get(value.span()).and_then(|v| v.lines().next()).unwrap_or_default().to_owned();
            let key = key.into_inner();
            let value = match value.into_inner() {
                DeValue::String(text) => SettingValue::Text(text.into_owned()),
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .map_or(SettingValue::Other("a number out of all bounds"), SettingValue::Number),
                DeValue::Float(_) => SettingValue::Other("a fraction"),
                DeValue::Boolean(_) => SettingValue::Other("a boolean"),
                DeValue::Datetime(_) => SettingValue::Other("a date"),
                DeValue::Array(_) => SettingValue::Other("a list"),
                DeValue::Table(_) => SettingValue::Other("a table"),
            };
            match settings.set(&key, value) {
                None => mistakes.push(format!("line {line}: {key} {}", unknown(&key))),
                Some(Err(why)) => mistakes.push(format!("line {line}: {key} = {written} {why}")),
                Some(Ok(())) => {}
            }
        }
        report("TOML", &mistakes).map(|()| settings)
    }
}
