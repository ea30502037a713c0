//! Moments and durations, read and written.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil};
use serde::{Serialize, Serializer};

/// A time of the wall clock, in microseconds since 1970, as the journal has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    pub(super) fn earlier(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms.saturating_mul(1000)))
    }

    pub(super) fn later(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms.saturating_mul(1000)))
    }

    /// Milliseconds since `before`; 0 where the clock was turned back.
    pub(super) fn since(self, before: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(before.0) / 1000).unwrap_or(0)
    }

    pub(super) fn zoned(self, zone: &TimeZone) -> Zoned {
        Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
    }

    pub(super) fn date(self, zone: &TimeZone) -> String {
        self.zoned(zone).strftime("%Y-%m-%d").to_string()
    }

    pub(super) fn time(self, zone: &TimeZone) -> String {
        self.zoned(zone).strftime("%H:%M:%S").to_string()
    }

    pub(super) fn full(self, zone: &TimeZone) -> String {
        self.zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }
}

impl Serialize for Moment {
    /// RFC 3339, in UTC.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH))
    }
}

/// What `--since` means: a date or a time of this zone, an RFC 3339 time, `@SECONDS`, or how long
/// ago.
pub(super) fn since(text: &str, now: &Zoned) -> Result<Moment, String> {
    let text = text.trim();
    let moment = |t: Timestamp| Moment(t.as_microsecond());
    let local = |t: civil::DateTime| t.to_zoned(now.time_zone().clone()).map(|z| moment(z.timestamp()));
    let midnight = || now.start_of_day();
    let found = match text {
        "now" => Ok(moment(now.timestamp())),
        "today" => midnight().map(|z| moment(z.timestamp())),
        "yesterday" => now.yesterday().and_then(|d| d.start_of_day()).map(|z| moment(z.timestamp())),
        _ if text.starts_with('@') => {
            let seconds = text[1..].parse().map_err(|_| not_a_time(text))?;
            Timestamp::from_second(seconds).map(moment)
        }
        _ => {
            if let Ok(stamp) = text.parse::<Timestamp>() {
                return Ok(moment(stamp));
            }
            // Times before durations: 10:00:00 would be ten hours, too.
            if let Ok(at) = text.parse::<civil::DateTime>() {
                local(at)
            } else if let Ok(at) = text.parse::<civil::Time>() {
                local(now.date().to_datetime(at))
            } else if let Ok(span) = text.trim_start_matches('-').parse::<Span>() {
                now.checked_sub(span.abs()).map(|z| moment(z.timestamp()))
            } else {
                return Err(not_a_time(text));
            }
        }
    };
    found.map_err(|e| format!("--since {text:?} is out of range: {e}"))
}

fn not_a_time(text: &str) -> String {
    format!(
        "--since {text:?} is no time: write how long ago (\"2h\", \"3 days\"), \"today\", \"yesterday\", a time (\"14:30\"), \
         or a date (\"2026-11-21 14:30\")"
    )
}

/// Short, with about three digits: `7 ms`, `1.24 s`, `2m 05s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        10_000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        100_000..3_600_000 => format!("{}m {:02}s", ms / 60_000, ms / 1000 % 60),
        3_600_000..360_000_000 => format!("{}h {:02}m", ms / 3_600_000, ms / 60_000 % 60),
        360_000_000..86_400_000_000 => format!("{} d", ms / 86_400_000),
        _ => "> 999 d".to_owned(), // nobody has waited that long: a field says what it likes
    }
}

/// The same of a round time, without what is zero: `30 s`, `1m 30s`, `2h`.
pub(super) fn round_duration(ms: u64) -> String {
    match ms {
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{} s", ms / 1000),
        60_000..100_000 if ms.is_multiple_of(1_000) => match ms / 1000 % 60 {
            0 => "1m".to_owned(),
            seconds => format!("1m {seconds:02}s"),
        },
        _ => {
            let words = duration(ms);
            words.strip_suffix(" 00s").or(words.strip_suffix(" 00m")).unwrap_or(&words).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_times_have_no_zeros() {
        let all = [5, 1_500, 30_000, 60_000, 90_000, 120_000, 150_000, 7_200_000, 5_400_000].map(round_duration);
        assert_eq!(all, ["5 ms", "1.50 s", "30 s", "1m", "1m 30s", "2m", "2m 30s", "2h", "1h 30m"]);
    }

    #[test]
    fn durations_are_short() {
        let all = [0, 999, 1_000, 1_249, 59_990, 125_000, 3_600_000, 90_061_000, 360_000_000, u64::MAX].map(duration);
        let short = ["0 ms", "999 ms", "1.00 s", "1.24 s", "59.9 s", "2m 05s", "1h 00m", "25h 01m", "4 d", "> 999 d"];
        assert_eq!(all, short);
    }

    #[test]
    fn since_as_people_write_it() {
        let now: Zoned = "2026-11-21T12:00:00+00:00[UTC]".parse().unwrap();
        let at = |text: &str| since(text, &now).unwrap().full(&TimeZone::UTC);
        for text in ["2h", "-2h", "2 hours ago", "10:00", "10:00:00", "2026-11-21 10:00", "2026-11-21T11:00:00+01:00"] {
            assert_eq!(at(text), "2026-11-21 10:00:00 UTC", "{text}");
        }
        assert_eq!(at("yesterday"), "2026-11-20 00:00:00 UTC");
        assert_eq!(at("2026-11-20"), "2026-11-20 00:00:00 UTC");
        assert_eq!(at("@0"), "1970-01-01 00:00:00 UTC");
        for bad in ["", "soon", "@x", "25:00", "--help"] {
            assert!(since(bad, &now).unwrap_err().contains("--since"), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_was_turned_back_is_no_panic() {
        assert_eq!(Moment(5).since(Moment(i64::MAX)), 0);
        assert_eq!(Moment(i64::MIN).earlier(u64::MAX), Moment(i64::MIN));
        assert!(Moment(i64::MAX).full(&TimeZone::UTC).starts_with("1970"), "beyond what a calendar has");
    }
}
