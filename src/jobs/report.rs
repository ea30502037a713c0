//! How many jobs there were, and what has become of them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many of those that were cut a line names.
const NAMED: usize = 10;

/// How many jobs there were, and what has become of them. `Display` says it in a line, with the
/// names of ten. Jobs that a job started are parts of it, and not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobReport {
    /// All that were started.
    pub started: u64,
    /// Those that returned well.
    pub finished: u64,
    /// Those that panicked; commands that could not start, or did not exit with 0; items of a
    /// worker that returned an error.
    pub failed: u64,
    /// The names of those that were cut, in no order.
    pub cut: Vec<String>,
}

impl JobReport {
    /// Returns how many are neither over nor cut.
    #[must_use]
    pub fn running(&self) -> u64 {
        let cut = u64::try_from(self.cut.len()).unwrap_or(u64::MAX);
        self.started.saturating_sub(self.finished).saturating_sub(self.failed).saturating_sub(cut)
    }
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, finished, failed, cut } = self;
        write!(f, "{started} started, {finished} finished, {failed} failed, {} cut", cut.len())?;
        if !cut.is_empty() {
            write!(f, " ({}", cut[..cut.len().min(NAMED)].join(", ").escape_debug())?;
            match cut.len().saturating_sub(NAMED) {
                0 => f.write_str(")")?,
                more => write!(f, " and {more} more)")?,
            }
        }
        match self.running() {
            0 => Ok(()),
            running => write!(f, ", {running} running"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<JobReport>);

impl Counts {
    /// Locks the counts. Nothing else is locked meanwhile: the drain locks them from within.
    pub(super) fn lock(&self) -> MutexGuard<'_, JobReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_it_in_a_line() {
        let cut = vec!["a\nb".to_owned()];
        let report = JobReport { started: 5, finished: 2, failed: 1, cut };
        assert_eq!(report.to_string(), "5 started, 2 finished, 1 failed, 1 cut (a\\nb), 1 running");
        let report = JobReport { started: 12, cut: vec!["x".to_owned(); 12], ..JobReport::default() };
        assert!(report.to_string().ends_with("12 cut (x, x, x, x, x, x, x, x, x, x and 2 more)"), "{report}");
    }
}
