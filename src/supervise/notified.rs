//! What generations say by sd_notify(3), and the rights that each has.
//!
//! | who | may say |
//! |---|---|
//! | the main one | all but `READY`: `STATUS`, `WATCHDOG`, `FDSTORE`, `FDSTOREREMOVE`, `STOPPING`… |
//! | the next one | `READY`, `STATUS`, `EXTEND_TIMEOUT_USEC`; what it stores counts later |
//! | one that drains | `BARRIER` |
//!
//! `MAINPID`, `RELOADING` and `NOTIFYACCESS` are nobody's: who is main is the supervisor's to say.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::error::{Error, Result};
use crate::lifecycle::LifeState;
use crate::sys::closer::{Closer, SentFds};
use crate::sys::mailbox::{self, ProcessMessage};
use crate::sys::peer;
use crate::sys::socket::register;
use crate::wire::notify::MAX_DATAGRAM;

/// The name of what has no name, or one that cannot be, as with systemd.
const NAMELESS: &str = "stored";
/// Most notifications that are read before the end of a process is dealt with.
const MAX_LAST: usize = 64;

#[derive(Debug)]
pub(crate) enum Notification {
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
        fds: SentFds,
    },
    Unstore(String),
    /// It is answered by closing what came with it: all that was sent before has been read.
    Barrier,
    /// A field that is known and not for a generation to say, by its name.
    Foreign(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Counts,
    /// It counts when its generation is main.
    CountsWhenMain,
    /// The field is for no program to say.
    Nobodys(&'static str),
    MeansNothing,
}

impl Notification {
    /// Tells whether a generation in that state has a right to say this.
    pub(crate) fn right(&self, state: LifeState) -> Right {
        let counts_if = |counts| if counts { Right::Counts } else { Right::MeansNothing };
        match self {
            Self::Status(_) | Self::Watchdog | Self::WatchdogEvery(_) | Self::Barrier => Right::Counts,
            Self::Ready => counts_if(state == LifeState::Starting),
            Self::Unhealthy | Self::Stopping => counts_if(state.is_main()),
            Self::Extend(_) => counts_if(matches!(
                state,
                LifeState::Starting | LifeState::Serving | LifeState::Reloading(_) | LifeState::Stopping
            )),
            Self::Store { .. } | Self::Unstore(_) => match state {
                LifeState::Starting | LifeState::Standby | LifeState::Trial => Right::CountsWhenMain,
                state => counts_if(state.is_main()),
            },
            Self::Foreign(field) => Right::Nobodys(field),
        }
    }
}

/// Reads a message, in the order in which its fields count. What is not understood says nothing, as
/// with systemd.
pub(crate) fn read(bytes: &[u8], fds: SentFds) -> Vec<Notification> {
    let text = String::from_utf8_lossy(bytes);
    let fields: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| fields.iter().rfind(|(n, _)| *n == name).map(|(_, value)| *value);
    let is = |name: &str| value(name) == Some("1");
    let micros = |name: &str| value(name).and_then(|v| v.parse().ok()).map(Duration::from_micros);
    let name = || value("FDNAME").filter(|name| is_name(name)).unwrap_or(NAMELESS).to_owned();
    if is("BARRIER") {
        return vec![Notification::Barrier];
    }
    let mut said = Vec::new();
    said.extend(value("STATUS").map(|status| Notification::Status(status.to_owned())));
    if is("FDSTORE") && !fds.is_empty() {
        said.push(Notification::Store { name: name(), poll: value("FDPOLL") != Some("0"), fds });
    }
    said.extend(is("FDSTOREREMOVE").then(|| Notification::Unstore(name())));
    said.extend(micros("EXTEND_TIMEOUT_USEC").map(Notification::Extend));
    said.extend(micros("WATCHDOG_USEC").map(Notification::WatchdogEvery));
    said.extend(is("WATCHDOG").then_some(Notification::Watchdog));
    said.extend((value("WATCHDOG") == Some("trigger")).then_some(Notification::Unhealthy));
    let foreign = ["MAINPID", "RELOADING", "NOTIFYACCESS", "MAINPIDFD"].into_iter();
    said.extend(foreign.filter(|name| value(name).is_some()).map(Notification::Foreign));
    said.extend(is("READY").then_some(Notification::Ready));
    said.extend(is("STOPPING").then_some(Notification::Stopping));
    said
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| (32..127).contains(&b) && b != b':')
}

/// A message, not looked at yet: its sender may be a stranger.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) pid: Option<u32>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: SentFds,
    /// It is too long, or fds of it are missing.
    pub(crate) damaged: bool,
}

/// The socket that messages come to. Nothing that a stranger sends is closed by who reads here, as
/// that could take for ever.
#[derive(Debug)]
pub(crate) struct Inbox {
    socket: AsyncFd<OwnedFd>,
    closer: Closer,
    /// Whether messages may have fds.
    passes_fds: bool,
    /// Messages of processes that may send none.
    strangers: u64,
    damaged: u64,
}

