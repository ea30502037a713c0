//! Signals by name or number, as units and people write them.

/// Tells a signal's name without `SIG`: `HUP`, `USR1`, `RTMIN+3`. `None`: there is no such signal;
/// names are in capitals.
pub(crate) fn name(text: &str) -> Option<String> {
    const NUMBERED: [&str; 32] = [
        "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let text = text.trim();
    if let Ok(number) = text.parse::<usize>() {
        return match number {
            1..=31 => Some(NUMBERED[number].to_owned()),
            32..=64 => Some(format!("RTMIN+{}", number.saturating_sub(34))),
            _ => None,
        };
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time =
        name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-")).is_some_and(|n| n.parse::<u64>().is_ok());
    let known = real_time || ["RTMIN", "RTMAX"].contains(&name) || NUMBERED[1..].contains(&name);
    known.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!(name("SIGHUP").as_deref(), Some("HUP"));
        assert_eq!((name("HUP"), name("1")), (Some("HUP".into()), Some("HUP".into())));
        assert_eq!((name("SIGRTMIN+4").as_deref(), name("hup"), name("0")), (Some("RTMIN+4"), None, None));
    }
}
