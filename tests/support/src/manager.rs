//! A service manager as far as sd_notify(3) goes: it reads what it is told.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use handover::supervise::mailbox;

use crate::patience;
use crate::processes::until;

#[derive(Debug, Clone)]
pub struct Datagram {
    pub pid: u32,
    pub text: String,
    pub at: Instant,
}

impl Datagram {
    pub fn has(&self, line: &str) -> bool {
        self.text.lines().any(|l| l == line)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Default)]
struct Told {
    datagrams: Vec<Datagram>,
    /// Barriers after the next change of MAINPID are not answered.
    hold_at_handover: bool,
    /// Barriers are not answered now; these wait.
    holding: bool,
    held: Vec<OwnedFd>,
}

#[derive(Debug, Clone)]
pub struct Manager {
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Manager {
    pub fn listen(path: &Path) -> Self {
        let socket = mailbox::bind(path).unwrap();
        let told = Arc::<(Mutex<Told>, Condvar)>::default();
        let weak = Arc::downgrade(&told);
        // Ends when the case is over: then nobody wants to know any more.
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        thread::spawn(move || {
            loop {
                let received = receive(&socket);
                let Some(told) = weak.upgrade() else { return };
                let Some((datagram, fds)) = received else { continue };
                let mut told_now = told.0.lock().unwrap();
                told_now.holding |= told_now.hold_at_handover && datagram.field("MAINPID").is_some();
                if told_now.holding {
                    told_now.held.extend(fds);
                }
                told_now.datagrams.push(datagram);
                told.1.notify_all();
            }
        });
        Self { told }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Datagram> {
        self.lock().datagrams.clone()
    }

    /// How many there are by now; [`Manager::wait_from`] looks at those after.
    pub fn mark(&self) -> usize {
        self.lock().datagrams.len()
    }

    pub fn wait_from(&self, mark: usize, what: &str, wanted: impl Fn(&Datagram) -> bool) -> Datagram {
        let deadline = Instant::now() + patience();
        let mut told = self.lock();
        loop {
            if let Some(found) = told.datagrams[mark..].iter().find(|d| wanted(d)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(told);
                panic!("the service manager was never told {what}");
            }
            told = self.told.1.wait_timeout(told, left).unwrap().0;
        }
    }

    pub fn wait(&self, what: &str, wanted: impl Fn(&Datagram) -> bool) -> Datagram {
        self.wait_from(0, what, wanted)
    }

    /// Leaves all barriers unanswered until [`Manager::release_barriers`].
    pub fn hold_barriers(&self) {
        self.lock().holding = true;
    }

    /// Leaves the barrier of a handover unanswered until [`Manager::release_barriers`]; not those
    /// of the fd store before it.
    pub fn hold_at_handover(&self) {
        self.lock().hold_at_handover = true;
    }

    /// The new main has been announced, and this is not confirmed.
    pub fn wait_for_held_barrier(&self) {
        until("the barrier of a handover", || (!self.lock().held.is_empty()).then_some(()));
    }

    pub fn release_barriers(&self) {
        let mut told = self.lock();
        (told.hold_at_handover, told.holding) = (false, false);
        told.held.clear();
    }

    /// Every RELOADING has its READY, and it is the next change of state.
    pub fn check_states(&self) {
        let mut reloading = false;
        for Datagram { text, .. } in self.all() {
            for line in text.lines() {
                match line {
                    "RELOADING=1" => {
                        assert!(!reloading, "RELOADING twice");
                        let fields: Vec<_> = text.lines().filter_map(|l| Some(l.split_once('=')?.0)).collect();
                        assert!(fields.contains(&"MONOTONIC_USEC"), "{text}");
                        reloading = true;
                    }
                    "READY=1" => reloading = false,
                    "STOPPING=1" => return,
                    _ => {}
                }
            }
        }
        assert!(!reloading, "RELOADING without READY");
    }
}

fn receive(socket: &UnixDatagram) -> Option<(Datagram, Vec<OwnedFd>)> {
    let letter = mailbox::receive(socket, 8192).ok()?;
    let text = String::from_utf8(letter.bytes).unwrap();
    Some((Datagram { pid: letter.pid.unwrap_or(0), text, at: Instant::now() }, letter.fds))
}
