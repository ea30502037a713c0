//! What a generation says by sd_notify(3).

use std::os::fd::OwnedFd;
use std::time::Duration;

/// As systemd names what has no name, or one that cannot be.
const NAMELESS: &str = "stored";

/// One thing that was said.
#[derive(Debug)]
pub(crate) enum Said {
    Ready,
    Stopping,
    Status(String),
    Watchdog,
    /// `WATCHDOG=trigger`
    Unhealthy,
    WatchdogEvery(Duration),
    Extend(Duration),
    Store {
        name: String,
        poll: bool,
        fds: Vec<OwnedFd>,
    },
    Unstore(String),
    /// Answered by closing what came with it.
    Barrier,
    /// A field that is known and not for a generation to say: it is named.
    Refused(&'static str),
}

/// In the order in which they count. What is not understood says nothing, as with systemd.
pub(crate) fn read(bytes: &[u8], fds: Vec<OwnedFd>) -> Vec<Said> {
    let text = String::from_utf8_lossy(bytes);
    let fields: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| fields.iter().rfind(|(n, _)| *n == name).map(|(_, value)| *value);
    let is = |name: &str| value(name) == Some("1");
    let micros = |name: &str| value(name).and_then(|v| v.parse().ok()).map(Duration::from_micros);
    let name = || value("FDNAME").filter(|name| is_name(name)).unwrap_or(NAMELESS).to_owned();
    if is("BARRIER") {
        return vec![Said::Barrier];
    }
    let mut said = Vec::new();
    if let Some(status) = value("STATUS") {
        said.push(Said::Status(status.to_owned()));
    }
    if is("FDSTORE") && !fds.is_empty() {
        said.push(Said::Store { name: name(), poll: value("FDPOLL") != Some("0"), fds });
    }
    if is("FDSTOREREMOVE") {
        said.push(Said::Unstore(name()));
    }
    said.extend(micros("EXTEND_TIMEOUT_USEC").map(Said::Extend));
    said.extend(micros("WATCHDOG_USEC").map(Said::WatchdogEvery));
    match value("WATCHDOG") {
        Some("1") => said.push(Said::Watchdog),
        Some("trigger") => said.push(Said::Unhealthy),
        _ => {}
    }
    let refused =
        ["MAINPID", "RELOADING", "NOTIFYACCESS", "MAINPIDFD"].into_iter().filter(|name| value(name).is_some());
    said.extend(refused.map(Said::Refused));
    if is("READY") {
        said.push(Said::Ready);
    }
    if is("STOPPING") {
        said.push(Said::Stopping);
    }
    said
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| (32..127).contains(&b) && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let said: Vec<String> = read(text.as_bytes(), Vec::new()).iter().map(|one| format!("{one:?}")).collect();
        said.join(" ")
    }

    #[test]
    fn messages_are_read() {
        assert_eq!(shown("READY=1\nSTATUS=all well"), r#"Status("all well") Ready"#);
        assert_eq!(shown("STOPPING=1"), "Stopping");
        assert_eq!(shown("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=5000000"), "Extend(5s) Watchdog");
        assert_eq!(shown("WATCHDOG=trigger\nWATCHDOG_USEC=1000"), "WatchdogEvery(1ms) Unhealthy");
        assert_eq!(shown("FDSTOREREMOVE=1\nFDNAME=q"), r#"Unstore("q")"#);
        assert_eq!(shown("BARRIER=1"), "Barrier");
        assert_eq!(shown("MAINPID=7\nREADY=1"), r#"Refused("MAINPID") Ready"#);
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for text in ["", "READY", "READY=2", "READY=0\n", "=1", "EXTEND_TIMEOUT_USEC=x", "FDSTORE=1", "\u{fffd}\0=\n"] {
            assert_eq!(shown(text), "", "{text:?}");
        }
        let fd = std::fs::File::open("/dev/null").unwrap();
        let said = read(b"FDSTORE=1\nFDNAME=a:b\nFDPOLL=0", vec![fd.into()]);
        assert!(matches!(&said[..], [Said::Store { name, poll: false, fds }] if name == NAMELESS && fds.len() == 1));
    }
}
