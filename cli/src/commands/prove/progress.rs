//! What is seen while reloads run: a bar on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::Plan;
use super::report::ReloadRow;
use crate::out;
use crate::safe::{short, terminal};
use crate::terminal::{Ink, Look};
use handover_load::{Summary, Turnover};

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

    /// One more is done: `what` became of it, then what the clients saw.
    pub(super) fn reload(&self, row: &ReloadRow, what: &[(Ink, &str)], summary: &Summary) {
        self.bar.inc(1);
        let (ink, answer) = match (&row.failed, row.first_new_ms, row.unseen) {
            (Some(_), ..) if row.refused => (Ink::Plain, String::new()),
            (Some(why), ..) => (Ink::Bad, format!("failed: {}", terminal(why))),
            (None, Some(ms), _) => {
                let name = short(&terminal(row.new.as_deref().unwrap_or_default()), 20);
                (Ink::Ready, format!("{name} answers after {ms:.1} ms,"))
            }
            (None, None, None) => (Ink::Plain, "who answers is not told,".to_owned()),
            (None, None, Some(_)) => (Ink::Bad, "no new process answered,".to_owned()),
        };
        let (number, gap) = (format!("reload {}", row.n), format!("longest gap {:.1} ms;", row.longest_gap_ms));
        let (lost, counts) = (if summary.total.lost > 0 { Ink::Bad } else { Ink::Plain }, counts(summary));
        let seen = [(ink, &*answer), (Ink::Plain, &*gap), (lost, &*counts)];
        self.parts(&[&[(Ink::Reload, &*number)], what, &seen].concat());
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
    let Turnover { closed, opened_anew, .. } = summary.total.turnover;
    let (requests, lost) = (summary.total.requests(), summary.total.lost);
    format!("{requests} requests, {lost} lost{killed}; {closed} connections closed, {opened_anew} opened anew")
}
