//! What is seen while reloads run: a bar on a terminal, plain lines elsewhere.

use std::fmt;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::out;

#[derive(Debug)]
pub(crate) struct Progress {
    /// Draws to stderr, and nothing where that is no terminal.
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    pub(crate) fn new(reloads: u32, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(reloads.into()), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} reloads  {msg}") {
            bar.set_style(style);
        }
        Self { bar, quiet }
    }

    pub(crate) fn line(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.bar.suspend(|| out::line(text));
        }
    }

    /// Beside the bar.
    pub(crate) fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// One more is done.
    pub(crate) fn reload(&self, text: impl fmt::Display) {
        self.bar.inc(1);
        self.line(text);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
