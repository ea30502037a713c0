//! What the example service tells its manager in a life with a reload, datagram by datagram, seen
//! from the other end of `NOTIFY_SOCKET`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use handover::Program;
use handover::supervise::mailbox;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// For each datagram; they come within milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn every_datagram_of_a_reload_in_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::bind(&directory.path().join("notify"));
    let first = start(&directory.path().join("notify"));
    let mut service = Service(Some(first), None);

    let told = manager.next();
    assert_eq!((told.sender, told.lines()), (first, vec!["READY=1", "STATUS=generation 1 serves"]));

    let asked = monotonic_usec();
    signal(first, Signal::SIGHUP);
    let told = manager.next();
    let usec: u64 = told.field("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((asked..=monotonic_usec()).contains(&usec), "{usec} is not between the signal and now");
    let status = "STATUS=generation 1 serves; starting generation 2";
    let reloading = vec!["RELOADING=1".to_owned(), format!("MONOTONIC_USEC={usec}"), status.to_owned()];
    assert_eq!((told.sender, sorted(&told.lines())), (first, sorted(&reloading)));

    // Until then it asks for time, as TimeoutStartSec= is the limit of a reload, too.
    let told = loop {
        let told = manager.next();
        if told.field("EXTEND_TIMEOUT_USEC").is_none() {
            break told;
        }
        assert_eq!((told.sender, told.lines().len()), (first, 1), "{told:?}");
    };
    // One datagram: systemd reads MAINPID first, whatever the order in it, and READY ends the
    // reload.
    let second: u32 = told.field("MAINPID").unwrap().parse().unwrap();
    assert_ne!(first, second);
    service.1 = Some(second);
    let mut handover = vec![format!("MAINPID={second}"), "READY=1".into(), "STATUS=generation 2 takes over".into()];
    // Linux numbers pidfds from 6.9 on.
    handover.extend(told.field("MAINPIDFDID").map(|id| format!("MAINPIDFDID={id}")));
    assert_eq!((told.sender, sorted(&told.lines())), (first, sorted(&handover)));
    assert_eq!(parent(second), std::process::id(), "a child of the manager, like the first one");

    let barrier = manager.next();
    assert_eq!((barrier.sender, barrier.lines(), barrier.fds.len()), (first, vec!["BARRIER=1"], 1));
    // Closing its fd says that all before it was read; only then is the second one told, and
    // speaks.
    drop(barrier);
    let told = manager.next();
    assert_eq!((told.sender, told.lines()), (second, vec!["STATUS=generation 2 serves"]));
    let ended = waitpid(pid(first), None);
    assert_eq!(ended, Ok(WaitStatus::Exited(pid(first), 0)), "it has nothing to drain, and nothing more to say");
    service.0 = None;

    signal(second, Signal::SIGTERM);
    let told = manager.next();
    assert_eq!((told.sender, told.field("STOPPING")), (second, Some("1")));
    assert_eq!(waitpid(pid(second), None), Ok(WaitStatus::Exited(pid(second), 0)));
    service.1 = None;
    // At the very end the drain may have asked for time; nobody said anything else.
    while let Some(told) = manager.left() {
        assert!(told.sender == second && told.field("EXTEND_TIMEOUT_USEC").is_some(), "{told:?}");
    }
}

/// Nobody is left when the test fails.
#[derive(Debug)]
struct Service(Option<u32>, Option<u32>);

impl Drop for Service {
    fn drop(&mut self) {
        // Each is a child of ours, so its pid is its own until it is waited for.
        for left in [self.0, self.1].into_iter().flatten() {
            let _ = kill(pid(left), Signal::SIGKILL);
            let _ = waitpid(pid(left), None);
        }
    }
}

/// As a manager does, with the socket of a .socket unit: one that the service binds goes to the fd
/// store, and that is told, too.
fn start(notify: &Path) -> u32 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Program::new(env!("CARGO_BIN_EXE_handover")).arg("web").socket("http", socket);
    service.env("NOTIFY_SOCKET", notify).env("RUST_LOG", "off").start().unwrap().pid()
}

#[derive(Debug)]
struct Manager(UnixDatagram);

#[derive(Debug)]
struct Told {
    sender: u32,
    text: String,
    fds: Vec<OwnedFd>,
}

impl Manager {
    fn bind(path: &Path) -> Self {
        let socket = mailbox::bind(path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    #[track_caller]
    fn next(&self) -> Told {
        self.receive().unwrap_or_else(|| panic!("nothing more within {DEADLINE:?}"))
    }

    /// What is there already.
    fn left(&self) -> Option<Told> {
        self.0.set_nonblocking(true).unwrap();
        let told = self.receive();
        self.0.set_nonblocking(false).unwrap();
        told
    }

    fn receive(&self) -> Option<Told> {
        let letter = mailbox::receive(&self.0, 4096).ok()?;
        Some(Told { sender: letter.pid.unwrap_or(0), text: String::from_utf8(letter.bytes).unwrap(), fds: letter.fds })
    }
}

impl Told {
    fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

fn sorted(lines: &[impl AsRef<str>]) -> Vec<&str> {
    let mut lines: Vec<_> = lines.iter().map(AsRef::as_ref).collect();
    lines.sort_unstable();
    lines
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn signal(to: u32, signal: Signal) {
    kill(pid(to), signal).unwrap();
}

fn parent(of: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{of}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn monotonic_usec() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    u64::try_from(now.as_micros()).unwrap()
}
