//! What is seen while reloads run: a bar on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::Plan;
use super::record::Watched;
use super::report::ms;
use crate::out;
use crate::safe::{short, terminal};
use crate::terminal::{Ink, Look};
use handover_load::{Stats, Summary};

#[derive(Debug)]
pub(crate) struct Progress {
    /// Draws to stderr, and nothing where that is no terminal.
    bar: ProgressBar,
    quiet: bool,
    look: Look,
}

impl Progress {
    /// Between two looks at what goes on.
    pub(crate) const TICK: Duration = Duration::from_millis(200);

    pub(crate) fn new(plan: &Plan) -> Self {
        let bar = ProgressBar::with_draw_target(Some(plan.reloads.into()), ProgressDrawTarget::stderr());
        // What does not fit beside the bar is cut off.
        if let Ok(style) = ProgressStyle::with_template("{bar:10} {pos}/{len} reloads  {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, quiet: plan.quiet, look: Look::of_stdout() }
    }

    pub(crate) fn line(&self, text: &str) {
        self.parts(&[(Ink::Plain, &terminal(text))]);
    }

    pub(crate) fn parts(&self, parts: &[(Ink, &str)]) {
        if !self.quiet {
            self.bar.suspend(|| out::line(self.look.lines(parts)));
        }
    }

    /// Beside the bar.
    pub(crate) fn tick(&self, summary: &Summary) {
        self.bar.set_message(counts(summary));
    }

    /// One more is done; `what` became of it.
    pub(super) fn reload(&self, watched: &Watched, what: &[(Ink, &str)], stats: &Stats) {
        self.bar.inc(1);
        let (summary, number) = (stats.summary(), format!("reload {}", watched.number));
        let gap = format!("longest gap {:.1} ms;", ms(watched.seen.longest_gap));
        let lost = if summary.total.lost > 0 { Ink::Bad } else { Ink::Plain };
        let last = [(Ink::Plain, gap.as_str()), (lost, &counts(&summary))];
        self.parts(&[&[(Ink::Reload, number.as_str())], what, &last[..]].concat());
    }

    /// What the prober saw of it.
    pub(super) fn first_answer(watched: &Watched, stats: &Stats) -> (Ink, String) {
        match (watched.asked.failed(), watched.seen.first_new, watched.unseen) {
            (Some(why), ..) => (Ink::Bad, format!("failed: {}", terminal(why))),
            (None, Some((at, by)), _) => {
                let name = short(&terminal(&stats.name(by)), 20);
                (Ink::Ready, format!("{name} answers after {:.1} ms,", ms(at.saturating_duration_since(watched.at))))
            }
            (None, None, None) => (Ink::Plain, "who answers is not told,".to_owned()),
            (None, None, Some(_)) => (Ink::Bad, "no new process answered,".to_owned()),
        }
    }

    pub(crate) fn finish(&self) {
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
