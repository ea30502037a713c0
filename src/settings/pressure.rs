//! Whether a drain is quicker where memory, processors, or input and output are short.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::migrate::named;
use super::value::{Setting, SettingRow, SettingValue};
use crate::error::{Error, Kind, Result};
use crate::systemd::pressure::Resource;

/// Under which pressure a generation that drains hurries. Each has what those before it have.
///
/// The service manager tells of it where the unit says so: `MemoryPressureWatch=on` (systemd 254),
/// `CPUPressureWatch=on` and `IOPressureWatch=on` (261).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HurryUnderPressure {
    /// Under none.
    #[default]
    Never,
    /// When memory is short.
    Memory,
    /// When processors, or input and output, are short, too.
    Any,
}

named!(HurryUnderPressure { "never" = Never, "memory" = Memory, "any" = Any });

impl HurryUnderPressure {
    /// Returns what may not be short.
    pub(crate) fn resources(self) -> &'static [Resource] {
        match self {
            Self::Never => &[],
            Self::Memory => &[Resource::Memory],
            Self::Any => &[Resource::Memory, Resource::Cpu, Resource::Io],
        }
    }
}