impl Inbox {
    /// Reads no fds until [`expect`](Self::expect) says that there is somebody who may send some.
    pub(crate) fn open(socket: OwnedFd) -> Result<Self> {
        let wrong = |e| Error::os("the notifications of the program cannot be watched", e);
        let closer = Closer::start().map_err(wrong)?;
        peer::pass_fds(socket.as_fd(), false).map_err(wrong)?;
        let socket = register(socket, Interest::READABLE).map_err(wrong)?;
        Ok(Self { socket, closer, passes_fds: false, strangers: 0, damaged: 0 })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// There is a process that may send messages, or there is none.
    pub(crate) fn expect(&mut self, anybody: bool) {
        if anybody != self.passes_fds {
            self.passes_fds = anybody;
            if let Err(error) = peer::pass_fds(self.as_fd(), anybody) {
                warn!(%error, "fds in notifications of the program cannot be let in or kept out");
            }
        }
    }

    /// Has fds closed that came with a message, and are not wanted any more.
    pub(crate) fn sent(&self, fds: Vec<OwnedFd>) -> SentFds {
        self.closer.sent(fds)
    }

    /// Waits for the next message.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub(crate) async fn next(&self) -> io::Result<Letter> {
        self.closer.room().await;
        self.socket.async_io(Interest::READABLE, |fd| self.take(fd.as_fd())).await
    }

    pub(crate) fn last(&self) -> Vec<Letter> {
        let next = || self.closer.has_room().then(|| self.take(self.as_fd()).ok()).flatten();
        (0..MAX_LAST).map_while(|_| next()).collect()
    }

    fn take(&self, socket: BorrowedFd<'_>) -> io::Result<Letter> {
        let (ProcessMessage { bytes, pid, fds }, whole) = mailbox::take(socket, MAX_DATAGRAM)?;
        Ok(Letter { pid, bytes, fds: self.closer.sent(fds), damaged: !whole })
    }

    /// Counts a message of a process that may send none, and says so now and then.
    pub(crate) fn ignore(&mut self, letter: Letter) {
        drop(letter.fds.of_stranger());
        self.strangers += 1;
        if self.strangers.is_power_of_two() {
            let (pid, count) = (letter.pid, self.strangers);
            warn!(pid, "notifications of processes that may not send any are ignored (--notify-access): {count}");
        }
    }

    /// Counts a message of the program of which a part is missing, and says so now and then.
    pub(crate) fn discard(&mut self, generation: u64) {
        self.damaged += 1;
        if self.damaged.is_power_of_two() {
            let count = self.damaged;
            warn!(
                generation,
                "notifications longer than {MAX_DATAGRAM} bytes, or with too many fds, are ignored: {count}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let closer = Closer::start().unwrap();
        let said = read(text.as_bytes(), closer.sent(Vec::new()));
        let said: Vec<String> = said.iter().map(|one| format!("{one:?}")).collect();
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
        assert_eq!(shown("MAINPID=7\nREADY=1"), r#"Foreign("MAINPID") Ready"#);
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for text in ["", "READY", "READY=2", "READY=0\n", "=1", "EXTEND_TIMEOUT_USEC=x", "FDSTORE=1", "\u{fffd}\0=\n"] {
            assert_eq!(shown(text), "", "{text:?}");
        }
        let fd = std::fs::File::open("/dev/null").unwrap();
        let sent = Closer::start().unwrap().sent(vec![fd.into()]);
        let said = read(b"FDSTORE=1\nFDNAME=a:b\nFDPOLL=0", sent);
        let [Notification::Store { name, poll: false, fds }] = &said[..] else { panic!("{said:?}") };
        assert!(name == NAMELESS && fds.iter().count() == 1);
    }

    #[test]
    fn each_has_its_rights() {
        let rights = |said: &Notification| {
            [LifeState::Starting, LifeState::Trial, LifeState::Serving, LifeState::Draining, LifeState::Stopping]
                .map(|state| said.right(state))
        };
        use Right::{Counts, CountsWhenMain, MeansNothing};
        assert_eq!(rights(&Notification::Ready), [Counts, MeansNothing, MeansNothing, MeansNothing, MeansNothing]);
        assert_eq!(rights(&Notification::Stopping), [MeansNothing, MeansNothing, Counts, MeansNothing, MeansNothing]);
        let store = Notification::Unstore("q".into());
        assert_eq!(rights(&store), [CountsWhenMain, CountsWhenMain, Counts, MeansNothing, MeansNothing]);
        assert_eq!(rights(&Notification::Extend(Duration::ZERO)), [Counts, MeansNothing, Counts, MeansNothing, Counts]);
        assert_eq!(rights(&Notification::Foreign("MAINPID")), [Right::Nobodys("MAINPID"); 5]);
        assert_eq!(rights(&Notification::Barrier), [Counts; 5]);
    }
}
