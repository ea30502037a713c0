//! A service manager as far as sd_notify(3) goes: it reads what it is told, and keeps fds if it
//! shall.

use std::os::fd::{AsFd as _, OwnedFd};
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
    /// The fd store, if there is one. All is kept as with `FDPOLL=0`.
    store: Option<Vec<(String, OwnedFd)>>,
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
                if let Some(store) = &mut told_now.store {
                    change(store, &datagram, fds);
                } else if told_now.holding {
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

    /// Keeps fds from now on.
    pub fn keep_fds(&self) {
        self.lock().store = Some(Vec::new());
    }

    /// What it keeps, as the next start gets it.
    pub fn kept(&self) -> Vec<(String, OwnedFd)> {
        let told = self.lock();
        told.store.iter().flatten().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
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

/// What systemd does with a message to its fd store.
fn change(store: &mut Vec<(String, OwnedFd)>, datagram: &Datagram, fds: Vec<OwnedFd>) {
    let name = datagram.field("FDNAME").unwrap_or("stored");
    if datagram.has("FDSTOREREMOVE=1") {
        store.retain(|(known, _)| known != name);
    } else if datagram.has("FDSTORE=1") {
        for fd in fds {
            if !store.iter().any(|(_, known)| inode(known) == inode(&fd)) {
                store.push((name.to_owned(), fd));
            }
        }
    }
}

/// Tells sockets and memory files apart, which is all that is stored here.
fn inode(fd: &OwnedFd) -> (u64, u64) {
    let of = nix::sys::stat::fstat(fd.as_fd()).unwrap();
    (of.st_dev, of.st_ino)
}

fn receive(socket: &UnixDatagram) -> Option<(Datagram, Vec<OwnedFd>)> {
    let letter = mailbox::receive(socket, 8192).ok()?;
    let text = String::from_utf8(letter.bytes).unwrap();
    Some((Datagram { pid: letter.pid.unwrap_or(0), text, at: Instant::now() }, letter.fds))
}
