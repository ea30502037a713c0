//! What a rule has to say.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::unit::{Place, Setting, Unit};
use crate::safe::short;

/// Characters of a value that are repeated to the reader; a line can have a million.
const LONGEST_VALUE: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
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
    Lines { section: String, lines: Vec<String> },
    /// What only somebody can decide who knows the service.
    Advice(String),
    /// A line could go, and nothing would change: what was meant is said elsewhere, or the target
    /// ignores it and does well without.
    Tidy(String),
}

impl Finding {
    /// A setting is there: `Key=value` is the message.
    pub(super) fn of(setting: &Setting<'_>) -> Self {
        Self::at(setting, format!("{}={}", setting.key(), short(setting.value(), LONGEST_VALUE)))
    }

    /// A setting is there, of which more can be said.
    pub(super) fn at(setting: &Setting<'_>, message: impl Into<String>) -> Self {
        Self::on(setting.place(), message)
    }

    /// A setting is not there.
    pub(super) fn missing(unit: &Unit, section: &str, message: impl Into<String>) -> Self {
        Self::on(unit.header(section), message)
    }

    pub(super) fn on(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), fix: None }
    }

    /// Goes on after what the message says so far.
    pub(super) fn but(self, more: impl fmt::Display) -> Self {
        Self { message: format!("{}{more}", self.message), ..self }
    }

    /// The drop-in says something else of this setting; where it is empty, the default holds.
    pub(super) fn instead(self, value: &str) -> Self {
        self.again(&[value])
    }

    /// The drop-in begins this list anew.
    pub(super) fn anew(self, value: &str) -> Self {
        self.again(&["", value])
    }

    fn again(self, values: &[&str]) -> Self {
        let Place { section, key, .. } = self.place.clone();
        let key = key.unwrap_or_default();
        self.lines(&section, values.iter().map(|value| format!("{key}={value}")))
    }

    /// The drop-in sets something, or adds to a list.
    pub(super) fn set(self, section: &str, key: &str, value: impl fmt::Display) -> Self {
        self.lines(section, [format!("{key}={value}")])
    }

    pub(super) fn lines<L: Into<String>>(self, section: &str, lines: impl IntoIterator<Item = L>) -> Self {
        let lines = lines.into_iter().map(L::into).collect();
        Self { fix: Some(Fix::Lines { section: section.to_owned(), lines }), ..self }
    }

    pub(super) fn tidy(self, text: impl Into<String>) -> Self {
        Self { fix: Some(Fix::Tidy(text.into())), ..self }
    }

    pub(super) fn advice(self, text: impl Into<String>) -> Self {
        Self { fix: Some(Fix::Advice(text.into())), ..self }
    }
}

impl Fix {
    /// In one line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Lines { section, lines } => format!("[{section}] {}", lines.join(" ")),
            Self::Advice(text) | Self::Tidy(text) => text.clone(),
        }
    }
}
