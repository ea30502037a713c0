//! What is told while it runs.

use std::time::Duration;

use super::options::Options;
use super::report::ms;
use super::run::Reloaded;
use crate::progress::Progress as Bar;
use handover_load::{Stats, Summary};

#[derive(Debug)]
pub(super) struct Progress(Bar);

impl Progress {
    pub(super) const TICK: Duration = Duration::from_millis(200);

    pub(super) fn new(options: &Options) -> Self {
        Self(Bar::new(options.reloads, options.json))
    }

    pub(super) fn line(&self, text: impl std::fmt::Display) {
        self.0.line(text);
    }

    pub(super) fn tick(&self, summary: &Summary) {
        self.0.message(counts(summary));
    }

    pub(super) fn reload(&self, reloaded: &Reloaded, stats: &Stats) {
        let seen = &reloaded.seen;
        let first = match (&reloaded.failed, seen.first_new) {
            (Some(why), _) => format!("failed: {why}"),
            (None, None) => "no new process seen".to_owned(),
            (None, Some((at, by))) => {
                let name = crate::safe::short(&crate::safe::terminal(&stats.name(by)), 20);
                format!("{name} answers after {:.1} ms", ms(at - reloaded.at))
            }
        };
        let gap = ms(seen.longest_gap);
        self.0.reload(format_args!(
            "reload {:>3}  {first:<34} longest gap {gap:>6.1} ms   {}",
            reloaded.number,
            counts(&stats.summary())
        ));
    }

    pub(super) fn finish(&self) {
        self.0.finish();
    }
}

fn counts(summary: &Summary) -> String {
    format!("{} requests, {} lost", summary.total.requests(), summary.total.lost)
}
