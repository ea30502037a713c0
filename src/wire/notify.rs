//! The datagrams of sd_notify(3).

use sd_notify::NotifyState;
use std::time::Duration;

/// The manager ignores a datagram that is longer than this (`NOTIFY_BUFFER_MAX`).
pub(crate) const MAX_DATAGRAM: usize = 4096;

/// The longest name of a Varlink error.
const MAX_NAME: usize = 255;

/// `BARRIER=1`, which goes alone in its datagram.
pub(crate) const BARRIER: &[u8] = b"BARRIER=1";

/// Puts the fds that come with it into the fd store. The name must be one that systemd accepts.
pub(crate) fn store(name: &str, poll: bool) -> String {
    let poll = if poll { "" } else { "\nFDPOLL=0" };
    format!("FDSTORE=1\nFDNAME={name}{poll}")
}

/// Removes *all* fds of that name from the fd store.
pub(crate) fn store_remove(name: &str) -> String {
    format!("FDSTOREREMOVE=1\nFDNAME={name}")
}

/// What the service manager is told in one datagram, as in sd_notify(3).
///
/// Whatever is put in, the datagram is valid: at most 4096 bytes of UTF-8, one field per line, no
/// NUL. The order of the calls does not matter: `MAINPID` goes first, the status text, which is
/// what gets cut if need be, last.
///
/// ```
/// use handover::systemd::notify::Message;
///
/// let message = Message::new().ready().main_pid(4711).status("serving\nSTOPPING=1");
/// assert_eq!(message.to_string(), "MAINPID=4711\nREADY=1\nSTATUS=serving STOPPING=1");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    main_pid: Option<u32>,
    main_pid_id: Option<u64>,
    state: Option<UnitState>,
    watchdog: bool,
    restart_reset: bool,
    extend_timeout_usec: Option<u64>,
    errno: Option<u32>,
    varlink_error: Option<&'static str>,
    status: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitState {
    Ready,
    Reloading { monotonic_usec: u64 },
    Stopping,
}

impl Message {
    /// Makes a message that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `READY=1`: the start or the reload is complete, the latter also when it failed.
    ///
    /// `ready`, [`reloading`](Self::reloading) and [`stopping`](Self::stopping) exclude each other;
    /// the last call counts.
    #[doc(alias = "READY")]
    pub fn ready(mut self) -> Self {
        self.state = Some(UnitState::Ready);
        self
    }

    /// Adds `RELOADING=1` with `MONOTONIC_USEC=`, which `Type=notify-reload` needs: the clock of
    /// [`monotonic_usec`](crate::systemd::notify::monotonic_usec), read after the reload was asked
    /// for.
    ///
    /// A [`ready`](Self::ready) must follow, also when the reload failed.
    #[doc(alias = "RELOADING")]
    #[doc(alias = "MONOTONIC_USEC")]
    pub fn reloading(mut self, monotonic_usec: u64) -> Self {
        self.state = Some(UnitState::Reloading { monotonic_usec });
        self
    }

    /// Adds `STOPPING=1`: the whole service stops. An old generation that merely drains does not
    /// say it.
    #[doc(alias = "STOPPING")]
    pub fn stopping(mut self) -> Self {
        self.state = Some(UnitState::Stopping);
        self
    }

    /// Adds `MAINPID=`: from now on this process is the main one. It must be alive and in the
    /// unit's cgroup.
    #[doc(alias = "MAINPID")]
    pub fn main_pid(mut self, pid: u32) -> Self {
        self.main_pid = Some(pid);
        self
    }

    /// Adds `MAINPIDFDID=`: the inode of the pidfd of the process that
    /// [`main_pid`](Self::main_pid) names, which tells it from any later one with the same pid.
    /// systemd knows it from 257 on; an older one ignores it.
    #[doc(alias = "MAINPIDFDID")]
    pub fn main_pid_id(mut self, id: u64) -> Self {
        self.main_pid_id = Some(id);
        self
    }

