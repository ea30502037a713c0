//! When a service that nobody needs ends by itself.

use std::fmt;
use std::time::Duration;

use super::duration;
use super::value::{Setting, SettingRow, SettingValue};
use crate::drain::FAR;

/// As it is written.
const NEVER: &str = "never";

/// After how long without anything to do a service exits, whose sockets systemd keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitOnIdle {
    /// It does not exit by itself.
    #[default]
    Never,
    /// After so long.
    After(Duration),
}

impl From<Duration> for ExitOnIdle {
    fn from(time: Duration) -> Self {
        Self::After(time)
    }
}

impl fmt::Display for ExitOnIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str(NEVER),
            Self::After(time) => f.write_str(&duration::show(*time)),
        }
    }
}

impl Setting for ExitOnIdle {
    const NUMBER: bool = true;

    fn such() -> String {
        "\"never\", or a time such as \"10m\"".into()
    }

    fn read(text: &str, row: &SettingRow) -> Result<Self, String> {
        if text.trim() == NEVER {
            return Ok(Self::Never);
        }
        let read = duration::parse(text).map(Self::After).map_err(|why| format!("{why}, or \"never\""))?;
        read.held(row)
    }

    fn held(self, _: &SettingRow) -> Result<Self, String> {
        match self {
            Self::After(Duration::ZERO) => {
                Err(format!("is 0, which would end a service that has just started; write {}", Self::such()))
            }
            Self::After(time) => Ok(Self::After(time.min(FAR))),
            Self::Never => Ok(self),
        }
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_or_a_time() {
        let row = SettingRow { key: "exit_on_idle", default: NEVER, zero: None };
        let read = |text| ExitOnIdle::read(text, &row);
        assert_eq!(read("never"), Ok(ExitOnIdle::Never));
        assert_eq!(read("1m 30s"), Ok(Duration::from_secs(90).into()));
        assert_eq!(ExitOnIdle::After(Duration::from_secs(90)).to_string(), "1m 30s");
        assert!(read("0s").unwrap_err().starts_with("is 0, which would end"), "{:?}", read("0s"));
        assert!(read("5").unwrap_err().ends_with("or \"never\""), "{:?}", read("5"));
    }
}
