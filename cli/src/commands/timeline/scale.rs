//! How long a bar is.

/// The end of an axis, in milliseconds. A few that are much longer than the others would leave
/// nothing of those: they are cut off at the end, which is seen, and have their number beside them.
pub(super) fn end(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    let median = values.get(values.len() / 2).copied().unwrap_or(0);
    let limit = median.saturating_mul(4).max(10);
    let longest = values.into_iter().rev().find(|v| *v <= limit).unwrap_or(1);
    round_up(longest.max(1))
}

/// To a number that is easy to read.
fn round_up(value: u64) -> u64 {
    const STEPS: [u64; 9] = [10, 12, 15, 20, 25, 30, 40, 60, 80];
    let mut unit: u64 = 1;
    loop {
        if let Some(step) =
            STEPS.iter().map(|s| s.saturating_mul(unit)).find(|s| *s >= value.saturating_mul(10) || *s == u64::MAX)
        {
            return step.div_ceil(10);
        }
        unit = unit.saturating_mul(10);
    }
}

/// Where each piece ends, in cells: rounded as a whole, so that the sum is right. What took any
/// time has a cell, if there are enough.
pub(super) fn cells(pieces: &[u64], end: u64, width: usize) -> Vec<usize> {
    let width_wide = width as u128;
    let total: u64 = pieces.iter().copied().fold(0, u64::saturating_add);
    let at = |ms: u64| usize::try_from((u128::from(ms) * width_wide + u128::from(end) / 2) / u128::from(end.max(1)));
    let mut sum: u64 = 0;
    let mut before = 0;
    let mut counts: Vec<usize> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        sum = sum.saturating_add(*piece);
        let edge = at(sum).unwrap_or(width).min(width).max(before);
        counts.push(edge - before);
        before = edge;
    }
    let used = |counts: &[usize]| counts.iter().sum::<usize>();
    for i in 0..pieces.len() {
        if pieces[i] == 0 || counts[i] > 0 {
            continue;
        }
        counts[i] = 1;
        // From the longest, unless the bar itself rounds to nothing.
        if used(&counts) > at(total).unwrap_or(width).min(width)
            && let Some(longest) = (0..counts.len()).filter(|j| counts[*j] > 1).max_by_key(|j| counts[*j])
        {
            counts[longest] -= 1;
        } else if used(&counts) > width {
            counts[i] = 0;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(end([81, 79, 95, 60]), 100);
        assert_eq!(end([5_012, 5_007]), 6_000);
        assert_eq!(end([80, 80, 30_000]), 80, "an outlier is cut off");
        assert_eq!(end([]), 1);
        assert_eq!(end([0, 0]), 1);
        assert!(end([u64::MAX / 2]) >= u64::MAX / 20, "no overflow");
    }

    #[test]
    fn bars_add_up() {
        assert_eq!(cells(&[25, 25, 50], 100, 20), [5, 5, 10]);
        assert_eq!(cells(&[1, 97, 1, 1], 100, 20), [1, 17, 1, 1]);
        assert_eq!(cells(&[0, 0], 100, 20), [0, 0]);
        assert_eq!(cells(&[500, 500], 100, 20), [19, 1], "beyond the end");
        assert_eq!(cells(&[1, 1, 1, 1], 1000, 2), [1, 1, 0, 0], "not wider than the bar");
        assert_eq!(cells(&[u64::MAX, u64::MAX], 1, 10).iter().sum::<usize>(), 10);
    }
}
