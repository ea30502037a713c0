//! What is seen while it runs: a bar on a terminal, plain lines elsewhere.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::Options;
use super::report::ms;
use super::run::Reloaded;
use crate::load::{Stats, Summary};
use crate::out;

#[derive(Debug)]
pub(super) struct Progress {
    /// Draws to stderr, and nothing where that is no terminal.
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    pub(super) const TICK: Duration = Duration::from_millis(200);

    pub(super) fn new(options: &Options) -> Self {
        let bar = ProgressBar::with_draw_target(Some(options.reloads.into()), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} reloads  {msg}") {
            bar.set_style(style);
        }
        Self { bar, quiet: options.json }
    }

    pub(super) fn line(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.bar.suspend(|| out::line(text));
        }
    }

    pub(super) fn tick(&self, summary: &Summary) {
        self.bar.set_message(counts(summary));
    }

    pub(super) fn reload(&self, reloaded: &Reloaded, stats: &Stats) {
        self.bar.inc(1);
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
        self.line(format_args!(
            "reload {:>3}  {first:<34} longest gap {gap:>6.1} ms   {}",
            reloaded.number,
            counts(&stats.summary())
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn counts(summary: &Summary) -> String {
    format!("{} requests, {} lost", summary.total.requests(), summary.total.lost)
}
