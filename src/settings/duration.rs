//! Times as people write them: `30s`, `1m 30s`, `500ms`.

use std::time::Duration;

const UNITS: [(&str, &[&str], u64); 5] = [
    ("d", &["d", "day", "days"], 86_400_000),
    ("h", &["h", "hr", "hour", "hours"], 3_600_000),
    ("m", &["m", "min", "minute", "minutes"], 60_000),
    ("s", &["s", "sec", "second", "seconds"], 1_000),
    ("ms", &["ms", "msec", "millisecond", "milliseconds"], 1),
];

/// Reads a time. The error goes on from "`drain_timeout = "…"`".
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("is empty; write a time such as \"30s\"".into());
    }
    if rest.starts_with('-') {
        return Err("is negative; write a time such as \"30s\"".into());
    }
    if rest.eq_ignore_ascii_case("infinity") || rest.eq_ignore_ascii_case("never") {
        return Err("has no end, and every wait must have one; write a long time such as \"1d\"".into());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if after.starts_with(['.', ',']) {
            return Err("has a fraction; write it in a smaller unit, such as \"1500ms\"".into());
        }
        if number.is_empty() {
            return Err("is no time; write a number and a unit, such as \"30s\"".into());
        }
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(format!("has no unit; for seconds write \"{number}s\", for milliseconds \"{number}ms\""));
        }
        let Some((_, _, millis)) = UNITS.iter().find(|(_, names, _)| names.contains(&unit)) else {
            return Err(format!("has the unit \"{unit}\", and knows only ms, s, m, h and d"));
        };
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*millis));
        total = part.and_then(|part| total.checked_add(part)).ok_or("is longer than any machine runs")?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Writes a time as [`parse`] reads it. What is below a millisecond is cut off.
pub(crate) fn show(time: Duration) -> String {
    let mut left = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, _, millis) in UNITS {
        let count = left / millis;
        left %= millis;
        if count > 0 {
            text += &format!("{}{count}{unit}", if text.is_empty() { "" } else { " " });
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            (" 500 ms ", 500),
            ("1m30s", 90_000),
            ("1 min 30 sec", 90_000),
            ("2 hours", 7_200_000),
            ("1d 2h 3m 4s 5ms", 93_784_005),
            ("0s", 0),
        ] {
            let time = parse(text).unwrap();
            assert_eq!(time, Duration::from_millis(millis), "{text}");
            assert_eq!(parse(&show(time)), Ok(time), "{text}");
        }
        assert_eq!(show(Duration::from_millis(90_500)), "1m 30s 500ms");
    }
}
