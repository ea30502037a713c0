//! What a rule has to say.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::unit::{Place, Setting, Unit};
use crate::safe::short;

/// Characters of a value that are repeated to the reader; a line can have a million.
const LONGEST_VALUE: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Worth knowing
    Info,
    /// Costs something, or may
    Warning,
    /// Breaks a rolling reload, or is ignored by systemd
    Error,
}

impl Severity {
    /// One step down; information stays.
    pub(super) fn lowered(self) -> Self {
        match self {
            Self::Error => Self::Warning,
            Self::Warning | Self::Info => Self::Info,
        }
    }

    pub(super) fn letter(self) -> char {
        match self {
            Self::Error => 'E',
            Self::Warning => 'W',
            Self::Info => 'I',
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One place that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) place: Place,
    /// What is the case, in a few words; the rule says why that is bad.
    pub(super) message: String,
    pub(super) fix: Option<Fix>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// Lines for a drop-in, which a machine may write.
    Lines { section: &'static str, lines: Vec<String> },
    /// What only somebody can decide who knows the service.
    Advice(String),
    /// What was meant is said elsewhere: a line could go, and nothing would change.
    Tidy(String),
}

impl Finding {
    pub(super) fn at(setting: &Setting<'_>, message: impl Into<String>) -> Self {
        Self { place: setting.place(), message: message.into(), fix: None }
    }

    /// `Key=value` is the message.
    pub(super) fn of(setting: &Setting<'_>) -> Self {
        Self::at(setting, format!("{}={}", setting.key(), short(setting.value(), LONGEST_VALUE)))
    }

    /// Something is not there.
    pub(super) fn missing(unit: &Unit, section: &'static str, message: impl Into<String>) -> Self {
        Self { place: unit.header(section), message: message.into(), fix: None }
    }

    pub(super) fn on(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), fix: None }
    }

    /// A setting that overrides, or adds to a list.
    pub(super) fn set(self, section: &'static str, key: &str, value: &str) -> Self {
        self.lines(section, vec![format!("{key}={value}")])
    }

    /// A list that is begun anew.
    pub(super) fn replace(self, section: &'static str, key: &str, value: &str) -> Self {
        self.lines(section, vec![format!("{key}="), format!("{key}={value}")])
    }

    /// Back to the default.
    pub(super) fn reset(self, section: &'static str, key: &str) -> Self {
        self.lines(section, vec![format!("{key}=")])
    }

    pub(super) fn lines(self, section: &'static str, lines: Vec<String>) -> Self {
        Self { fix: Some(Fix::Lines { section, lines }), ..self }
    }

    pub(super) fn tidy(self, text: impl Into<String>) -> Self {
        Self { fix: Some(Fix::Tidy(text.into())), ..self }
    }

    pub(super) fn advice(self, text: impl Into<String>) -> Self {
        Self { fix: Some(Fix::Advice(text.into())), ..self }
    }
}

impl Fix {
    pub(super) fn is_tidying(&self) -> bool {
        matches!(self, Self::Tidy(_))
    }

    /// In one line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Lines { section, lines } => format!("[{section}] {}", lines.join(" ")),
            Self::Advice(text) | Self::Tidy(text) => text.clone(),
        }
    }
}