    /// Adds `STATUS=`, the line that `systemctl status` shows.
    ///
    /// Newlines, other control characters and what Unicode breaks lines at become spaces. What does
    /// not fit into the datagram is cut off between two characters.
    #[doc(alias = "STATUS")]
    pub fn status(mut self, text: impl AsRef<str>) -> Self {
        let one_line = text.as_ref().chars().map(|c| if breaks_line(c) { ' ' } else { c });
        // Cut here already, so that an enormous text is not kept; how much really fits, encode()
        // knows.
        let mut status = String::new();
        for c in one_line {
            if status.len() + c.len_utf8() > MAX_DATAGRAM {
                break;
            }
            status.push(c);
        }
        self.status = Some(status);
        self
    }

    /// Adds `WATCHDOG=1`: the service is alive.
    #[doc(alias = "WATCHDOG")]
    pub fn watchdog(mut self) -> Self {
        self.watchdog = true;
        self
    }

    /// Adds `RESTART_RESET=1`: the service is healthy, and its next restart waits no longer than
    /// the first one did. systemd knows it from 258 on; an older one ignores it.
    #[doc(alias = "RESTART_RESET")]
    pub fn restart_reset(mut self) -> Self {
        self.restart_reset = true;
        self
    }

    /// Adds `EXTEND_TIMEOUT_USEC=`: the start, reload or stop that is under way needs this much
    /// longer, from now.
    #[doc(alias = "EXTEND_TIMEOUT_USEC")]
    pub fn extend_timeout(mut self, by: Duration) -> Self {
        // u64::MAX would be systemd's "infinity".
        self.extend_timeout_usec = Some(u64::try_from(by.as_micros()).unwrap_or(u64::MAX).min(u64::MAX - 1));
        self
    }

    /// Adds `ERRNO=`: why the service failed, as a number of errno(3).
    #[doc(alias = "ERRNO")]
    pub fn errno(mut self, errno: u32) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Adds `VARLINKERROR=`: why the service failed, as the name of a Varlink error. systemd shows
    /// it from 257 on; an older one ignores it. What is no such name is left out.
    #[doc(alias = "VARLINKERROR")]
    pub fn varlink_error(mut self, name: &'static str) -> Self {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let valid = name.len() <= MAX_NAME && name.contains('.') && name.split('.').all(part);
        self.varlink_error = Some(name).filter(|_| valid);
        self
    }

    /// Says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Encodes the datagram.
    pub(crate) fn encode(&self) -> String {
        let mut lines: Vec<NotifyState<'_>> = Vec::new();
        lines.extend(self.main_pid.map(NotifyState::MainPid));
        let id = self.main_pid_id.map(|id| format!("MAINPIDFDID={id}"));
        lines.extend(id.as_deref().map(NotifyState::Custom));
        match self.state {
            None => {}
            Some(UnitState::Ready) => lines.push(NotifyState::Ready),
            Some(UnitState::Stopping) => lines.push(NotifyState::Stopping),
            Some(UnitState::Reloading { monotonic_usec }) => {
                lines.extend([NotifyState::Reloading, NotifyState::MonotonicUsec(monotonic_usec.into())]);
            }
        }
        if self.watchdog {
            lines.push(NotifyState::Watchdog);
        }
        if self.restart_reset {
            lines.push(NotifyState::Custom("RESTART_RESET=1"));
        }
        // NotifyState::ExtendTimeoutUsec is a u32, which ends at 71 minutes.
        let extend = self.extend_timeout_usec.map(|usec| format!("EXTEND_TIMEOUT_USEC={usec}"));
        lines.extend(extend.as_deref().map(NotifyState::Custom));
        lines.extend(self.errno.map(NotifyState::Errno));
        let varlink = self.varlink_error.map(|name| format!("VARLINKERROR={name}"));
        lines.extend(varlink.as_deref().map(NotifyState::Custom));

        let mut datagram = lines.iter().map(NotifyState::to_string).collect::<Vec<_>>().join("\n");
        if let Some(status) = &self.status {
            if !datagram.is_empty() {
                datagram.push('\n');
            }
            let room = MAX_DATAGRAM - datagram.len() - "STATUS=".len();
            datagram.push_str(&NotifyState::Status(cut(status, room)).to_string());
        }
        datagram
    }
}

/// The datagram as text.
impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.encode())
    }
}

fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn cut(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    #[test]
    fn fields() {
        let encode = |message: Message| message.encode();
        assert_eq!(encode(Message::new()), "");
        assert!(Message::new().is_empty());
        assert_eq!(encode(Message::new().ready()), "READY=1");
        assert_eq!(encode(Message::new().reloading(5)), "RELOADING=1\nMONOTONIC_USEC=5");
        assert_eq!(encode(Message::new().stopping().status("")), "STOPPING=1\nSTATUS=");
        assert_eq!(encode(Message::new().watchdog()), "WATCHDOG=1");
        assert_eq!(encode(Message::new().restart_reset()), "RESTART_RESET=1");
        assert_eq!(encode(Message::new().errno(2)), "ERRNO=2");
        assert_eq!(encode(Message::new().varlink_error("a.b.No-1")), "VARLINKERROR=a.b.No-1");
        for wrong in ["", "a", "a..b", "a.b\nREADY=1", ".a.b", "a.1"] {
            assert!(Message::new().varlink_error(wrong).is_empty(), "{wrong:?}");
        }
        let hours = Duration::from_secs(7200);
        assert_eq!(encode(Message::new().extend_timeout(hours)), "EXTEND_TIMEOUT_USEC=7200000000");
        let never_infinity = format!("EXTEND_TIMEOUT_USEC={}", u64::MAX - 1);
        assert_eq!(encode(Message::new().extend_timeout(Duration::MAX)), never_infinity);
    }

    #[test]
    fn the_fd_store() {
        assert_eq!(store("db", true), "FDSTORE=1\nFDNAME=db");
        assert_eq!(store("db", false), "FDSTORE=1\nFDNAME=db\nFDPOLL=0");
        assert_eq!(store_remove("db"), "FDSTOREREMOVE=1\nFDNAME=db");
    }

    #[test]
    fn the_main_pid_goes_first() {
        assert_eq!(Message::new().ready().main_pid(7).encode(), "MAINPID=7\nREADY=1");
        assert_eq!(Message::new().main_pid_id(9).ready().main_pid(7).encode(), "MAINPID=7\nMAINPIDFDID=9\nREADY=1");
    }

    #[test]
    fn the_last_state_counts() {
        assert_eq!(Message::new().reloading(1).stopping().ready().encode(), "READY=1");
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        let datagram = Message::new().ready().status("ä".repeat(4000)).encode();
        assert!((MAX_DATAGRAM - 1..=MAX_DATAGRAM).contains(&datagram.len()), "{}", datagram.len());
        assert!(datagram.ends_with('ä'));
        let fits = "x".repeat(MAX_DATAGRAM - "STATUS=".len());
        assert_eq!(Message::new().status(&fits).encode(), format!("STATUS={fits}"));
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let text = prop_oneof![
            any::<String>(),
            "[\\x00-\\x20\u{80}-\u{a0}\u{2028}=A-Z1]{0,40}",
            "(\n?(READY|MAINPID|STOPPING)=1\r?){0,900}",
            "\\PC{1000,5000}",
        ];
        let state = prop_oneof![
            Just(None),
            Just(Some(UnitState::Ready)),
            Just(Some(UnitState::Stopping)),
            any::<u64>().prop_map(|monotonic_usec| Some(UnitState::Reloading { monotonic_usec })),
        ];
        let numbers = (any::<Option<u32>>(), any::<Option<u64>>(), any::<Option<u32>>());
        (text, state, any::<[bool; 2]>(), numbers).prop_map(
            |(text, state, [watchdog, restart_reset], (main_pid, usec, errno))| {
                let mut message = Message::new().status(text);
                message.extend_timeout_usec = usec;
                Message { main_pid, main_pid_id: usec, state, watchdog, restart_reset, errno, ..message }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 400,
            rng_seed: RngSeed::Fixed(0x5EED),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_injects_a_field_or_breaks_the_datagram(message in any_message()) {
            let datagram = message.encode();
            prop_assert!(datagram.len() <= MAX_DATAGRAM);
            prop_assert!(!datagram.contains('\0'));

            let without = Message { status: None, ..message.clone() }.encode();
            let fields: Vec<_> = datagram.split('\n').collect();
            let expected: Vec<_> = without.split('\n').filter(|line| !line.is_empty()).collect();
            let (status, others) = fields.split_last().expect("a status");
            prop_assert_eq!(others, expected);
            prop_assert!(status.starts_with("STATUS="));
            prop_assert!(!status.contains(char::is_control));
        }
    }
}
