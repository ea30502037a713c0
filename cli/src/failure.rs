//! What a command ends with. The exit codes are an interface, which `after_help.txt` describes.

use std::fmt;
use std::process::ExitCode;

/// A command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Bad,
}

/// A command that could not go on.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    rolled_back: bool,
}

impl Failure {
    const INTERRUPTED: u8 = 130;

    fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), rolled_back: false }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::with_code(1, message)
    }

    /// As [`failed`](Self::failed), and it is certain that the next generation is to blame and that
    /// the service serves on.
    pub(crate) fn rolled_back(message: impl Into<String>) -> Self {
        Self { rolled_back: true, ..Self::failed(message) }
    }

    pub(crate) fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// In one word, for programs.
    pub(crate) fn word(&self) -> &'static str {
        match self.code {
            1 if self.rolled_back => "rolled_back",
            1 => "unknown",
            Self::INTERRUPTED => "interrupted",
            _ => "not_possible",
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with_code(2, message)
    }

    pub(crate) fn cannot_run(message: impl Into<String>) -> Self {
        Self::with_code(3, message)
    }

    /// The same with the exit code of a wrong command line, but for an interruption.
    pub(crate) fn into_usage(mut self) -> Self {
        if self.code != Self::INTERRUPTED {
            self.code = 2;
        }
        self
    }

    /// Adds what helps to find the reason; not to an interruption, whose reason is known.
    pub(crate) fn with(mut self, text: &str) -> Self {
        if self.code != Self::INTERRUPTED {
            self.message = format!("{}\n{text}", self.message);
        }
        self
    }

    pub(crate) fn interrupted() -> Self {
        Self::with_code(Self::INTERRUPTED, "interrupted")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Bad => Self::FAILURE,
        }
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code)
    }
}
