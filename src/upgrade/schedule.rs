//! When to look again.

use std::time::Duration;

/// How much of the time between two looks is left to chance: a fleet that was started together does
/// not ask together.
pub const JITTER: f64 = 0.1;

/// The longest that failures make it wait, unless the interval itself is longer.
pub const MAX_BACK_OFF: Duration = Duration::from_secs(3600);

/// Returns how long to wait until the next look. `chance` is between 0 and 1.
pub(crate) fn wait(every: Duration, failures: u32, chance: f64) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let backed_off = every.saturating_mul(factor).min(MAX_BACK_OFF).max(every);
    let factor = 1.0 - JITTER + 2.0 * JITTER * chance;
    Duration::try_from_secs_f64(backed_off.as_secs_f64() * factor).unwrap_or(backed_off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_make_it_wait_longer_but_not_for_ever() {
        let secs = |every, failures, chance| wait(Duration::from_secs(every), failures, chance).as_secs_f64().round();
        assert_eq!([secs(60, 0, 0.0), secs(60, 0, 0.5), secs(60, 0, 1.0)], [54.0, 60.0, 66.0]);
        assert_eq!([secs(60, 1, 0.5), secs(60, 3, 0.5), secs(60, 9, 0.5)], [120.0, 480.0, 3600.0]);
        assert_eq!([secs(7200, 5, 0.5), secs(60, u32::MAX, 0.5)], [7200.0, 3600.0]);
        let _ = wait(Duration::MAX, 3, 1.0);
    }
}
