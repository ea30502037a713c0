//! What is told while it runs.

use std::time::Duration;

use super::Options;
use super::report::{KillRow, ReloadRow, milliseconds};
use super::versions::Version;
use crate::progress::Progress as Bar;
use handover_load::Summary;

#[derive(Debug)]
pub(super) struct Progress(Bar);

impl Progress {
    pub(super) const TICK: Duration = Duration::from_millis(100);

    pub(super) fn new(options: &Options) -> Self {
        Self(Bar::new(options.reloads, options.json))
    }

    pub(super) fn line(&self, text: impl std::fmt::Display) {
        self.0.line(text);
    }

    pub(super) fn tick(&self, summary: &Summary) {
        self.0.message(counts(summary));
    }

    pub(super) fn reload(&self, row: &ReloadRow, summary: &Summary) {
        let what = match row.version {
            Version::Good => format!("pid {} → {}, ready after {}", row.main_before, row.main, milliseconds(row.ready)),
            Version::Exits => format!("a version that exits: pid {} serves on", row.main),
            Version::Hangs => format!(
                "a version that hangs: pid {} serves on, rolled back after {}",
                row.main,
                milliseconds(row.ready)
            ),
        };
        self.0.reload(format_args!("reload {:>2}  {what:<58} {}", row.n, counts(summary)));
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
        self.0.finish();
    }
}

fn counts(summary: &Summary) -> String {
    let killed = match summary.total.lost_to_kill {
        0 => String::new(),
        n => format!(", {n} in flight in the killed process"),
    };
    format!("{} requests, {} lost{killed}", summary.total.requests(), summary.total.lost)
}
