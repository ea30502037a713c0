//! What is seen while it runs: a bar on a terminal, plain lines elsewhere.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Options;
use super::report::{KillRow, ReloadRow, milliseconds};
use super::versions::Version;
use crate::load::Summary;
use crate::out;

#[derive(Debug)]
pub(super) struct Progress {
    /// Draws to stderr, and nothing where that is no terminal.
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    pub(super) const TICK: Duration = Duration::from_millis(100);

    pub(super) fn new(options: &Options) -> Self {
        let bar = ProgressBar::with_draw_target(Some(options.reloads.into()), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} reloads  {msg}") {
            bar.set_style(style);
        }
        Self { bar, quiet: options.json }
    }

    pub(super) fn line(&self, text: impl fmt::Display) {
        if self.quiet {
            return;
        }
        self.bar.suspend(|| out::line(text));
    }

    pub(super) fn tick(&self, summary: &Summary) {
        self.bar.set_message(counts(summary));
    }

    pub(super) fn reload(&self, row: &ReloadRow, summary: &Summary) {
        self.bar.inc(1);
        let what = match row.version {
            Version::Good => format!("pid {} → {}, ready after {}", row.main_before, row.main, milliseconds(row.ready)),
            Version::Exits => format!("a version that exits: pid {} serves on", row.main),
            Version::Hangs => format!(
                "a version that hangs: pid {} serves on, rolled back after {}",
                row.main,
                milliseconds(row.ready)
            ),
        };
        self.line(format_args!("reload {:>2}  {what:<58} {}", row.n, counts(summary)));
    }

    pub(super) fn kill(&self, row: &KillRow) {
        self.line(format_args!(
            "kill       pid {} by SIGKILL, pid {} ready after {}",
            row.pid,
            row.main,
            milliseconds(row.ready)
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn counts(summary: &Summary) -> String {
    let killed = match summary.total.lost_to_kill {
        0 => String::new(),
        n => format!(", {n} in flight in the killed process"),
    };
    format!("{} requests, {} lost{killed}", summary.total.requests(), summary.total.lost)
}
